"""Table, figures and plot of a plan whose runs are done."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from wekws.files import atomic_path, file_sha256, write_json
from wekws.plot.variants import VariantFigures, plot_comparison, plot_sizes, plot_sweep
from wekws.report.comparison import (
    Group,
    GroupFigures,
    compare_groups,
    comparison_table,
    keyword_table,
)
from wekws.report.document import Block, Code, Figure, Heading, Paragraph, to_markdown
from wekws.score.det import Budget
from wekws.sweep.grid import PlannedRun
from wekws.sweep.plan import Plan
from wekws.sweep.run_job import score_on_dev_and_test

FIGURES_NAME = "figures.json"
"""Name of the file with all figures of a plan, and the folders that they are of."""

_EXPLANATION = (
    "Mean ± standard deviation over the runs (one per seed), with the 95 % interval of a bootstrap "
    "over the test utterances and the runs, never narrower than Wilson's. FRR is the mean over "
    "the keywords, each at the threshold that leaves the stated false alarms per hour on the test "
    "set itself. Differences are paired: the same utterances in every resample."
)


def score_teacher(checkpoint: Path, *, lists: Path, test_lists: Path | None, out_dir: Path) -> Path:
    """Score a teacher as its students are scored; return the folder of the test set's scores."""
    folder = out_dir / f"teacher_{file_sha256(checkpoint)[:12]}"
    test_dir = folder / (test_lists.name if test_lists else "test")
    if not (test_dir / "summary.json").exists():
        score_on_dev_and_test(
            checkpoint,
            lists=lists,
            dev_dir=folder / "dev",
            test_lists=test_lists or lists,
            test_dir=test_dir,
        )
    return test_dir


def write_plan_table(
    plan: Plan,
    runs: Sequence[PlannedRun],
    *,
    plan_path: Path,
    command: str,
    teacher_dirs: Sequence[Path],
    budgets: Sequence[Budget],
    out_dir: Path,
) -> str:
    """Write table.md, figures.json and plot.png of a plan whose runs are all done.

    command: what makes the table anew; it stands below it.
    teacher_dirs: scores of the teachers, one row each.
    Returns: the title and the first table, in Markdown.
    """
    dirs: dict[str, list[Path]] = {}
    for item in runs:
        dirs.setdefault(item.job.variant, []).append(item.result_dir)
    numbers = range(1, len(teacher_dirs) + 1)
    names = ["teacher"] if len(teacher_dirs) == 1 else [f"teacher {n}" for n in numbers]
    teachers = [Group(name, [path]) for name, path in zip(names, teacher_dirs, strict=True)]
    compare_to = plan.compare_to or next(iter(dirs))
    groups = [*teachers, *(Group(name, paths) for name, paths in dirs.items())]
    figures = compare_groups(groups, budgets, compare_to)
    out_dir.mkdir(parents=True, exist_ok=True)
    plot_path = out_dir / "plot.png"
    _plot(plan, figures, plot_path, budgets[-1].label, compare_to)
    blocks: list[Block] = [
        Heading(plan.question, 1),
        comparison_table(figures, compare_to),
        *(keyword_table(figures, budget.label) for budget in budgets),
        Paragraph(_EXPLANATION),
        Figure(plot_path, plan.question),
        Code(command),
    ]
    with atomic_path(out_dir / "table.md") as temporary:
        temporary.write_text(to_markdown(blocks, out_dir), encoding="utf-8")
    record = {
        "plan": str(plan_path),
        "compare_to": compare_to,
        "groups": [dataclasses.asdict(group) for group in figures],
        "runs": {name: [str(path.parent) for path in found] for name, found in dirs.items()},
        "results": {name: [str(path) for path in found] for name, found in dirs.items()},
        "teachers": [str(path) for path in teacher_dirs],
    }
    write_json(out_dir / FIGURES_NAME, record)
    return to_markdown(blocks[:2], out_dir)


def _plot(
    plan: Plan, figures: Sequence[GroupFigures], path: Path, budget: str, compare_to: str
) -> None:
    """Plot FRR over a single numeric axis as a curve, over other axes as rows."""
    variants = [_variant(group, budget) for group in figures]
    axis = next(iter(plan.axes.values()))
    if plan.plot_by_size:
        plot_sizes(variants, path, title=plan.question, budget=budget)
    elif len(plan.axes) == 1 and axis.is_numeric:
        points = [(float(v.name), v) for v in variants if v.name in axis.choices]
        others = [v for v in variants if v.name not in axis.choices]
        plot_sweep(points, others, path, title=plan.question, key=axis.key, budget=budget)
    else:
        plot_comparison(variants, path, title=plan.question, budget=budget, compare_to=compare_to)


def _variant(figures: GroupFigures, budget: str) -> VariantFigures:
    return VariantFigures(
        name=figures.name,
        params=figures.params,
        frr=figures.frr[budget],
        frr_of_runs=figures.frr_of_runs[budget],
        losses=figures.losses_end,
    )
