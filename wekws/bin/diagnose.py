"""Diagnose runs from their own files: diagnosis.md and diagnosis.html."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.bin.named_dirs import parse_named_dirs
from wekws.log import run
from wekws.plot.confidence import plot_confidence
from wekws.plot.curves import plot_curves
from wekws.report.diagnosis import find_teacher, read_run, scored_models, write_diagnosis
from wekws.report.diagnosis_run import DiagnosedRun


def main(argv: Sequence[str] | None = None) -> int:
    """Read the folders, draw the plots, write the diagnosis."""
    args = _parser().parse_args(argv)
    given = [*([args.teacher_dir] if args.teacher_dir else []), *args.exp_dirs]
    given += [args.baseline] if args.baseline else []
    runs = [read_run(name, path, args.dataset) for name, path in parse_named_dirs(given).items()]
    teacher = runs[0] if args.teacher_dir else find_teacher(runs)
    baseline = runs[-1] if args.baseline else None
    if teacher is not None:
        runs = [teacher, *(other for other in runs if other is not teacher)]
    out_dir = Path(args.out_dir)
    figures = _draw(runs, out_dir)
    for path in write_diagnosis(runs, teacher, figures, out_dir, baseline=baseline):
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("exp_dirs", nargs="+", metavar="[NAME=]DIR", help="folders of runs, finished or not")
    add(
        "--teacher_dir", metavar="[NAME=]DIR",
        help="folder of the teacher [the DIR that another run names as its teacher]",
    )  # fmt: skip
    add("--baseline", metavar="[NAME=]DIR", help="folder of a run that all others are judged by")
    add("--dataset", default="test", help="read results from DIR/DATASET_* [%(default)s]")
    add("--out_dir", default="exp/diagnosis", help="folder to write to [%(default)s]")
    return parser


def _draw(runs: Sequence[DiagnosedRun], out_dir: Path) -> dict[str, Path]:
    """Draw the plots for which there is data; return their paths by name."""
    paths = {}
    trained = {run.name: run.model.exp_dir for run in runs if run.trained_losses}
    if trained:
        paths["curves"] = out_dir / "curves.png"
        plot_curves(trained, paths["curves"], mark_ends=len(trained) > 1)
    if models := scored_models(runs):
        paths["confidence"] = out_dir / "confidence.png"
        plot_confidence([model.headline for model in models], paths["confidence"])
    return paths


if __name__ == "__main__":
    sys.exit(run(main))
