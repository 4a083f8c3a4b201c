"""Score long recordings with the streaming detector against reference events.

python -m wekws.bin.score_recordings --model student.onnx --references exp/mixed/references.tsv
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from wekws.bin.spot import Progress, prepare_model
from wekws.dataset.references import Reference, read_references, require_in_recording
from wekws.files import write_json
from wekws.log import run
from wekws.score.det import budgets_from_text
from wekws.score.recordings import Matching, operating_points, points_table, score_recording
from wekws.stream.network import SpotterModel
from wekws.stream.spot_files import recordings_in

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Print the error rates and write them."""
    args = _parser().parse_args(argv)
    budgets = budgets_from_text(args.budgets)
    references = _all_recordings(args.references, args.inputs)
    model = prepare_model(args.checkpoint or args.model, threshold=args.threshold)
    _report_unknown_keywords(model, references)
    matching = Matching.of(model, args.tolerance_s)
    recordings = []
    for path, events in references.items():
        with Progress(path, model.front_end.sample_rate_hz) as progress:
            recordings.append(score_recording(model, path, events, on_piece=progress.advance))
    thresholds = {keyword.text: keyword.threshold for keyword in model.keywords}
    points = operating_points(recordings, thresholds, budgets, matching)
    print(points_table({(args.checkpoint or args.model).name: points}))
    for point in points:
        print(f"\n{point['point']}")
        for keyword, counts in point["keywords"].items():
            misses, alarms = counts["misses"], counts["false_alarms"]
            print(
                f"{keyword}: threshold {counts['threshold']:.6g}, missed {misses['count']} of "
                f"{counts['references']}, {alarms['count']} false alarms, "
                f"{counts['confusions']} confusions"
            )
    if args.out is not None:
        write_json(args.out, {"references": str(args.references), "points": points})
    return 0


def _all_recordings(
    references_path: Path, inputs: Sequence[str]
) -> dict[Path, Sequence[Reference]]:
    """Return the events of each recording; all can be read, and the events are within them."""
    references: dict[Path, Sequence[Reference]] = dict(read_references(references_path))
    already = {path.resolve() for path in references}
    further = [path for name in inputs for path in recordings_in(name)]
    references |= {path: () for path in further if path.resolve() not in already}
    for path, events in references.items():
        require_in_recording(references_path, path, events)
    return references


def _report_unknown_keywords(
    model: SpotterModel, references: Mapping[Path, Sequence[Reference]]
) -> None:
    known = {keyword.text for keyword in model.keywords}
    unknown = {r.keyword for events in references.values() for r in events} - known
    if unknown:
        logger.warning(
            "%s: in the references, but no keyword of the model; not counted as misses, and a "
            "detection there is a confusion",
            ", ".join(sorted(unknown)),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--checkpoint", type=Path, help="trained model, N.pt or avg_N.pt")
    models.add_argument("--model", type=Path, help="exported model, .onnx")
    add(
        "--references", type=Path, required=True,
        help="tab-separated file: recording, keyword, start, end (in seconds)",
    )  # fmt: skip
    add("inputs", nargs="*", help="further recordings or folders of them, without any keyword")
    add(
        "--threshold", type=float,
        help="threshold for all keywords, 0 to 1 [those chosen for the model, or from its results]",
    )  # fmt: skip
    add(
        "--tolerance_s", type=float, default=1.0,
        help="a detection of a reference ends at most so long before or after it [%(default)s]",
    )  # fmt: skip
    add(
        "--budgets", default="0.5,1",
        help="false alarms per hour and keyword, for the points of the own curve [%(default)s]",
    )  # fmt: skip
    add("--out", type=Path, help="JSON to write")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
