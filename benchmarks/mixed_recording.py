r"""Detectors and wake-word engines on the same long recordings, counted by the same code.

python -m wekws.bin.mix_recording --data_list data/X/test/data.list \
    --keywords_file data/X/dict/keywords.txt --hours 2.2 --spacing_s 22 --out_dir exp/mixed
python benchmarks/mixed_recording.py --references exp/mixed/references.tsv \
    --models teacher=A.pt student=B.pt int8=B.int8.onnx --out exp/mixed/systems.json

Ours run as streams (`wekws.score.recordings`), at the thresholds that were chosen for them, if any,
and at those of their own curve on these recordings. Engines run as benchmarks/peers.py installs
them, on the keywords that they have, at the operating point that they have out of the box and at
those of their own curve. The last column is the ratio of CPU time to audio.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers import EngineError, Worker, install

from wekws.dataset.audio import probe, read_audio
from wekws.dataset.references import Reference, read_references, require_in_recording
from wekws.errors import ConfigError
from wekws.files import write_json
from wekws.log import run
from wekws.score.det import Budget, budgets_from_text
from wekws.score.recordings import (
    Matching,
    ScoredRecording,
    operating_point,
    operating_points,
    points_table,
    score_recording,
)
from wekws.stream.load import load_model
from wekws.stream.spotter import Detection

logger = logging.getLogger("mixed_recording")

SAMPLE_RATE_HZ = 16000
REFRACTORY_S = 1.0
References = Mapping[Path, Sequence[Reference]]


def our_points(
    path: Path, references: References, budgets: Sequence[Budget], tolerance_s: float
) -> tuple[list[dict[str, Any]], float]:
    """Return the operating points of a model, and the ratio of CPU time to audio."""
    model = load_model(path)
    began = time.process_time()
    recordings = [score_recording(model, name, events) for name, events in references.items()]
    ratio = (time.process_time() - began) / sum(3600 * r.hours for r in recordings)
    thresholds = {keyword.text: keyword.threshold for keyword in model.keywords}
    matching = Matching.of(model, tolerance_s)
    return operating_points(recordings, thresholds, budgets, matching), ratio


def engine_points(
    engine: str, references: References, args: argparse.Namespace, budgets: Sequence[Budget]
) -> tuple[str, list[dict[str, Any]], float]:
    """Return version, operating points and ratio of CPU time to audio of an engine.

    Raises: EngineError if it cannot be installed or run, or has none of the keywords.
    """
    keywords = sorted({r.keyword for events in references.values() for r in events})
    settings: dict[str, Any] = {"keywords": keywords}
    if engine == "porcupine":
        settings["sensitivities"] = args.sensitivities
    python = args.env_dir / engine / "bin" / "python"
    try:
        worker = Worker(python, engine, settings)
    except EngineError:
        install(engine, args.env_dir)
        worker = Worker(python, engine, settings)
    with worker:
        known = worker.ready["keywords"]
        if not known:
            raise EngineError(f"{engine}: has none of the keywords")
        recordings, cpu_s = [], 0.0
        for path, events in references.items():
            scored, taken_s = _run_engine(worker, path, events, known)
            recordings.append(scored)
            cpu_s += taken_s
    matching = Matching(refractory_s=REFRACTORY_S, tolerance_s=args.tolerance_s)
    default = dict.fromkeys(known, worker.ready["default_threshold"])
    points = [operating_point(recordings, worker.ready["default_label"], default, matching)]
    points += operating_points(recordings, dict.fromkeys(known), budgets, matching)
    return worker.ready["version"], points, cpu_s / sum(3600 * r.hours for r in recordings)


def _run_engine(
    worker: Worker, path: Path, events: Sequence[Reference], keywords: Sequence[str]
) -> tuple[ScoredRecording, float]:
    samples = read_audio(path, SAMPLE_RATE_HZ) * 32768
    found, cpu_s = worker.detect(np.clip(np.round(samples), -32768, 32767).astype(np.int16))
    peaks = [
        Detection(
            keyword=keywords[k], confidence=confidence, start_s=end_s, end_s=end_s, decided_s=end_s
        )
        for k, confidence, end_s in sorted(found, key=lambda event: event[2])
    ]
    hours = probe(path).duration_s / 3600
    return ScoredRecording(hours=hours, references=events, peaks=peaks), cpu_s


System = tuple[str, list[dict[str, Any]], float]
"""Name, operating points, and ratio of CPU time to audio."""


def systems(
    args: argparse.Namespace, references: References, budgets: Sequence[Budget]
) -> Iterator[System]:
    """Yield each system when it has been counted; an engine that cannot run is left out."""
    for name, path in _models(args.models).items():
        yield name, *our_points(path, references, budgets, args.tolerance_s)
    for engine in args.engines:
        try:
            version, points, ratio = engine_points(engine, references, args, budgets)
        except EngineError as error:
            logger.error("%s is left out: %s", engine, error)
            continue
        yield f"{engine} {version}", points, ratio


def _models(items: Sequence[str]) -> dict[str, Path]:
    found = {}
    for item in items:
        name, _, path = item.rpartition("=")
        if not Path(path).is_file():
            raise ConfigError(f"--models {item}: {path}: no such file; expected NAME=FILE")
        found[name or Path(path).name] = Path(path)
    return found


def main() -> int:
    args = _parser().parse_args()
    references = read_references(args.references)
    for path, events in references.items():
        require_in_recording(args.references, path, events)
    hours = sum(probe(path).duration_s for path in references) / 3600
    print(f"{hours:.2f} h, {sum(map(len, references.values()))} keywords")
    all_points, ratios = {}, {}
    for name, points, ratio in systems(args, references, budgets_from_text(args.budgets)):
        all_points[name], ratios[name] = points, ratio
        logger.info("%s: %.4f of real time", name, ratio)
        if args.out is not None:
            write_json(args.out, {"hours": hours, "points": all_points, "real_time_ratio": ratios})
    print(points_table(all_points))
    print("ratio of CPU time to audio: " + ", ".join(f"{n} {r:.4f}" for n, r in ratios.items()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--references", type=Path, required=True, help="reference events of the recordings")
    add("--models", nargs="*", default=[], metavar="NAME=FILE", help="checkpoints or .onnx files")
    add(
        "--engines", nargs="*", choices=("porcupine", "openwakeword", "pocketsphinx"),
        default=["porcupine", "openwakeword"], help="engines to run [%(default)s]",
    )  # fmt: skip
    add(
        "--env_dir", type=Path, default=Path("exp/peers_env"),
        help="folder of the engines' environments [%(default)s]",
    )  # fmt: skip
    add(
        "--sensitivities", type=float, nargs="+", default=[0.5, 0.9],
        help="sensitivities of Porcupine to try [%(default)s]",
    )  # fmt: skip
    add("--tolerance_s", type=float, default=1.0, help="see wekws.score.recordings [%(default)s]")
    add("--budgets", default="0.5,1", help="false alarms per hour and keyword [%(default)s]")
    add("--out", type=Path, help="JSON to write, anew after each system")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
