"""The configuration of a training run: WeKWS's sections, and ours beside them."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wekws.config import RawConfig, load_config, parse_config, to_mapping
from wekws.dataset.dataset_conf import DatasetConfig, with_current_names
from wekws.distill.growth import ProgressiveConfig, require_teacher_blocks
from wekws.distill.methods import MethodSections
from wekws.distill.stages import StagePlan
from wekws.errors import ConfigError
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Section ``optim_conf``."""

    lr: float = 1e-3
    """Learning rate after warm-up, > 0."""
    weight_decay: float = 0.0
    """``adam``: L2 penalty, part of the gradient. ``adamw``: share of each weight, times lr, that a
    step takes away (Loshchilov and Hutter 2019, arXiv:1711.05101). >= 0."""

    def __post_init__(self) -> None:
        """Refuse rates that cannot train."""
        if not self.lr > 0 or self.weight_decay < 0:
            raise ConfigError(f"lr {self.lr}, weight_decay {self.weight_decay}; expected > 0, >= 0")


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Section ``scheduler_conf``: the learning rate over training."""

    type: Literal["plateau", "cosine", "constant"] = "plateau"
    """``plateau`` multiplies by ``factor`` when cv_loss has not fallen by the share ``threshold``
    for ``patience`` epochs; ``cosine`` falls to ``min_lr`` at the last step."""
    factor: float = 0.5
    """Factor of ``plateau``, between 0 and 1."""
    patience: int = 3
    """Epochs that ``plateau`` waits, >= 0."""
    threshold: float = 0.01
    """Share of cv_loss that counts as progress."""
    min_lr: float = 1e-6
    """Lowest learning rate, >= 0."""
    warmup_epochs: float = 0.0
    """Epochs of linear rise from 0, before either; may be a fraction. >= 0."""

    def __post_init__(self) -> None:
        """Refuse a schedule that would not fall."""
        if not 0 < self.factor < 1:
            raise ConfigError(f"factor: found {self.factor}; expected between 0 and 1")
        if self.patience < 0 or self.warmup_epochs < 0 or self.min_lr < 0:
            raise ConfigError("patience, warmup_epochs and min_lr: expected >= 0")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Section ``training_config``."""

    max_epoch: int = 80
    """Epochs in all, >= 1."""
    grad_clip: float = 5.0
    """Largest norm of the gradient, > 0."""
    log_interval: int = 10
    """Steps per log line, >= 1."""
    accum_grad: int = 1
    """Batches of ``batch_size`` per optimiser step; the step is that of one batch as large as all
    of them. >= 1."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, which is then scored and saved; below 1, 0: no
    average."""
    gradient_interval: int = 0
    """Steps from one measurement of the terms' gradients to the next; 0: never."""
    criterion: Literal["ctc"] = "ctc"
    """WeKWS's name of the loss."""

    def __post_init__(self) -> None:
        """Refuse a run without steps."""
        if self.max_epoch < 1 or self.log_interval < 1 or not self.grad_clip > 0:
            raise ConfigError("max_epoch and log_interval: expected >= 1; grad_clip: above 0")
        if self.accum_grad < 1 or self.gradient_interval < 0:
            raise ConfigError("accum_grad: expected >= 1; gradient_interval: >= 0")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay: found {self.ema_decay}; expected 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(MethodSections):
    """A whole configuration file; the sections of methods are inherited."""

    dataset_conf: DatasetConfig = field(default_factory=DatasetConfig)
    """From audio to model input."""
    model: ModelConfig
    """Sizes of the model."""
    optim: Literal["adam", "adamw"] = "adam"
    """Optimiser."""
    optim_conf: OptimConfig = field(default_factory=OptimConfig)
    """Its settings."""
    scheduler_conf: SchedulerConfig = field(default_factory=SchedulerConfig)
    """The learning rate over training."""
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    """Length and steps of the training."""

    def __post_init__(self) -> None:
        """Check the rules between sections: the front end makes the frames that the model takes."""
        made = self.dataset_conf.front_end.input_dim
        if made != self.model.input_dim:
            raise ConfigError(
                f"model.input_dim is {self.model.input_dim} but dataset_conf makes {made} "
                "(mel bins x spliced frames); change one of them"
            )
        self.check_methods(
            num_layers=self.model.backbone.num_layers,
            max_epoch=self.training_config.max_epoch,
            has_masks=self.dataset_conf.spec_aug,
        )

    @property
    def step_size(self) -> int:
        """Utterances of one optimiser step, all processes together."""
        return self.dataset_conf.batch_conf.batch_size * self.training_config.accum_grad

    @property
    def stage_plan(self) -> StagePlan | None:
        """The stages laid over the training's epochs; None: no stages."""
        return StagePlan(self.stages, self.training_config.max_epoch) if self.stages else None

    def with_output_dim(self, output_dim: int) -> "TrainConfig":
        """Return the same configuration for a vocabulary of another size."""
        return dataclasses.replace(self, model=self.model.with_output_dim(output_dim))

    def at_epoch(self, epoch: int, teacher: KwsModel | None) -> "TrainConfig":
        """Return the configuration of the student as it is at the start of an epoch.

        It differs from this one for a student that grows: its depth, and its blocks' origin.
        Raises: ConfigError if blocks are to come from a teacher that does not have them.
        """
        growth, full = self.progressive, self.model.backbone.num_layers
        if not growth.is_used:
            return self
        rules = self.transplant
        blocks = rules.blocks
        if growth.new_block == "teacher":
            blocks = require_teacher_blocks(rules, full, teacher)
        num_layers = growth.depth_at(epoch, full, self.training_config.max_epoch)
        return dataclasses.replace(
            self,
            model=self.model.with_num_layers(num_layers),
            transplant=dataclasses.replace(
                rules, blocks=blocks if blocks == "ends" else blocks[:num_layers]
            ),
            progressive=ProgressiveConfig(),
        )


def load_train_config(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    overlays: Iterable[str | os.PathLike[str]] = (),
) -> TrainConfig:
    """Read a configuration file and its bases; overlay files and then overrides change it.

    overrides: ``section.key=value``.
    A CMVN file that is not where the configuration says may lie beside it, as in the folder of a
    run that was moved.
    Raises: ConfigError that names every problem with its file and dotted key.
    """
    raw = with_current_names(load_config(path, overlays, overrides))
    return parse_config(TrainConfig, _with_cmvn_beside(raw))


def load_distill_config(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    overlays: Iterable[str | os.PathLike[str]] = (),
    *,
    alpha: str | None = None,
    temperature: str | None = None,
) -> TrainConfig:
    """Read a configuration as ``load_train_config`` does, with the values of two flags on top.

    Raises: ConfigError that names the flag instead of an override, also if both set a value.
    """
    overrides = list(overrides)
    flags = {"alpha": alpha, "temperature": temperature}
    given = {name: value for name, value in flags.items() if value}
    for name, value in given.items():
        if twice := [o for o in overrides if o.partition("=")[0].strip() == f"distill_conf.{name}"]:
            raise ConfigError(
                f"--{name} {value}: --override {twice[0]} sets it too; leave out one of the two"
            )
    own = {f"distill_conf.{name}={value}": f"--{name}" for name, value in given.items()}
    try:
        return load_train_config(path, [*overrides, *own], overlays)
    except ConfigError as error:
        text = str(error)
        for override, flag in own.items():
            text = text.replace(f"--override {override}", flag)
        raise ConfigError(text) from error


_CMVN_KEY = ("model", "cmvn", "cmvn_file")


def _with_cmvn_beside(raw: RawConfig) -> RawConfig:
    content: Any = raw.content
    for key in _CMVN_KEY:
        content = content.get(key) if isinstance(content, Mapping) else None
    origin = raw.origin(*_CMVN_KEY)
    if not isinstance(content, str) or origin is None or Path(content).exists():
        return raw
    beside = Path(origin).parent / Path(content).name
    if not beside.is_file():
        return raw
    found = {"model": {"cmvn": {"cmvn_file": str(beside)}}}
    return raw.overlaid(RawConfig.of(found, origin))


def changed_keys(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return the dotted paths in which two configurations differ."""
    return sorted(_differences(to_mapping(old), to_mapping(new), ""))


def _differences(old: object, new: object, path: str) -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield path
