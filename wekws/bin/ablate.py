"""Carry out a plan: a grid of variants over several seeds, one table and one plot.

python -m wekws.bin.ablate --plan conf/ablation/starts.yaml --lists data/synth_small \
    --teacher_checkpoint exp/synth_small/teacher/avg_8.pt --out_dir exp/synth_small/ablation

Goes on where it was interrupted; a run that another plan in the same --out_dir has done is not
done again. Writes OUT_DIR/runs/ID_SEED, OUT_DIR/PLAN/{table.md,figures.json,plot.png}. The first
teacher is what students start from; conf/ablation/teachers.yaml asks for a second one.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from wekws.bin.run_variant import score
from wekws.files import atomic_path, file_sha256, write_json
from wekws.log import run
from wekws.plot.variants import VariantFigures, plot_comparison, plot_sweep
from wekws.report.comparison import (
    Group,
    GroupFigures,
    compare_groups,
    comparison_table,
    keyword_table,
)
from wekws.report.document import Block, Code, Figure, Heading, Paragraph, to_markdown
from wekws.score.det import Budget, budgets_from_text
from wekws.sweep.grid import PlannedRun, available_devices, carry_out, planned_runs
from wekws.sweep.plan import Plan, plan_variants, read_plan

TEACHER = "teacher"


def main(argv: list[str] | None = None) -> int:
    """Read the plans, do what is missing of each, write its table."""
    args = _parser().parse_args(argv)
    plans = [(path, _shortened(read_plan(path), args)) for path in args.plan]
    planned = [(path, plan, _runs(plan, args)) for path, plan in plans]
    for path, plan, runs in planned:
        waiting = sum(not item.is_done for item in runs)
        print(f"{path}: {len(runs)} runs, {waiting} to do: {plan.question}")
        for item in runs if args.list else []:
            state = "done" if item.is_done else "to do"
            print(f"  {state:<5} {item.run_dir} seed {item.job.seed}: {item.job.variant}")
    if args.list:
        return 0
    budgets = budgets_from_text(args.budgets)
    teacher_dirs = [_score_teacher(args, path) for path in args.teacher_checkpoint]
    for path, plan, runs in planned:
        waiting = [item for item in runs if not item.is_done]
        ends = carry_out(waiting, available_devices(args.num_jobs))
        bar = tqdm(ends, total=len(waiting), desc=path.stem, disable=not sys.stderr.isatty())
        for item in bar:
            print(f"{item.run_dir}: {item.job.variant}, seed {item.job.seed}", flush=True)
        name = f"{path.stem}_{args.test_lists.name}" if args.test_lists else path.stem
        write_comparison(path, plan, runs, teacher_dirs, budgets, args.out_dir / name)
    return 0


def _shortened(plan: Plan, args: argparse.Namespace) -> Plan:
    changes = {"seeds": tuple(args.seeds)} if args.seeds else {}
    if args.epochs:
        changes |= {"epochs": args.epochs, "epoch_share": 1.0}
    return dataclasses.replace(plan, **changes)


def _runs(plan: Plan, args: argparse.Namespace) -> list[PlannedRun]:
    overlays, num_teachers = tuple(map(str, args.overlay)), len(args.teacher_checkpoint)
    variants = plan_variants(plan, overlays, num_teachers)
    return planned_runs(
        variants,
        plan.seeds,
        lists=args.lists,
        teachers=args.teacher_checkpoint,
        lexicon=args.lexicon,
        test_lists=args.test_lists,
        runs_dir=args.out_dir / "runs",
    )


def _score_teacher(args: argparse.Namespace, checkpoint: Path) -> Path:
    """Score a teacher as its students are; return the folder of the test set's scores."""
    out_dir = args.out_dir / f"{TEACHER}_{file_sha256(checkpoint)[:12]}"
    test_lists = args.test_lists or args.lists
    test_dir = out_dir / (args.test_lists.name if args.test_lists else "test")
    if not (test_dir / "summary.json").exists():
        score(checkpoint, (args.lists, out_dir / "dev"), (test_lists, test_dir))
    return test_dir


def write_comparison(
    path: Path,
    plan: Plan,
    runs: Sequence[PlannedRun],
    teacher_dirs: Sequence[Path],
    budgets: Sequence[Budget],
    out_dir: Path,
) -> None:
    """Write table, figures and plot of a plan whose runs are all done.

    teacher_dirs: scores of the teachers; a line each.
    """
    dirs: dict[str, list[Path]] = {}
    for item in runs:
        dirs.setdefault(item.job.variant, []).append(item.result_dir)
    numbers = range(1, len(teacher_dirs) + 1)
    names = [TEACHER] if len(teacher_dirs) == 1 else [f"{TEACHER} {n}" for n in numbers]
    teachers = [Group(name, [path]) for name, path in zip(names, teacher_dirs, strict=True)]
    compare_to = plan.compare_to or next(iter(dirs))
    groups = [*teachers, *(Group(*pair) for pair in dirs.items())]
    figures = compare_groups(groups, budgets, compare_to)
    label = budgets[-1].label
    variants = [_variant(group, label) for group in figures]
    out_dir.mkdir(parents=True, exist_ok=True)
    plot = out_dir / "plot.png"
    axis = next(iter(plan.axes.values()))
    if len(plan.axes) == 1 and axis.is_numeric:
        points = [(float(v.name), v) for v in variants if v.name in axis.choices]
        others = [v for v in variants if v.name not in axis.choices]
        plot_sweep(points, others, plot, title=plan.question, key=axis.key, budget=label)
    else:
        plot_comparison(variants, plot, title=plan.question, budget=label, compare_to=compare_to)
    blocks: list[Block] = [
        Heading(plan.question, 1),
        comparison_table(figures, compare_to),
        *(keyword_table(figures, budget.label) for budget in budgets),
        Paragraph(_EXPLANATION),
        Figure(plot, plan.question),
        Code(f"python -m wekws.bin.ablate --plan {path}"),
    ]
    with atomic_path(out_dir / "table.md") as temporary:
        temporary.write_text(to_markdown(blocks, out_dir), encoding="utf-8")
    record = {
        "plan": str(path),
        "compare_to": compare_to,
        "groups": [dataclasses.asdict(group) for group in figures],
        "runs": {name: [str(path.parent) for path in found] for name, found in dirs.items()},
    }
    write_json(out_dir / "figures.json", record)
    print(to_markdown(blocks[:2], out_dir))


def _variant(figures: GroupFigures, label: str) -> VariantFigures:
    return VariantFigures(
        name=figures.name,
        frr=figures.frr[label],
        frr_of_runs=figures.frr_of_runs[label],
        losses=figures.losses_end,
    )


_EXPLANATION = (
    "Mean ± standard deviation over the runs (one a seed), with the 95 % interval of a bootstrap "
    "over the test utterances and the runs, never narrower than Wilson's. FRR is the mean over "
    "the keywords, each at the threshold that leaves the stated false alarms an hour on the test "
    "set itself. Differences are paired: the same utterances in every resample."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--plan", type=Path, nargs="+", required=True, help="conf/ablation/NAME.yaml")
    add("--lists", type=Path, required=True, help="data/NAME, as run_distill.sh leaves it")
    add("--teacher_checkpoint", type=Path, action="append", required=True, help="repeatable")
    add("--out_dir", type=Path, required=True, help="exp/NAME/ablation")
    add("--test_lists", type=Path, help="data/NAME whose test set to score on instead")
    add("--lexicon", type=Path, help="word to units, where letters will not do")
    add("--overlay", type=Path, action="append", default=[], help="the corpus's YAML; repeatable")
    add("--seeds", type=int, nargs="+", help="instead of the plan's")
    add("--epochs", type=int, default=0, help="instead of the plan's")
    add("--budgets", default="0.5,1", help="false alarms per hour [%(default)s]")
    add("--num_jobs", type=int, default=0, help="runs at a time on the CPU [one a core]")
    add("--list", action="store_true", help="say what is done and what is not, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
