"""Comparison of groups of runs; the runs of a group differ in the seed alone."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wekws.errors import ConfigError
from wekws.report.document import Table
from wekws.runlog.fields import METRICS_NAME
from wekws.runlog.metrics_reader import read_cv_rows
from wekws.score.det import Budget
from wekws.score.intervals import wilson
from wekws.score.paired import Bootstrap, Estimate, RunTrials, estimate, read_trials
from wekws.score.pinyin import with_pinyin
from wekws.score.results import Result, read_result
from wekws.score.summary import is_unsupported


@dataclass(frozen=True)
class Group:
    """Runs of one kind."""

    name: str
    """Name of the group in tables."""
    result_dirs: Sequence[Path]
    """The scored test set of each run; the run is the folder above it."""


@dataclass(frozen=True, kw_only=True)
class GroupFigures:
    """Figures of a group of runs; FRR is a mean over keywords where nothing else is said."""

    name: str
    """Name of the group."""
    num_runs: int
    """Number of runs."""
    params: int | None
    """Trainable parameters of its first run."""
    losses_start: Sequence[float] = ()
    """Cv loss of each run before the first step; runs without a log are left out."""
    losses_end: Sequence[float] = ()
    """Cv loss of each run after the last epoch; runs without a log are left out."""
    frr: Mapping[str, Estimate]
    """FRR by budget label, mean over the runs."""
    difference: Mapping[str, Estimate | None]
    """FRR minus that of the reference group, by budget label; None for that group itself."""
    frr_by_keyword: Mapping[str, Mapping[str, Estimate]]
    """FRR by budget label and keyword."""
    frr_of_runs: Mapping[str, Sequence[float]]
    """FRR by budget label, one value per run."""
    dev_frr: Mapping[str, float] = field(default_factory=dict)
    """FRR by budget label at the thresholds that were chosen on dev."""
    dev_alarms: Mapping[str, float] = field(default_factory=dict)
    """False alarms per hour by budget label at the thresholds that were chosen on dev."""
    strictest: Sequence[str] = ()
    """Budget labels for which dev is too small: thresholds are the strictest instead."""


def compare_groups(
    groups: Sequence[Group], budgets: Sequence[Budget], compare_to: str
) -> list[GroupFigures]:
    """Return the figures of each group, in order.

    budgets: false alarms per hour on the test set itself, each model at its own threshold.
    compare_to: name of the reference group.
    Raises: ConfigError if two groups have the same name or none is called ``compare_to``;
    DataError if a result is missing or was scored on another test set.
    """
    if not budgets:
        raise ConfigError("budgets: found none; expected one or more, such as 0.5,1")
    names = [group.name for group in groups]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{twice[0]}: two groups have this name; give each its own")
    if compare_to not in names:
        raise ConfigError(f"{compare_to}: no such group; expected one of {', '.join(names)}")
    trials = {g.name: [read_trials(path) for path in g.result_dirs] for g in groups}
    bootstrap = Bootstrap(trials[compare_to][0].keys)
    return [_figures(group, trials, bootstrap, budgets, compare_to) for group in groups]


def _figures(
    group: Group,
    trials: Mapping[str, Sequence[RunTrials]],
    bootstrap: Bootstrap,
    budgets: Sequence[Budget],
    compare_to: str,
) -> GroupFigures:
    runs, reference = trials[group.name], trials[compare_to]
    results = [read_result(group.name, path) for path in group.result_dirs]
    logs = [log for path in group.result_dirs if (log := _losses(path.parent))]
    sizes = {k: len(trials.positives) for k, trials in runs[0].by_keyword.items()}
    overall = {b.label: bootstrap.frr(runs, None, b) for b in budgets}
    reference_frr = {b.label: bootstrap.frr(reference, None, b) for b in budgets}
    is_reference = group.name == compare_to
    return GroupFigures(
        name=group.name,
        num_runs=len(runs),
        params=results[0].summary.get("params"),
        losses_start=[log[0] for log in logs],
        losses_end=[log[-1] for log in logs],
        frr={label: _frr(values, sum(sizes.values())) for label, values in overall.items()},
        difference={
            label: None if is_reference else estimate(values - reference_frr[label])
            for label, values in overall.items()
        },
        frr_by_keyword={
            b.label: {k: _frr(bootstrap.frr(runs, k, b), size) for k, size in sizes.items()}
            for b in budgets
        },
        frr_of_runs={
            b.label: [float(bootstrap.frr([run], None, b)[0]) for run in runs] for b in budgets
        },
        dev_frr=_at_dev(results, budgets, "misses", "rate"),
        dev_alarms=_at_dev(results, budgets, "false_alarms", "per_hour"),
        strictest=[b.label for b in budgets if _has_strictest(results, b)],
    )


def _frr(values: np.ndarray, num_positives: int) -> Estimate:
    """Return FRR with an interval that is never narrower than Wilson's for as many positives.

    Where no positive is missed, none is missed in any resample either, and the bootstrap's
    interval would be 0 wide.
    """
    found = estimate(values)
    low, high = wilson(round(found.value * num_positives), num_positives)
    return Estimate(found.value, min(found.low, float(low)), max(found.high, float(high)))


def _losses(run_dir: Path) -> list[float]:
    if not (run_dir / METRICS_NAME).exists():
        return []
    return [row["cv_loss"] for row in read_cv_rows(run_dir)]


def _at_dev(
    results: Sequence[Result], budgets: Sequence[Budget], kind: str, name: str
) -> dict[str, float]:
    means = {}
    for budget in budgets:
        points = _points(results, budget)
        if points and all(point.get("chosen_on") == "dev" for point in points):
            means[budget.label] = statistics.fmean(point[kind][name] for point in points)
    return means


def _has_strictest(results: Sequence[Result], budget: Budget) -> bool:
    return any(is_unsupported(point) for point in _points(results, budget))


def _points(results: Sequence[Result], budget: Budget) -> list[dict[str, Any]]:
    """Return the operating points of all keywords; an empty one where a result has none."""
    return [r.operating_point(k, budget.label) or {} for r in results for k in r.keywords]


def comparison_table(figures: Sequence[GroupFigures], compare_to: str) -> Table:
    """Return one row per group: mean ± standard deviation over its runs (95 % interval)."""
    budgets = list(figures[0].frr)
    header = ["variant", "n", "parameters", "cv loss before step 1", "cv loss at the end"]
    for label in budgets:
        header += [f"FRR % at {label}", f"minus that of {compare_to}"]
    with_dev = budgets[-1] if all(budgets[-1] in f.dev_frr for f in figures) else ""
    if with_dev:
        header.append(f"FRR % (false alarms/h) at the dev threshold for {with_dev}")
        if any(with_dev in f.strictest for f in figures):
            header[-1] += f"; strictest: dev is too small for {with_dev}"
    return Table(header, [_row(group, budgets, with_dev) for group in figures])


def _row(group: GroupFigures, budgets: Sequence[str], with_dev: str) -> list[str]:
    params = "-" if group.params is None else f"{group.params:,}"
    losses = [spread(group.losses_start), spread(group.losses_end)]
    row = [group.name, str(group.num_runs), params, *losses]
    for label in budgets:
        rates = [100 * rate for rate in group.frr_of_runs[label]]
        row += [with_interval(rates, group.frr[label]), signed(group.difference[label])]
    if with_dev:
        strictest = ", strictest" if with_dev in group.strictest else ""
        rate, alarms = 100 * group.dev_frr[with_dev], group.dev_alarms[with_dev]
        row.append(f"{rate:.2f} ({alarms:.2f}){strictest}")
    return row


def keyword_table(figures: Sequence[GroupFigures], label: str) -> Table:
    """Return FRR at a budget, keyword by keyword."""
    keywords = list(figures[0].frr_by_keyword[label])
    rows = [
        [
            group.name,
            *(
                f"{100 * found.value:.2f} {_interval(found)}"
                for found in (group.frr_by_keyword[label][keyword] for keyword in keywords)
            ),
        ]
        for group in figures
    ]
    return Table(["variant", *(f"{with_pinyin(k)}: FRR % at {label}" for k in keywords)], rows)


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation; of one value the mean alone, of none ``-``."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def with_interval(values: Sequence[float], found: Estimate) -> str:
    """Return mean ± standard deviation of percentages, and the interval of their estimate."""
    return f"{spread(values)} {_interval(found)}"


def _interval(found: Estimate) -> str:
    return f"({100 * found.low:.2f} to {100 * found.high:.2f})"


def signed(found: Estimate | None) -> str:
    """Return a difference in points with its interval, ``-`` for none."""
    if found is None:
        return "-"
    return f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
