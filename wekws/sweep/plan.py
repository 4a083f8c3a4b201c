"""A plan of runs: variants of one configuration, each over the same seeds."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import wekws
from wekws.config import load_yaml_with_base, merge, non_defaults, parse_section
from wekws.errors import ConfigError
from wekws.train.train_config import TrainConfig

# What makes a run more than CTC on its start.
_DISTILLATION = ("distill_conf", "stages", "progressive")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One value of an axis: its changes to the configuration."""

    overlays: tuple[str, ...] = ()
    """YAML files, relative to the working directory."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Changes written out here, after the overlays."""
    student_config: str = ""
    """Configuration of the student; empty: that of the plan."""
    init_from_teacher: bool | None = None
    """Whether the student starts from the teacher; empty: as in the plan."""
    num_teachers: int = 0
    """Distil from this many of the given teachers, the first ones; 0: from all."""
    teacher: int = 0
    """Distil from this one of the given teachers alone, counted from 1; 0: see num_teachers."""

    start: int = 0
    """Start from this one of the given teachers, counted from 1; 0: from the first that teaches."""

    def __post_init__(self) -> None:
        """Refuse a negative number, and two ways of naming the teachers."""
        for name in ("num_teachers", "teacher", "start"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected 0 or more")
        if self.num_teachers and self.teacher:
            raise ConfigError("teacher: given beside num_teachers; expected one of them")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that varies: named options, or a key of the configuration and its values."""

    options: dict[str, Option] = field(default_factory=dict)
    """Options by name; or:"""
    key: str = ""
    """Dotted key of the configuration."""
    values: tuple[Any, ...] = ()
    """Its values."""

    def __post_init__(self) -> None:
        """Refuse an axis without a value, and options beside a key."""
        if bool(self.options) == bool(self.key) or bool(self.key) != bool(self.values):
            raise ConfigError("expected either options, or a key with values")

    @property
    def choices(self) -> dict[str, Option]:
        """The options by name; the name of a value is the value."""
        return self.options or {
            str(value): Option(settings=_nested(self.key, value)) for value in self.values
        }

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers, which have an order and an optimum between them."""
        return bool(self.values) and all(type(value) in (int, float) for value in self.values)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A file of ``conf/ablation``: the grid of its axes, over the seeds."""

    question: str
    """The question that the comparison answers; the title of table and plot."""
    axes: dict[str, Axis]
    """The things that vary, by name."""
    student_config: str = "conf/fsmn_ctc_student_mini.yaml"
    """Configuration that all variants share."""
    overlays: tuple[str, ...] = ()
    """YAML files laid over it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Changes after these, written out."""
    init_from_teacher: bool = True
    """Whether students start from the teacher."""
    epochs: int = 0
    """Epochs of every run; 0: each configuration's own."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of every variant."""
    num_average: int = 3
    """Best epochs by cv loss that make the scored checkpoint."""
    compare_to: str = ""
    """Name of the variant that the others are compared with; empty: the first."""
    plot_by_size: bool = False
    """Whether the plot has FRR over the number of parameters, not one line per variant."""
    add_undistilled: bool = True
    """Whether to add a run with CTC alone for every start and length in the grid."""

    def __post_init__(self) -> None:
        """Refuse a plan without runs."""
        if not self.axes or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("expected at least one axis and distinct seeds, at least one")
        if self.epochs < 0 or self.num_average < 1:
            raise ConfigError("expected epochs >= 0, num_average >= 1")

    def shortened(self, seeds: Sequence[int] = (), epochs: int = 0) -> "Plan":
        """Return the plan with other seeds and another length, where these are given."""
        plan = self
        if seeds:
            plan = dataclasses.replace(plan, seeds=tuple(seeds))
        if epochs:
            plan = dataclasses.replace(plan, epochs=epochs)
        return plan


@dataclass(frozen=True)
class Variant:
    """One cell of the grid."""

    name: str
    """Names of its options."""
    content: Mapping[str, Any]
    """Its whole configuration, as YAML would have it."""
    init_from_teacher: bool
    """Whether the student starts from the teacher."""
    num_average: int
    """Epochs in the average."""
    teachers: tuple[int, ...]
    """Indices of the given teachers that it is distilled from."""
    start: int
    """Index of the given teacher that it starts from, if it starts from one."""

    @property
    def has_own_start(self) -> bool:
        """Whether it starts from another model than the first teacher that it is distilled from."""
        return self.init_from_teacher and self.start != self.teachers[0]

    @property
    def needs_feature_teacher(self) -> bool:
        """Whether it is trained towards the outputs of a feature teacher."""
        config = parse_section(TrainConfig, self.content, self.name)
        return config.distill_conf.needs_feature_teacher

    def identity(self, *others: Any) -> str:
        """Return a hash of everything that the outcome depends on: 12 hexadecimal digits.

        others: what it depends on beside the configuration, such as teachers. Settings at their
        defaults do not count, so that writing one out makes no other run.
        """
        experiment = parse_section(TrainConfig, self.content, self.name)
        whole = [non_defaults(experiment), self.init_from_teacher, self.num_average, *others]
        text = json.dumps([wekws.__version__, *whole], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan. Raises: ConfigError that names every problem with its dotted path."""
    return parse_section(Plan, load_yaml_with_base(path), str(path))


def plan_variants(
    plan: Plan, overlays: tuple[str, ...] = (), num_teachers: int = 1
) -> list[Variant]:
    """Return the plan's variants, the undistilled ones that it adds last.

    overlays: the corpus's, under those of the plan. num_teachers: how many there are.
    Raises: ConfigError if a variant's configuration is wrong, it asks for more teachers than there
    are, two are the same run, or ``compare_to`` is none of them.
    """
    variants = [_variant(plan, overlays, cell, num_teachers) for cell in _cells(plan)]
    by_identity: dict[tuple[str, tuple[int, ...], int], Variant] = {}
    for variant in variants:
        key = (variant.identity(), variant.teachers, variant.start)
        other = by_identity.setdefault(key, variant)
        if other is not variant:
            raise ConfigError(f"{variant.name}: the same run as {other.name}; leave one out")
    if plan.add_undistilled:
        known = {(variant.identity(), variant.start) for variant in variants}
        plain = _undistilled(variants, [tuple(cell) for cell in _cells(plan)])
        variants += [v for v in plain if (v.identity(), v.start) not in known]
    names = [variant.name for variant in variants]
    if plan.compare_to and plan.compare_to not in names:
        raise ConfigError(f"compare_to: {plan.compare_to}: no variant; has {'; '.join(names)}")
    return variants


def _cells(plan: Plan) -> Iterator[dict[str, Option]]:
    """Yield each cell of the grid: the names of its options and what they change."""
    for cell in itertools.product(*(axis.choices.items() for axis in plan.axes.values())):
        names = [name for name, _ in cell]
        yield dict(zip(names, (option for _, option in cell), strict=True))


def _variant(
    plan: Plan, overlays: tuple[str, ...], cell: Mapping[str, Option], num_given: int
) -> Variant:
    options = list(cell.values())
    configs = [option.student_config for option in options if option.student_config]
    starts = [o.init_from_teacher for o in options if o.init_from_teacher is not None]
    content = load_yaml_with_base((configs or [plan.student_config])[-1])
    paths = [*overlays, *plan.overlays, *(path for option in options for path in option.overlays)]
    for path in paths:
        content = merge(content, load_yaml_with_base(path))
    for settings in (plan.settings, *(option.settings for option in options)):
        content = merge(content, settings)
    init_from_teacher = (starts or [plan.init_from_teacher])[-1]
    if not init_from_teacher:
        content.pop("transplant", None)
    name = ", ".join(cell)
    experiment = parse_section(TrainConfig, content, name)
    epochs = plan.epochs or experiment.training_config.max_epoch
    content = merge(content, _nested("training_config.max_epoch", epochs))
    teachers, start = _teachers(name, options, num_given)
    return Variant(name, content, init_from_teacher, plan.num_average, teachers, start)


def _teachers(name: str, options: Sequence[Option], num_given: int) -> tuple[tuple[int, ...], int]:
    """Return the indices of the teachers that the last option with a choice asks for.

    Returns: those to distil from, and the one to start from.
    """
    numbers, start = tuple(range(1, num_given + 1)), 0
    for option in options:
        start = option.start or start
        if option.num_teachers:
            numbers = tuple(range(1, option.num_teachers + 1))
        elif option.teacher:
            numbers = (option.teacher,)
    if max(*numbers, start) > num_given:
        what = f"{len(numbers)} teachers" if len(numbers) > 1 else f"teacher {numbers[0]}"
        what = f"start {start}" if start > num_given else what
        raise ConfigError(
            f"{name}: {what}; --teacher_checkpoint gives {num_given}, and may be repeated"
        )
    return tuple(number - 1 for number in numbers), (start or numbers[0]) - 1


def _undistilled(variants: Sequence[Variant], cells: Sequence[tuple[str, ...]]) -> list[Variant]:
    """Return each start and length among the variants with CTC alone, each once.

    cells: the names of each variant's options; those that all variants of a start share name it.
    """
    plain: dict[tuple[str, int], Variant] = {}
    shared: dict[tuple[str, int], list[str]] = {}
    for variant, cell in zip(variants, cells, strict=True):
        content = {k: v for k, v in variant.content.items() if k not in _DISTILLATION}
        content = merge(content, _nested("distill_conf.alpha", 1.0))
        # Only the first teacher has a part in it: as the start.
        bare = dataclasses.replace(variant, content=content, teachers=variant.teachers[:1])
        identity = (bare.identity(), bare.start)
        plain.setdefault(identity, bare)
        shared[identity] = [name for name in shared.get(identity, cell) if name in cell]
    return [
        dataclasses.replace(variant, name=", ".join([*shared[identity], "CTC alone"]))
        for identity, variant in plain.items()
    ]


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
