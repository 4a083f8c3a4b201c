"""Part of the recipe's plan: how long base, teacher and student train, and who set it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wekws.config import load_config
from wekws.errors import ConfigError
from wekws.sweep.recipe_options import RecipeOptions
from wekws.train.train_config import TrainConfig, load_distill_config

DEFAULT_NUM_AVERAGE = 30
# Epochs of the base with the default overlay of recordings: it learns the tokens, no more, from the
# recordings or from short synthesised utterances.
OWN_WORD_BASE_EPOCHS = 10
SYNTHESISED_BASE_EPOCHS = 30


@dataclass(frozen=True, kw_only=True)
class Length:
    """Training length of one model."""

    epochs: int
    """Epochs in all."""
    source: str
    """File or flag that set the epochs, or a default."""
    is_override: bool
    """Whether they differ from the configuration's: the training command is given them."""
    num_average: int
    """Epochs whose weights are averaged at the end."""
    last_stage: int
    """Epochs of the last stage; all of them without stages."""
    config: TrainConfig
    """The whole configuration."""

    @property
    def flags(self) -> list[str]:
        """Flags of the training command that set the epochs; none if the configuration does."""
        if not self.is_override:
            return []
        return ["--override", f"training_config.max_epoch={self.epochs}"]

    def with_at_most_half(self) -> "Length":
        """Return the same length, averaging at most half of the epochs, of the last stage only."""
        most = min((self.epochs + 1) // 2, self.last_stage)
        return dataclasses.replace(self, num_average=min(self.num_average, most))

    def __str__(self) -> str:
        """Return the length as the plan prints it."""
        return f"{self.epochs} epochs ({self.source}), mean of {self.num_average}"


def teacher_lengths(
    options: RecipeOptions,
    config: Path,
    overlays: Sequence[Path],
    short: tuple[int, int] | None,
    usual_base: int | None,
    base_overrides: Sequence[str],
) -> tuple[Length, Length]:
    """Return how long base and teacher train.

    short: their epochs where a preset sets them. usual_base: epochs of the base where the default
    overlay of recordings is used. base_overrides: further settings of the base.
    """
    average = DEFAULT_NUM_AVERAGE if options.num_average is None else options.num_average
    flags, epochs = (
        ["--base_epochs", "--teacher_epochs"],
        [options.base_epochs, options.teacher_epochs],
    )
    for index, number in enumerate(short or ()):
        if epochs[index] is None:
            flags[index], epochs[index] = f"--preset {options.preset}", number
    if usual_base is not None and epochs[0] is None:
        flags[0], epochs[0] = "default for recordings", usual_base
    base = _length(flags[0], epochs[0], 1, config, overlays, base_overrides)
    teacher = _length(flags[1], epochs[1], average, config, overlays)
    if options.num_average is None:
        teacher = teacher.with_at_most_half()
    if not options.teacher_checkpoint:
        _check_average(teacher, "teacher")
    return base, teacher


def student_length(
    options: RecipeOptions, config: Path, overlays: Sequence[Path], more: Sequence[str]
) -> Length:
    """Return how long the student trains; more: further overrides of its configuration."""
    average = DEFAULT_NUM_AVERAGE if options.num_average is None else options.num_average
    epochs = options.student_epochs
    student = _length(
        "--student_epochs",
        epochs,
        average,
        config,
        overlays,
        more,
        alpha=options.alpha,
        temperature=options.temperature,
    )
    if options.num_average is None:
        student = student.with_at_most_half()
    _check_average(student, "student")
    return student


def _length(
    flag: str,
    epochs: int | None,
    num_average: int,
    config: Path,
    overlays: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    alpha: str = "",
    temperature: str = "",
) -> Length:
    """Return how long a model trains; its whole configuration is checked on the way."""
    if epochs is not None:
        overrides = [*overrides, f"training_config.max_epoch={epochs}"]
    checked = load_distill_config(config, overrides, overlays, alpha=alpha, temperature=temperature)
    num_epochs = checked.training_config.max_epoch
    plan = checked.stage_plan
    source = load_config(config, overlays).origin("training_config", "max_epoch") or "default"
    if epochs is not None:
        source = flag
    return Length(
        epochs=num_epochs,
        source=source,
        is_override=epochs is not None,
        num_average=num_average,
        last_stage=plan.epochs[-1] if plan is not None else num_epochs,
        config=checked,
    )


def _check_average(length: Length, model: str) -> None:
    if length.num_average > length.last_stage:
        of = " of its last stage" if length.last_stage < length.epochs else ""
        raise ConfigError(
            f"--num_average {length.num_average}: more than the {model}'s {length.last_stage} "
            f"epochs{of} ({length.source})"
        )
