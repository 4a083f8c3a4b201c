"""The configuration of a run: WeKWS's sections, and ours beside them."""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from wekws.config import apply_overrides, load_yaml_with_base, parse_section, to_mapping
from wekws.dataset.loader import DatasetConfig
from wekws.distill.objective import DistillConfig
from wekws.distill.transplant import TransplantConfig
from wekws.errors import ConfigError
from wekws.model.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Section ``optim_conf``.

    lr: learning rate after warm-up. weight_decay: Adam's L2 penalty.
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
    """

    max_epoch: int = 80
    grad_clip: float = 5.0
    log_interval: int = 10
    criterion: Literal["ctc"] = "ctc"

    def __post_init__(self) -> None:
        """Refuse a run without steps."""
        if self.max_epoch < 1 or self.log_interval < 1 or not self.grad_clip > 0:
            raise ConfigError("max_epoch and log_interval: expected >= 1; grad_clip: above 0")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """A whole configuration file."""

    dataset_conf: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig
    optim: Literal["adam"] = "adam"
    optim_conf: OptimConfig = field(default_factory=OptimConfig)
    scheduler_conf: SchedulerConfig = field(default_factory=SchedulerConfig)
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    distill_conf: DistillConfig = field(default_factory=DistillConfig)
    transplant: TransplantConfig = field(default_factory=TransplantConfig)

    def __post_init__(self) -> None:
        """Check the rules between sections: the front end makes what the model takes."""
        made = self.dataset_conf.input_dim
        if made != self.model.input_dim:
            raise ConfigError(
                f"model.input_dim is {self.model.input_dim} but dataset_conf makes {made} "
                "(mel bins x spliced frames); change one of them"
            )

    def with_output_dim(self, output_dim: int) -> "ExperimentConfig":
        """Return the same configuration for a vocabulary of another size."""
        return dataclasses.replace(self, model=self.model.with_output_dim(output_dim))


def load_experiment(
    path: str | os.PathLike[str], overrides: Iterable[str] = ()
) -> ExperimentConfig:
    """Read a configuration file, its bases and ``section.key=value`` overrides.

    Raises: ConfigError that names every problem with its dotted path.
    """
    content = apply_overrides(load_yaml_with_base(path), overrides)
    return parse_section(ExperimentConfig, content, str(path))


def changed_keys(old: ExperimentConfig, new: ExperimentConfig) -> list[str]:
    """Return the dotted paths in which two configurations differ."""
    return sorted(_differences(to_mapping(old), to_mapping(new), ""))


def _differences(old: object, new: object, path: str) -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield path
