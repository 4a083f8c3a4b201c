"""A training in named stages: what each of them weighs, freezes and learns at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wekws.distill.schedule import Schedule
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One item of the list ``stages``, which stands in place of alpha.

    name: for the log, its own. epochs: its share of the training (see ``StagePlan``), at least 1.
    task: weight of the terms that know the labels (ctc, its smoothing, the inner head's ctc).
    distillation: of those on posteriors (kd, guide, inner_kd, consistency). feature: of those on
    inner features (hidden and the like). Each multiplies the terms' own weights in
    ``distill_conf``; what weighs 0 is not computed in training, nor then the teacher. At least 0,
    and not all of them 0. Cv passes compute every term of the run in every stage, so that epochs
    compare.
    temperature: above 0; empty: that of distill_conf.
    lr: learning rate in place of ``optim_conf.lr``: what the scheduler makes of that one, in
    proportion; empty: ``optim_conf.lr``.
    lr_scales: module path of the student -> factor on its learning rate, above 0; of several
    that apply the longest path counts.
    freeze: module paths of the student that stay as they are: no gradient, no weight decay.
    """

    name: str
    epochs: int
    task: float = 1.0
    distillation: float = 0.0
    feature: float = 0.0
    temperature: float | None = None
    lr: float | None = None
    lr_scales: dict[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a stage that lasts or trains nothing."""
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
        """Whether it listens to more than labels."""
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
        """Whether any stage listens to more than labels."""
        return any(stage.is_distilling for stage in self.stages)

    def index_at(self, epoch: int) -> int:
        """Return which stage an epoch belongs to; those past the end belong to the last."""
        return sum(start <= epoch for start in self.starts) - 1

    def at(self, epoch: int) -> Stage:
        """Return the stage of an epoch."""
        return self.stages[self.index_at(epoch)]

    def schedule(self, values: Iterable[float]) -> Schedule:
        """Return one value a stage as a schedule that holds each until the next."""
        places = (start / self.max_epoch for start in self.starts)
        return Schedule(shape="constant", knots=tuple(zip(places, values, strict=True)))

    def weights(self) -> dict[str, Schedule]:
        """Return what the groups of terms weigh over training, by their names in ``Stage``."""
        groups = ("task", "distillation", "feature")
        return {g: self.schedule(getattr(stage, g) for stage in self.stages) for g in groups}

    def temperature(self, usual: Schedule) -> Schedule:
        """Return the temperature over training; ``usual`` where a stage has none of its own.

        Raises: ConfigError if that one moves and only some stages have their own.
        """
        own = [stage.temperature for stage in self.stages]
        if not any(own):
            return usual
        if not all(own) and usual.extremes[0] != usual.extremes[1]:
            raise ConfigError(
                "stages: some have a temperature and distill_conf.temperature moves; give each "
                "stage one, or none"
            )
        return self.schedule(value or usual.at(0.0) for value in own)

    def require_terms(self, groups: Iterable[str]) -> None:
        """Check that what the stages weigh is there.

        groups: those that have a term in use, ``distillation`` or ``feature``.
        Raises: ConfigError naming the stages that weigh another.
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


def share_out(shares: Sequence[int], total: int) -> list[int]:
    """Return whole numbers in proportion to ``shares`` that add up to ``total``, none below 1.

    By largest remainder; of equal ones the earlier wins.
    Raises: ConfigError if there are more shares than there is to give.
    """
    if total < len(shares):
        raise ConfigError(
            f"{len(shares)} stages (or depths of a student that grows) in {total} epochs; expected "
            "at least one epoch each: raise training_config.max_epoch"
        )
    exact = [share * total / sum(shares) for share in shares]
    given = [max(1, int(value)) for value in exact]
    while sum(given) != total:
        step = 1 if sum(given) < total else -1
        open_ = [i for i in range(len(given)) if given[i] + step >= 1]
        place = max(open_, key=lambda i: step * (exact[i] - given[i]))
        given[place] += step
    return given


def _is_within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")
