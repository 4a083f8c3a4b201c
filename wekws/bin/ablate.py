"""Run a plan: a grid of variants over several seeds, one table and one plot.

python -m wekws.bin.ablate --plan conf/ablation/starts.yaml --lists data/synth_small \
    --teacher_checkpoint exp/synth_small/teacher/avg_8.pt --out_dir exp/synth_small/ablation

It continues where it was interrupted; a run that another plan in the same --out_dir has done is
not done again. Writes OUT_DIR/runs/ID_SEED, OUT_DIR/PLAN/{table.md,figures.json,plot.png}. Students
start from the first teacher; conf/ablation/teachers.yaml asks for a second one.
"""

import argparse
import functools
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from wekws.config import parse_section
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.errors import ConfigError, raise_all
from wekws.log import run
from wekws.score.det import budgets_from_text
from wekws.shell import UserPaths
from wekws.sweep.grid import PlannedRun, available_devices, planned_runs, run_all
from wekws.sweep.plan import Plan, plan_variants, read_plan
from wekws.sweep.plan_table import score_teacher, write_plan_table


def main(argv: list[str] | None = None) -> int:
    """Read the plans, do the missing runs of each, write its table."""
    words = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(words)
    if args.num_jobs < 0:
        raise ConfigError(f"--num_jobs {args.num_jobs}: expected >= 0")
    given = [("--plan", path) for path in args.plan]
    given += [("--overlay", path) for path in args.overlay]
    given += [("--lexicon", args.lexicon)] if args.lexicon else []
    paths = UserPaths(Path())
    raise_all([functools.partial(paths.find, str(path), flag) for flag, path in given])
    plans = [(path, read_plan(path).shortened(args.seeds, args.epochs)) for path in args.plan]
    planned = [(path, plan, _runs(plan, args)) for path, plan in plans]
    for path, plan, runs in planned:
        num_missing = sum(not item.is_done for item in runs)
        print(f"{path}: {len(runs)} runs, {num_missing} to do: {plan.question}")
        for item in runs if args.list else []:
            state = "done" if item.is_done else "to do"
            print(f"  {state:<5} {item.run_dir} seed {item.job.seed}: {item.job.variant}")
    if args.list:
        return 0
    for _, _, runs in planned:
        for item in runs:
            section = item.variant.content.get("dataset_conf")
            parse_section(DatasetConfig, section, item.job.variant).check_folders()
    budgets = budgets_from_text(args.budgets)
    teacher_dirs = [
        score_teacher(path, lists=args.lists, test_lists=args.test_lists, out_dir=args.out_dir)
        for path in args.teacher_checkpoint
    ]
    for path, plan, runs in planned:
        missing = [item for item in runs if not item.is_done]
        ends = run_all(missing, available_devices(args.num_jobs))
        bar = tqdm(ends, total=len(missing), desc=path.stem, disable=not sys.stderr.isatty())
        for item in bar:
            print(f"{item.run_dir}: {item.job.variant}, seed {item.job.seed}", flush=True)
        name = f"{path.stem}_{args.test_lists.name}" if args.test_lists else path.stem
        table = write_plan_table(
            plan,
            runs,
            plan_path=path,
            command=shlex.join(["python", "-m", "wekws.bin.ablate", *words]),
            teacher_dirs=teacher_dirs,
            budgets=budgets,
            out_dir=args.out_dir / name,
        )
        print(table)
    return 0


def _runs(plan: Plan, args: argparse.Namespace) -> list[PlannedRun]:
    overlays, num_teachers = tuple(map(str, args.overlay)), len(args.teacher_checkpoint)
    return planned_runs(
        plan_variants(plan, overlays, num_teachers),
        plan.seeds,
        lists=args.lists,
        teachers=args.teacher_checkpoint,
        lexicon=args.lexicon,
        test_lists=args.test_lists,
        feature_teacher=args.feature_teacher,
        use_bf16=args.bf16,
        runs_dir=args.out_dir / "runs",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--plan", type=Path, nargs="+", required=True,
        help="one or several plans, conf/ablation/NAME.yaml",
    )  # fmt: skip
    add("--lists", type=Path, required=True, help="data/NAME, as run_distill.sh leaves it")
    add(
        "--teacher_checkpoint", type=Path, action="append", required=True,
        help="checkpoint of the teacher; may be given several times",
    )  # fmt: skip
    add("--out_dir", type=Path, required=True, help="folder for runs and tables")
    add("--test_lists", type=Path, help="data/NAME whose test set is scored instead")
    add(
        "--feature_teacher", default="", metavar="YAML|BUNDLE",
        help="feature teacher of the variants that give distill_conf.embedding a weight",
    )  # fmt: skip
    add("--lexicon", type=Path, help="pronunciation lexicon (WORD unit unit ...)")
    add(
        "--overlay", type=Path, action="append", default=[],
        help="YAML laid over every variant's configuration; may be given several times",
    )  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[], help="seeds [those of the plan]")
    add("--epochs", type=int, default=0, help="epochs of every run [those of the plan]")
    add("--budgets", default="0.5,1", help="false alarms per hour [%(default)s]")
    add(
        "--num_jobs", type=int, default=0,
        help="runs at the same time, on each GPU or on the CPU; 0 = one per GPU, or per core",
    )  # fmt: skip
    add("--bf16", action="store_true", help="train with matrix products in bfloat16")
    add("--list", action="store_true", help="show which runs are done, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
