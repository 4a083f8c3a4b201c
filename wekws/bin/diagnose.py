"""Say why runs ended where they did: diagnosis.md and diagnosis.html, from their own files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.log import run
from wekws.plot.confidence import plot_confidence
from wekws.plot.curves import plot_curves
from wekws.report.diagnosis import find_teacher, read_subject, scored, write_diagnosis
from wekws.report.diagnosis_subject import Subject
from wekws.score.results import parse_named_dirs


def main(argv: Sequence[str] | None = None) -> int:
    """Read the folders, draw the plots, write the diagnosis."""
    args = _parser().parse_args(argv)
    given = [*([args.teacher_dir] if args.teacher_dir else []), *args.exp_dirs]
    subjects = [
        read_subject(name, folder, args.dataset) for name, folder in parse_named_dirs(given).items()
    ]
    teacher = subjects[0] if args.teacher_dir else find_teacher(subjects)
    if teacher is not None:
        subjects = [teacher, *(subject for subject in subjects if subject is not teacher)]
    out_dir = Path(args.out_dir)
    for path in write_diagnosis(subjects, teacher, _draw(subjects, out_dir), out_dir):
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("exp_dirs", nargs="+", metavar="[NAME=]DIR", help="folders of runs, finished or not")
    add("--teacher_dir", metavar="[NAME=]DIR", help="teacher [the DIR that others name as theirs]")
    add("--dataset", default="test", help="results are found in DIR/DATASET_* [%(default)s]")
    add("--out_dir", default="exp/diagnosis", help="[%(default)s]")
    return parser


def _draw(subjects: Sequence[Subject], out_dir: Path) -> dict[str, Path]:
    """Draw what there are data for; return the paths by name."""
    paths = {}
    trained = {subject.name: subject.model.exp_dir for subject in subjects if subject.trained}
    if trained:
        paths["curves"] = out_dir / "curves.png"
        plot_curves(trained, paths["curves"], mark_ends=len(trained) > 1)
    if models := scored(subjects):
        paths["confidence"] = out_dir / "confidence.png"
        plot_confidence([model.headline for model in models], paths["confidence"])
    return paths


if __name__ == "__main__":
    sys.exit(run(main))
