"""The configuration of a run: WeKWS's sections, and ours beside them."""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from wekws.config import load_config, parse_config, to_mapping
from wekws.dataset.loader import DatasetConfig
from wekws.distill.distill_conf import DistillConfig
from wekws.distill.growth import ProgressiveConfig
from wekws.distill.schedule import is_used
from wekws.distill.stages import Stage, StagePlan
from wekws.distill.terms import CtcConfig
from wekws.distill.transplant import TransplantConfig
from wekws.errors import ConfigError
from wekws.model.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Section ``optim_conf``.

    lr: learning rate after warm-up. weight_decay: ``adam``'s L2 penalty, part of the gradient; of
    ``adamw`` the share of each weight, times lr, that a step takes away (Loshchilov and Hutter
    2019, arXiv:1711.05101).
    """

    lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse rates that cannot train."""
        if not self.lr > 0 or self.weight_decay < 0:
            raise ConfigError(f"lr {self.lr}, weight_decay {self.weight_decay}; expected > 0, >= 0")


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Section ``scheduler_conf``: the learning rate over training.

    type: ``plateau`` multiplies by ``factor`` when cv_loss has not fallen by the share
    ``threshold`` for ``patience`` epochs; ``cosine`` falls to ``min_lr`` at the last step.
    warmup_epochs: linear rise from 0 over this many epochs, before either; may be a fraction.
    """

    type: Literal["plateau", "cosine", "constant"] = "plateau"
    factor: float = 0.5
    patience: int = 3
    threshold: float = 0.01
    min_lr: float = 1e-6
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a schedule that would not fall."""
        if not 0 < self.factor < 1:
            raise ConfigError(f"factor: found {self.factor}; expected between 0 and 1")
        if self.patience < 0 or self.warmup_epochs < 0 or self.min_lr < 0:
            raise ConfigError("patience, warmup_epochs and min_lr: expected >= 0")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Section ``training_config``.

    max_epoch: epochs in all. grad_clip: largest gradient norm. log_interval: steps a log line.
    accum_grad: batches of ``batch_size`` that make one optimiser step; the step is that of one
    batch as large as all of them.
    ema_decay: of a moving average of the weights, which then is what cv passes and checkpoints
    hold; below 1, 0: none.
    gradient_interval: steps from one look at the single terms' gradients to the next, 0: never.
    """

    max_epoch: int = 80
    grad_clip: float = 5.0
    log_interval: int = 10
    accum_grad: int = 1
    ema_decay: float = 0.0
    gradient_interval: int = 0
    criterion: Literal["ctc"] = "ctc"

    def __post_init__(self) -> None:
        """Refuse a run without steps."""
        if self.max_epoch < 1 or self.log_interval < 1 or not self.grad_clip > 0:
            raise ConfigError("max_epoch and log_interval: expected >= 1; grad_clip: above 0")
        if self.accum_grad < 1 or self.gradient_interval < 0:
            raise ConfigError("accum_grad: expected >= 1; gradient_interval: >= 0")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay: found {self.ema_decay}; expected 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """A whole configuration file.

    stages: see ``Stage``; empty: ``distill_conf.alpha`` weighs labels and teacher throughout.
    """

    dataset_conf: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig
    optim: Literal["adam", "adamw"] = "adam"
    optim_conf: OptimConfig = field(default_factory=OptimConfig)
    scheduler_conf: SchedulerConfig = field(default_factory=SchedulerConfig)
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    ctc_conf: CtcConfig = field(default_factory=CtcConfig)
    distill_conf: DistillConfig = field(default_factory=DistillConfig)
    transplant: TransplantConfig = field(default_factory=TransplantConfig)
    stages: tuple[Stage, ...] = ()
    progressive: ProgressiveConfig = field(default_factory=ProgressiveConfig)

    def __post_init__(self) -> None:
        """Check the rules between sections: the front end makes what the model takes."""
        made = self.dataset_conf.front_end.input_dim
        if made != self.model.input_dim:
            raise ConfigError(
                f"model.input_dim is {self.model.input_dim} but dataset_conf makes {made} "
                "(mel bins x spliced frames); change one of them"
            )
        if is_used(self.distill_conf.consistency.weight) and not self.dataset_conf.spec_aug:
            raise ConfigError(
                "distill_conf.consistency: two views differ by SpecAugment's masks; switch "
                "dataset_conf.spec_aug on"
            )
        self._check_stages()
        if self.progressive.is_used:
            self._check_growth()

    def _check_stages(self) -> None:
        usual, conf = DistillConfig(), self.distill_conf
        if self.stage_plan and (conf.alpha, conf.alpha_floor) != (usual.alpha, usual.alpha_floor):
            raise ConfigError(
                "stages: given beside distill_conf.alpha or alpha_floor; expected one way of "
                "weighing, leave alpha out"
            )

    def _check_growth(self) -> None:
        """Refuse what changes with the number of blocks, and a student that stays shallow."""
        start, full = self.progressive.start_blocks, self.model.backbone.num_layers
        last = self.depth_at(self.training_config.max_epoch - 1) if start <= full else start
        if last != full:
            raise ConfigError(
                f"progressive: {start} blocks at the start, {last} in the last epoch, num_layers "
                f"{full}; expected to end there: change start_blocks, every or max_epoch"
            )
        hidden, inner = self.distill_conf.hidden, self.distill_conf.inner
        has_pairs = is_used(hidden.weight) or is_used(self.distill_conf.adversarial.weight)
        if has_pairs and not hidden.pairs:
            raise ConfigError(
                "progressive: the rule of distill_conf.hidden pairs other blocks at every depth; "
                f"name `pairs` within the student's first {start} blocks"
            )
        if is_used(inner.weight) and inner.block > start:
            raise ConfigError(
                f"progressive: distill_conf.inner.block {inner.block} is not there from the start; "
                f"expected at most {start}"
            )
        takes_slices = self.transplant.channels != "activation" and not self.transplant.source
        if self.progressive.new_block == "teacher" and not takes_slices:
            raise ConfigError(
                "progressive.new_block: teacher takes the same channels of the teacher at every "
                "depth; expected transplant.channels first or uniform and no transplant.source, "
                "or new_block identity"
            )

    def depth_at(self, epoch: int) -> int:
        """Return how many blocks the student has in an epoch."""
        full = self.model.backbone.num_layers
        return self.progressive.depth_at(epoch, full, self.training_config.max_epoch)

    def with_depth(self, num_layers: int) -> "ExperimentConfig":
        """Return the configuration of a student that stays at its first ``num_layers`` blocks."""
        blocks = self.transplant.blocks
        blocks = blocks if blocks == "ends" else blocks[:num_layers]
        return dataclasses.replace(
            self,
            model=self.model.with_num_layers(num_layers),
            transplant=dataclasses.replace(self.transplant, blocks=blocks),
            progressive=ProgressiveConfig(),
        )

    @property
    def stage_plan(self) -> StagePlan | None:
        """The stages laid over the training's epochs; None: no stages."""
        return StagePlan(self.stages, self.training_config.max_epoch) if self.stages else None

    def with_output_dim(self, output_dim: int) -> "ExperimentConfig":
        """Return the same configuration for a vocabulary of another size."""
        return dataclasses.replace(self, model=self.model.with_output_dim(output_dim))


def load_experiment(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    overlays: Iterable[str | os.PathLike[str]] = (),
) -> ExperimentConfig:
    """Read a configuration file and its bases; overlay files and then overrides change it.

    overrides: ``section.key=value``.
    Raises: ConfigError that names every problem with its file and dotted key.
    """
    return parse_config(ExperimentConfig, load_config(path, overlays, overrides))


def changed_keys(old: ExperimentConfig, new: ExperimentConfig) -> list[str]:
    """Return the dotted paths in which two configurations differ."""
    return sorted(_differences(to_mapping(old), to_mapping(new), ""))


def _differences(old: object, new: object, path: str) -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield path
