r"""Error rates of one model offline, as a stream, and exported: the same test set for each engine.

python -m wekws.bin.export_onnx --checkpoint exp/X/student/avg_5.pt --precision fp32 int8 \
    --data_list data/X/dev/data.list
python benchmarks/engines.py --checkpoints student=exp/X/student/avg_5.pt \
    --list data/X/test/data.list --out_dir exp/engines

For each checkpoint there are four rows:

    offline             torch, whole recordings (`wekws.bin.score_ctc`)
    streaming           `KeywordSpotter` on the checkpoint, samples of a file at a time
    streaming, onnx     the same with the exported file beside the checkpoint
    streaming, int8     the same with its int8 file

FRR in % and false alarms per hour and keyword, at the thresholds of each engine's own curve. The
last column is the ratio of events that are those of the offline row: the same recording, frames,
and confidence within 1e-3, of those from 0.1 on.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wekws.dataset.audio import AudioError
from wekws.dataset.manifest import Utterance, read_data_list
from wekws.decode.event_rule import Event
from wekws.decode.events import counting_events
from wekws.errors import ConfigError
from wekws.log import run
from wekws.score.det import Budget, budgets_from_text
from wekws.score.scores import (
    SCORES_NAME,
    ScoredUtterance,
    read_scores,
    read_timed_events,
    write_scores,
)
from wekws.score.scoring import score_list
from wekws.score.sets import KeywordSet, split_by_keyword
from wekws.score.summary import errors_at, own_curve_threshold
from wekws.stream.load import load_model
from wekws.stream.spot_files import FILE_FRAMES_PER_STEP, spot_file
from wekws.stream.spotter import KeywordSpotter

LOWEST_CONFIDENCE = 0.1  # events below it are not compared
TOLERANCE = 1e-3


def stream_scores(model_path: Path, utterances: Sequence[Utterance]) -> Iterator[ScoredUtterance]:
    """Yield the events of each recording as a stream of samples."""
    model = load_model(model_path)
    hop_s, keywords = model.front_end.hop_s, [keyword.text for keyword in model.keywords]
    refractory_frames = round(model.refractory_s / hop_s)
    # Every peak is a detection.
    every = dataclasses.replace(model.with_thresholds(0.0), refractory_s=0.0)
    spotter = KeywordSpotter(every, frames_per_step=FILE_FRAMES_PER_STEP)
    for utterance in tqdm(utterances, desc=model_path.name, disable=None):
        peaks: dict[str, list[Event]] = {keyword: [] for keyword in keywords}
        try:
            for d in spot_file(spotter, utterance.wav):
                first, last = round(d.start_s / hop_s), round(d.end_s / hop_s) - 1
                peaks[d.keyword].append(Event(d.confidence, first, last))
        except AudioError as error:
            print(f"{utterance.key} is left out: {error}", file=sys.stderr)
            continue
        events = {
            keyword: counting_events(found, refractory_frames) or [Event(0.0, 0, 0)]
            for keyword, found in peaks.items()
        }
        yield ScoredUtterance(utterance.key, events)


def model_files(checkpoint: Path) -> dict[str, Path]:
    """Return the file of each engine that runs as a stream.

    Raises: ConfigError if the checkpoint has not been exported.
    """
    files = {
        "streaming": checkpoint,
        "streaming, onnx": checkpoint.with_suffix(".onnx"),
        "streaming, int8": checkpoint.with_suffix(".int8.onnx"),
    }
    for path in files.values():
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; export {checkpoint} first")
    return files


def score_engines(
    name: str, checkpoint: Path, data_list: Path, out_dir: Path, cache_dir: Path | None
) -> Iterator[tuple[str, Path]]:
    """Yield each engine and its result folder when it has been scored, offline first."""
    utterances = read_data_list(data_list)
    hop_s = load_model(checkpoint).front_end.hop_s
    offline = out_dir / f"{name}_offline"
    score_list(checkpoint, data_list, offline, cache_dir=cache_dir)
    yield "offline", offline
    for label, path in model_files(checkpoint).items():
        folder = out_dir / f"{name}_{label.replace(', ', '_')}"
        write_scores(folder, stream_scores(path, utterances), hop_s)
        yield label, folder


def agreement(folder: Path, offline: Path) -> float:
    """Return the share of the offline events that another engine has too."""
    ours, theirs = read_timed_events(folder), read_timed_events(offline)
    total = same = 0
    for place, events in theirs.items():
        found = {(e.start_s, e.end_s): e.confidence for e in ours.get(place, [])}
        for event in events:
            if event.confidence >= LOWEST_CONFIDENCE:
                confidence = found.get((event.start_s, event.end_s), np.inf)
                total += 1
                same += abs(confidence - event.confidence) <= TOLERANCE
    return same / max(total, 1)


def row(name: str, sets: Sequence[KeywordSet], budgets: Sequence[Budget], share: float) -> str:
    """Return one row of the table."""
    cells = []
    for budget in budgets:
        thresholds = [own_curve_threshold(s, budget) for s in sets]
        points = [errors_at(s, threshold) for s, threshold in zip(sets, thresholds, strict=True)]
        frr = 100 * float(np.mean([point["misses"]["rate"] for point in points]))
        misses = sum(point["misses"]["count"] for point in points)
        alarms = sum(point["false_alarms"]["count"] for point in points)
        rate = alarms / sum(s.negative_hours for s in sets)
        cells.append(f"{frr:.1f} ({misses} misses) at {rate:.2f}/h")
    return f"| {name} | {' | '.join(cells)} | {share:.4f} |"


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    budgets = budgets_from_text(args.budgets)
    utterances = read_data_list(args.list)
    checkpoints: dict[str, Path] = {}
    for item in args.checkpoints:
        name, _, path = item.rpartition("=")
        if not Path(path).is_file():
            raise ConfigError(f"--checkpoints {item}: {path}: no such file; expected NAME=FILE")
        model_files(Path(path))
        checkpoints[name or Path(path).stem] = Path(path)
    print(f"| engine | {' | '.join(f'FRR at {b.label}' for b in budgets)} | same events |")
    print("|---" * (len(budgets) + 2) + "|")
    for name, checkpoint in checkpoints.items():
        keywords = [keyword.text for keyword in load_model(checkpoint).keywords]
        offline = args.out_dir / f"{name}_offline"
        scored = score_engines(name, checkpoint, args.list, args.out_dir, args.cache_dir)
        for engine, folder in scored:
            split = split_by_keyword(read_scores(folder / SCORES_NAME), utterances, keywords)
            sets = [s for s in split.keywords if s.problem is None]
            share = agreement(folder, offline)
            print(row(f"{name}, {engine}", sets, budgets, share), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoints", nargs="+", required=True, metavar="NAME=FILE", help="checkpoints (.pt)")
    add("--list", type=Path, required=True, help="data.list of the test set")
    add("--out_dir", type=Path, required=True, help="folder for the scores of each engine")
    add("--cache_dir", type=Path, help="feature cache [cache beside the list]")
    add("--budgets", default="0.5,1", help="false alarms per hour and keyword [%(default)s]")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
