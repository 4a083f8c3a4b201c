"""Training in named stages, each with its own weights, frozen modules and learning rate."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wekws.distill.hook import TrainingHook, TrainingRun
from wekws.distill.method import Group
from wekws.distill.schedule import Schedule, share_out
from wekws.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One item of the list ``stages``, which is given in place of alpha.

    ``task``, ``distillation`` and ``feature`` multiply the terms' own weights in
    ``distill_conf``. At least one of them is above 0. A group of weight 0 is not computed in
    training, nor are the teacher's outputs if nothing else needs them. Cv passes compute every
    term of the run in every stage, so that epochs compare.
    """

    name: str
    """Name for the log, different from that of the other stages."""
    epochs: int
    """Share of the training (see ``StagePlan``), at least 1."""
    task: float = 1.0
    """Weight of the terms that use the labels (ctc, its smoothing, keyword, the inner head's ctc),
    >= 0."""
    distillation: float = 0.0
    """Weight of the terms on posteriors (kd, guide, inner_kd, consistency), >= 0."""
    feature: float = 0.0
    """Weight of the terms on inner features (hidden, gate, adversarial), >= 0."""
    temperature: float | None = None
    """Temperature, above 0; empty: that of distill_conf."""
    lr: float | None = None
    """Learning rate in place of ``optim_conf.lr``; the scheduler changes it in proportion. Empty:
    ``optim_conf.lr``."""
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Module path of the student -> factor on its learning rate, above 0; where several apply, the
    longest path counts."""
    freeze: tuple[str, ...] = ()
    """Module paths of the student that stay as they are: no gradient, no weight decay."""

    def __post_init__(self) -> None:
        """Refuse a stage without epochs or without a weight."""
        if not self.name or self.epochs < 1:
            raise ConfigError(f"name {self.name!r}, epochs {self.epochs}: expected a name, >= 1")
        weights = (self.task, self.distillation, self.feature)
        if min(weights) < 0.0 or not max(weights) > 0.0:
            raise ConfigError(
                f"task, distillation, feature: found {weights}; expected >= 0, at least one above"
            )
        positive = {"temperature": self.temperature, "lr": self.lr, **self.lr_scales}
        for key, value in positive.items():
            if value is not None and not value > 0.0:
                advice = "; to keep a module as it is, freeze it" if key in self.lr_scales else ""
                raise ConfigError(f"{key}: found {value}; expected above 0{advice}")

    @property
    def is_distilling(self) -> bool:
        """Whether it uses more than the labels."""
        return max(self.distillation, self.feature) > 0.0

    def is_frozen(self, parameter: str) -> bool:
        """Whether a parameter of the student stays as it is."""
        return any(_is_within(parameter, path) for path in self.freeze)

    def lr_scale(self, parameter: str) -> float:
        """Return the factor on the learning rate of one of the student's parameters."""
        within = [path for path in self.lr_scales if _is_within(parameter, path)]
        return self.lr_scales[max(within, key=len)] if within else 1.0


class StagePlan:
    """Stages laid over a training of a given length.

    Their epochs are shares: they are scaled to the training's by largest remainder, at least one
    each. So a plan whose epochs add up to ``training_config.max_epoch`` runs as it is written,
    and a shorter or longer run (``--student_epochs``) keeps its proportions.
    """

    def __init__(self, stages: Sequence[Stage], max_epoch: int) -> None:
        """Lay ``stages`` out. Raises: ConfigError if names repeat or the epochs do not suffice."""
        self.stages = tuple(stages)
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"stages: {', '.join(names)}: expected different names")
        self.max_epoch = max_epoch
        self.epochs = share_out([stage.epochs for stage in stages], max_epoch)
        self.starts = [sum(self.epochs[:i]) for i in range(len(self.epochs))]

    @property
    def is_distilling(self) -> bool:
        """Whether any stage uses more than the labels."""
        return any(stage.is_distilling for stage in self.stages)

    def index_at(self, epoch: int) -> int:
        """Return which stage an epoch belongs to; those past the end belong to the last."""
        return sum(start <= epoch for start in self.starts) - 1

    def at(self, epoch: int) -> Stage:
        """Return the stage of an epoch."""
        return self.stages[self.index_at(epoch)]

    def require_terms(self, groups: Iterable[str]) -> None:
        """Check that every group with a weight has a term in use.

        groups: those that have one.
        Raises: ConfigError naming the stages that weigh a group without terms.
        """
        advice = {
            "distillation": "distill_conf.kd.weight or that of another term on posteriors",
            "feature": "distill_conf.hidden.weight or that of another term on features",
        }
        for group in advice.keys() - set(groups):
            names = [stage.name for stage in self.stages if getattr(stage, group) > 0.0]
            if names:
                raise ConfigError(
                    f"stages: {group} above 0 in {', '.join(names)}, and no such term in use; "
                    f"train with a teacher and set {advice[group]}"
                )

    def require_modules(self, parameters: Iterable[str], modules: Iterable[str]) -> None:
        """Check the paths to freeze and to scale against a student's names.

        Raises: ConfigError naming those without parameters, or a stage that freezes everything.
        """
        parameters = list(parameters)
        paths = {path for stage in self.stages for path in (*stage.freeze, *stage.lr_scales)}
        unknown = [p for p in sorted(paths) if not any(_is_within(n, p) for n in parameters)]
        if unknown:
            known = [name for name in modules if any(_is_within(n, name) for n in parameters)]
            raise ConfigError(
                f"stages: no module {', '.join(unknown)} with parameters in the student; expected "
                f"some of {', '.join(filter(None, known))}"
            )
        for stage in self.stages:
            if all(stage.is_frozen(name) for name in parameters):
                raise ConfigError(f"stages: {stage.name} freezes the whole student; leave some out")


def _is_within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


class StageWeighting:
    """Weights of task, distillation and features as the stages set them; see ``Weighting``."""

    def __init__(self, plan: StagePlan, temperature: Schedule) -> None:
        """Take the weights of ``plan``; ``temperature`` counts where a stage has none of its own.

        Raises: ConfigError if ``temperature`` moves and only some stages have their own.
        """
        self._weights: dict[Group, Schedule] = {
            "task": self._schedule(plan, [stage.task for stage in plan.stages]),
            "distillation": self._schedule(plan, [stage.distillation for stage in plan.stages]),
            "feature": self._schedule(plan, [stage.feature for stage in plan.stages]),
        }
        self._temperature = temperature
        own = [stage.temperature for stage in plan.stages]
        if not any(own):
            return
        if not all(own) and temperature.extremes[0] != temperature.extremes[1]:
            raise ConfigError(
                "stages: some have a temperature and distill_conf.temperature moves; give each "
                "stage one, or none"
            )
        self._temperature = self._schedule(plan, [value or temperature.at(0.0) for value in own])

    @staticmethod
    def _schedule(plan: StagePlan, values: Sequence[float]) -> Schedule:
        """Return one value per stage as a schedule that holds each until the next."""
        places = (start / plan.max_epoch for start in plan.starts)
        return Schedule(shape="constant", knots=tuple(zip(places, values, strict=True)))

    def weight(self, group: Group, progress: float) -> float:
        """Return the weight of a group at a progress from 0 to 1."""
        return self._weights[group].at(progress)

    def leaves_out(self, group: Group, progress: float) -> bool:
        """Return whether the current stage gives the group no weight."""
        return not self.weight(group, progress) > 0.0

    def temperature(self, progress: float) -> float:
        """Return the temperature at a progress from 0 to 1."""
        return self._temperature.at(progress)


class StageHook(TrainingHook):
    """Freezes modules and scales learning rates as each epoch's stage says."""

    def __init__(self, plan: StagePlan, lr: float) -> None:
        """lr: the configured learning rate, to which a stage's own is compared."""
        self._plan, self._lr = plan, lr

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Apply the stage of an epoch; log a stage that begins."""
        plan = self._plan
        if epoch == 0:
            self._log_plan()
        index = plan.index_at(epoch)
        stage = plan.stages[index]
        for name, parameter in run.model.named_parameters():
            parameter.requires_grad_(not stage.is_frozen(name))
        run.scale_learning_rate(1.0 if stage.lr is None else stage.lr / self._lr)
        for group in run.optimizer.param_groups:
            group["lr_scale"] = group["lr_scales"][index]
        if epoch == plan.starts[index]:
            temperature = run.objective.temperature(plan.starts[index] / plan.max_epoch)
            run.log("stage", {"epoch": epoch, **self._row(index, temperature)})

    def epoch_notes(self, epoch: int) -> dict[str, str | int]:
        """Return the stage of an epoch."""
        return {"stage": self._plan.at(epoch).name}

    def _log_plan(self) -> None:
        plan = self._plan
        parts = [
            f"{s.name} {n} (labels {s.task:g}, distillation {s.distillation:g}, features "
            f"{s.feature:g})"
            for s, n in zip(plan.stages, plan.epochs, strict=True)
        ]
        written = [stage.epochs for stage in plan.stages]
        scaled = "" if written == plan.epochs else f", scaled from {'+'.join(map(str, written))}"
        logger.info("stages, in epochs, and their weights: %s%s", ", ".join(parts), scaled)

    def _row(self, index: int, temperature: float) -> dict[str, Any]:
        stage = self._plan.stages[index]
        return {
            "name": stage.name,
            "num_epochs": self._plan.epochs[index],
            "task": stage.task,
            "distillation": stage.distillation,
            "feature": stage.feature,
            "temperature": temperature,
            "lr": self._lr if stage.lr is None else stage.lr,
            "lr_scales": dict(stage.lr_scales),
            "frozen": list(stage.freeze),
        }
