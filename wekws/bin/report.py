"""Report on a teacher and its students: report.md, a self-contained report.html and plots."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.bin.named_dirs import parse_named_dirs
from wekws.errors import ConfigError
from wekws.files import read_json
from wekws.log import run
from wekws.plot.confidence import plot_confidence
from wekws.plot.curves import plot_curves
from wekws.plot.det_curves import plot_det
from wekws.plot.durations import plot_durations
from wekws.report.distillation_report import ReportInputs, write_report
from wekws.report.document import to_markdown
from wekws.report.model_folder import TrainedModel, read_model
from wekws.report.savings import savings_blocks
from wekws.score.results import headline_budget

PAGES = {
    "Misses and false alarms, with audio": "errors.html",
    "Diagnosis of the training": "diagnosis/diagnosis.html",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the folders, draw the plots, write the report."""
    args = _parser().parse_args(argv)
    named = parse_named_dirs([*([args.teacher_dir] if args.teacher_dir else []), *args.student_dir])
    chosen = _result_dirs(args.result_dirs, named)
    models = [
        read_model(name, folder, args.dataset, chosen.get(name)) for name, folder in named.items()
    ]
    out_dir = Path(args.out_dir)
    inputs = ReportInputs(
        title=args.title,
        teacher=models[0] if args.teacher_dir else None,
        students=models[1:] if args.teacher_dir else models,
        figures=_draw(models, args.validation, out_dir),
        validation=read_json(args.validation) if args.validation else {},
        notes=args.note,
        commands=args.command,
        links={text: page for text, page in PAGES.items() if (out_dir / page).is_file()},
    )
    written = write_report(inputs, out_dir)
    budget = headline_budget(model.headline for model in models)
    if savings := savings_blocks(inputs.teacher, inputs.students, budget):
        print(to_markdown(savings, out_dir))
    for path in written:
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--teacher_dir", metavar="[NAME=]DIR", help="folder of the trained teacher, exp/X")
    add(
        "--student_dir", nargs="+", required=True, metavar="[NAME=]DIR",
        help="folders of the trained students",
    )  # fmt: skip
    add("--dataset", default="test", help="read results from DIR/DATASET_* [%(default)s]")
    add(
        "--result_dirs", nargs="+", default=[], metavar="NAME=DIR",
        help="result folders to use for the model called NAME [all DIR/DATASET_*]; may be repeated",
    )  # fmt: skip
    add("--validation", help="validation.json of validate_data, for the table of the corpus")
    add("--out_dir", required=True, help="folder to write to")
    add("--title", default="Teacher and student", help="heading of the page [%(default)s]")
    add(
        "--note",
        action="append",
        default=[],
        help="text shown at the top of the page; may be repeated",
    )
    add(
        "--command",
        action="append",
        default=[],
        help="command that reproduces the results, shown at the end; may be repeated",
    )
    return parser


def _result_dirs(arguments: list[str], named: dict[str, Path]) -> dict[str, list[Path]]:
    """Return the result folders given for each model; a name may occur several times.

    Raises: ConfigError for a name that is not one of the models.
    """
    chosen: dict[str, list[Path]] = {}
    for argument in arguments:
        name, _, folder = argument.partition("=")
        if name not in named or not folder:
            raise ConfigError(
                f"--result_dirs {argument}: expected NAME=DIR with NAME one of {list(named)}"
            )
        chosen.setdefault(name, []).append(Path(folder))
    return chosen


def _draw(models: list[TrainedModel], validation: str | None, out_dir: Path) -> dict[str, Path]:
    """Draw the plots for which there is data; return their paths by name."""
    paths = {name: out_dir / f"{name}.png" for name in ("det", "confidence")}
    results = [model.headline for model in models]
    plot_det(results, paths["det"])
    plot_confidence(results, paths["confidence"])
    runs = {model.name: model.exp_dir for model in models if model.cv_rows}
    if runs:
        paths["curves"] = out_dir / "curves.png"
        plot_curves(runs, paths["curves"])
    if validation:
        paths["durations"] = out_dir / "durations.png"
        plot_durations(validation, paths["durations"])
    return paths


if __name__ == "__main__":
    sys.exit(run(main))
