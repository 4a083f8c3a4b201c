"""Error rates of wake-word engines that people use, beside our own, on the same recordings.

python benchmarks/peers.py --test DIR/test --keywords "ALEXA,JARVIS" --out_dir exp/peers
python benchmarks/peers.py --test DIR/test --out_dir exp/peers --results student=exp/X/test_avg_5

Each engine is installed into an environment of its own below --env_dir and runs as it comes, each
recording with silence before and after it (its length is drawn from the recording's key: engines
work on blocks of 32 or 80 ms, and where a recording falls in them decides about 2 % of the clips).
Scores are written in our format, and one code makes
the table: FRR with Wilson and false alarms per hour with Poisson intervals (95 %), and the ratio
of CPU time to audio on one core. An engine that cannot be installed is left out with a message.
What is scored already is not scored again, and an interrupted run continues.
"""

import argparse
import json
import logging
import queue
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wekws.dataset.audio import read_audio
from wekws.dataset.feature_view import copy_rng
from wekws.dataset.features import expand_context, fbank
from wekws.dataset.manifest import Utterance, read_data_list, read_kaldi_table, write_kaldi_table
from wekws.dataset.prepare import make_data_list
from wekws.dataset.vocabulary import parse_keywords
from wekws.decode.event_rule import Event
from wekws.decode.events import counting_events
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, file_sha256, read_json, write_json
from wekws.log import run
from wekws.score.det import Budget, budgets_from_text
from wekws.score.intervals import poisson_exact
from wekws.score.scores import (
    SCORE_INFO_NAME,
    SCORES_NAME,
    ScoredUtterance,
    read_score_info,
    read_scores,
    write_scores,
)
from wekws.score.scoring import make_decoder
from wekws.score.sets import KeywordSet, split_by_keyword
from wekws.score.summary import errors_at, own_curve_threshold
from wekws.score.system import load_system

logger = logging.getLogger("peers")

WORKER = Path(__file__).with_name("peer_engines.py")
SAMPLE_RATE_HZ = 16000
HOP_S = 0.01  # resolution of the times in events.tsv
REFRACTORY_S = 1.0  # as in wekws.bin.score_ctc
PACKAGES = {
    "porcupine": ["pvporcupine==1.9.5"],
    "openwakeword": ["openwakeword==0.4.0"],
    "pocketsphinx": ["pocketsphinx==5.0.4"],
}


class EngineError(Exception):
    """An engine that cannot be installed or run."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Error rates of one system at one operating point."""

    system: str
    """Name of the engine or of the result folder."""
    point: str
    """How the threshold was chosen."""
    errors: Mapping[str, Mapping[str, Any]]
    """By keyword: an operating point as in summary.json."""
    negative_hours: float
    """Audio without any keyword."""
    real_time_ratio: float | None
    """CPU time per audio time on one core; None: not measured."""

    @property
    def mean_frr(self) -> float:
        return float(np.mean([point["misses"]["rate"] for point in self.errors.values()]))

    @property
    def alarms(self) -> dict[str, float]:
        """False alarms of all keywords, and per hour and keyword with the Poisson interval."""
        count = sum(point["false_alarms"]["count"] for point in self.errors.values())
        exposure = self.negative_hours * len(self.errors)
        low, high = poisson_exact(count, exposure)
        return {"count": count, "per_hour": count / exposure, "low": low, "high": high}


def read_test_set(folder: Path, out_dir: Path) -> Path:
    """Return the data list of a test folder; that of a Kaldi folder is written to ``out_dir``.

    folder: one with a ``data.list``, or a Kaldi folder whose lists (also in folders below it)
    have paths that are absolute or relative to the folder above it.
    Raises: DataError if there is neither.
    """
    if (folder / "data.list").is_file():
        return folder / "data.list"
    parts = sorted(path.parent for path in folder.rglob("wav.scp"))
    if not parts:
        raise DataError(f"{folder}: no data.list and no wav.scp in it; expected a test folder")
    base = folder.resolve().parent
    for table in ("wav.scp", "text"):
        rows = [row for part in parts for row in read_kaldi_table(part / table).items()]
        if table == "wav.scp":
            rows = [(key, str(base / wav)) for key, wav in rows]
        write_kaldi_table(out_dir / "lists" / table, rows)
    data_list = out_dir / "lists" / "data.list"
    make_data_list(out_dir / "lists" / "wav.scp", out_dir / "lists" / "text", data_list=data_list)
    return data_list


class Worker:
    """A process that runs one engine."""

    def __init__(self, python: Path, engine: str, settings: Mapping[str, Any]) -> None:
        """Start it.

        Raises: EngineError if the engine does not start.
        """
        self._engine = engine
        command = [python, WORKER, "--engine", engine, "--settings", json.dumps(settings)]
        try:
            self._process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise EngineError(f"{python}: {error}") from None
        try:
            self.ready = self._answer()
        except EngineError:
            self.close()
            raise

    def detect(self, samples: np.ndarray) -> tuple[list[tuple[int, float, float]], float]:
        """Return (keyword number, confidence, end in s) of each event, and the CPU time in s.

        samples: (N,) int16.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f'{{"num_samples": {len(samples)}}}\n'.encode())
            self._process.stdin.write(samples.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: there will be no answer
        answer = self._answer()
        return answer["events"], answer["cpu_s"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise EngineError(f"the process of {self._engine} ended with status {status}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> "Worker":
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def install(engine: str, env_dir: Path) -> None:
    """Make an environment for one engine and install it there.

    Raises: EngineError with pip's last line.
    """
    folder, packages = env_dir / engine, PACKAGES[engine]
    logger.info("installing %s into %s", " ".join(packages), folder)
    for command in (
        [sys.executable, "-m", "venv", folder],
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages],
    ):
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
            raise EngineError(f"{engine}: not installed: {lines[-1]}")


def score_engine(
    engine: str,
    data_list: Path,
    result_dir: Path,
    *,
    env_dir: Path,
    settings: Mapping[str, Any],
    silence_s: tuple[float, float],
    num_workers: int,
) -> None:
    """Run an engine over a data list: score.txt, events.tsv and score.json in our format.

    settings: of the engine, ``keywords`` among them. silence_s: range of the silence before and
    after each recording.
    Raises: EngineError if it cannot be installed or run, or has none of the keywords.
    """
    made_with = {
        "checkpoint": " ".join(PACKAGES[engine]),
        "checkpoint_sha256": "",
        "decoder": engine,
        "data_list": str(data_list),
        "data_list_sha256": file_sha256(data_list),
        "settings": {**settings, "silence_s": list(silence_s)},
    }
    info_path = result_dir / SCORE_INFO_NAME
    if info_path.is_file() and made_with.items() <= read_json(info_path).items():
        logger.info("%s: scored already", result_dir)
        return
    python = env_dir / engine / "bin" / "python"
    with ExitStack() as stack:
        try:
            worker = Worker(python, engine, settings)
        except EngineError:
            install(engine, env_dir)
            worker = Worker(python, engine, settings)
        workers = [stack.enter_context(worker)]
        ready = worker.ready
        for word, reason in ready["missing"].items():
            logger.warning("%s: %s is left out: %s", engine, word, reason)
        if not ready["keywords"]:
            raise EngineError(f"{engine}: has none of the keywords")
        for _ in range(num_workers - 1):
            workers.append(stack.enter_context(Worker(python, engine, settings)))
        utterances = read_data_list(data_list)
        began = time.monotonic()
        progress_path = result_dir / "progress.jsonl"
        done = _read_progress(progress_path, made_with)
        left = [utterance for utterance in utterances if utterance.key not in done]
        with open(progress_path, "a", encoding="utf-8") as progress:
            for utterance, events, taken_s in _detect_all(workers, left, silence_s):
                done[utterance.key] = (events, taken_s)
                print(json.dumps([utterance.key, events, taken_s]), file=progress, flush=True)
    scored = [
        ScoredUtterance(
            u.key,
            _by_keyword(
                done[u.key][0], ready["keywords"], u.duration, silence_of(u.key, silence_s)
            ),
        )
        for u in utterances
    ]
    cpu_s = sum(taken_s for _, taken_s in done.values())
    hours = sum(utterance.duration for utterance in utterances) / 3600
    heard_s = 3600 * hours + 2 * sum(silence_of(u.key, silence_s) for u in utterances)
    write_scores(result_dir, scored, HOP_S)
    logger.info("%s: %.2f h in %.0f s", result_dir, hours, time.monotonic() - began)
    write_json(
        info_path,
        made_with
        | {
            "params": None,
            "version": ready["version"],
            "keywords": ready["keywords"],
            "utterances": len(scored),
            "not_scored": 0,
            "hours": hours,
            "refractory_s": REFRACTORY_S,
            "hop_s": HOP_S,
            "default_threshold": ready["default_threshold"],
            "default_label": ready["default_label"],
            "real_time_ratio": cpu_s / heard_s,
        },
    )
    progress_path.unlink()


def _read_progress(path: Path, made_with: Mapping[str, Any]) -> dict[str, tuple[list[Any], float]]:
    """Return (events, CPU time in s) by key of an interrupted run with the same settings.

    Without such a run the file is begun anew.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = text.split("\n")[:-1]  # what follows the last line end was not written to its end
    if lines[:1] != [json.dumps(made_with)]:
        lines = [json.dumps(made_with)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    records = (json.loads(line) for line in lines[1:])
    return {key: (events, cpu_s) for key, events, cpu_s in records}


def _detect_all(
    workers: Sequence[Worker], utterances: Sequence[Utterance], silence_s: tuple[float, float]
) -> Iterator[tuple[Utterance, list[tuple[int, float, float]], float]]:
    """Yield each utterance with its raw events and the CPU time, in order."""
    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def detect(utterance: Utterance) -> tuple[list[tuple[int, float, float]], float]:
        worker = free.get()
        try:
            samples = read_audio(utterance.wav, SAMPLE_RATE_HZ)
            padded = np.pad(samples, round(silence_of(utterance.key, silence_s) * SAMPLE_RATE_HZ))
            return worker.detect(np.clip(np.round(padded * 32768), -32768, 32767).astype(np.int16))
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        results = pool.map(detect, utterances)
        bar = tqdm(utterances, desc="recordings", disable=None)
        for utterance, (events, cpu_s) in zip(bar, results, strict=True):
            yield utterance, events, cpu_s


def silence_of(key: str, silence_s: tuple[float, float]) -> float:
    """Return the silence before and after a recording in seconds, drawn from its key."""
    return float(copy_rng(0, 0, key).uniform(*silence_s))


def _by_keyword(
    events: Sequence[tuple[int, float, float]],
    keywords: Sequence[str],
    duration_s: float,
    silence_s: float,
) -> dict[str, list[Event]]:
    """Return the events of each keyword, by the rule of a stream."""
    found: dict[str, list[Event]] = {keyword: [] for keyword in keywords}
    last = max(0, round(duration_s / HOP_S) - 1)
    for keyword, confidence, end_s in events:
        end = min(max(0, round((end_s - silence_s) / HOP_S) - 1), last)
        found[keywords[keyword]].append(Event(confidence, end, end))
    frames = round(REFRACTORY_S / HOP_S)
    return {keyword: counting_events(items, frames) for keyword, items in found.items()}


def rows_of(
    name: str, result_dir: Path, keywords: Sequence[str], budgets: Sequence[Budget]
) -> list[Row]:
    """Return the rows of one result folder, an engine's or ours.

    An engine has a row out of the box; ours has one per budget whose thresholds were chosen on
    dev, if its summary.json has them. Both have one per budget of their own curve on this set.
    A keyword without positives or negatives is left out with a warning.
    Raises: ConfigError if no keyword is left.
    """
    info = read_score_info(result_dir)
    scored = split_by_keyword(
        read_scores(result_dir / SCORES_NAME), read_data_list(info["data_list"]), keywords
    )
    sets = [s for s in scored.keywords if s.keyword in info["keywords"]]
    for problem in [f"{s.keyword}: {s.problem}" for s in sets if s.problem]:
        logger.warning("%s: %s", result_dir, problem)
    sets = [s for s in sets if s.problem is None]
    if not sets:
        raise ConfigError(
            f"{result_dir}: no error rates of {', '.join(keywords)}; it has scores of "
            f"{', '.join(info['keywords'])}"
        )
    ratio = info.get("real_time_ratio") or our_real_time_ratio(Path(info["checkpoint"]))

    def row(point: str, thresholds: Mapping[str, float]) -> Row:
        errors = {
            s.keyword: {"threshold": thresholds[s.keyword], **errors_at(s, thresholds[s.keyword])}
            for s in sets
        }
        return Row(
            system=name, point=point, errors=errors, negative_hours=sets[0].negative_hours,
            real_time_ratio=ratio,
        )  # fmt: skip

    rows = []
    if "default_threshold" in info:
        default = dict.fromkeys([s.keyword for s in sets], info["default_threshold"])
        rows.append(row(info["default_label"], default))
    for label, thresholds in _dev_thresholds(result_dir, sets).items():
        rows.append(row(f"{label} on dev", thresholds))
    for budget in budgets:
        chosen = {s.keyword: own_curve_threshold(s, budget) for s in sets}
        rows.append(row(f"{budget.label} of its own curve", chosen))
    return rows


def _dev_thresholds(result_dir: Path, sets: Sequence[KeywordSet]) -> dict[str, dict[str, float]]:
    """Return keyword -> threshold for each budget of summary.json that was chosen on dev."""
    path = result_dir / "summary.json"
    found: dict[str, dict[str, float]] = {}
    for entry in read_json(path)["keywords"] if path.is_file() else []:
        for point in entry["operating_points"]:
            if point["chosen_on"] == "dev" and point["budget"].endswith("/h"):
                found.setdefault(point["budget"], {})[entry["keyword"]] = point["threshold"]
    wanted = {s.keyword for s in sets}
    return {label: thresholds for label, thresholds in found.items() if wanted <= set(thresholds)}


@torch.inference_mode()
def our_real_time_ratio(checkpoint: Path, audio_s: float = 20.0) -> float | None:
    """Return CPU time per audio time of features, network and keyword scorer, on one thread.

    None if the checkpoint is not there. The least of five runs on noise.
    """
    if not checkpoint.is_file():
        return None
    torch.set_num_threads(1)
    system = load_system(checkpoint)
    front_end = system.dataset_config.front_end
    decoder = make_decoder("keyword", system)
    noise = np.random.default_rng(0).standard_normal(round(audio_s * front_end.sample_rate_hz))
    samples = (0.1 * noise).astype(np.float32)
    times = []
    for _ in range(5):
        began = time.process_time()
        feats = fbank(samples, front_end)[None]
        inputs, lengths = expand_context(feats, torch.tensor([feats.shape[1]]), front_end)
        log_probs = system.log_probs(inputs, lengths)
        decoder.events(log_probs, lengths, round(REFRACTORY_S / system.hop_s))
        times.append(time.process_time() - began)
    return min(times) / audio_s


def to_markdown(rows: Sequence[Row], keywords: Sequence[str]) -> str:
    """Return two tables: FRR in per cent by keyword, and false alarms by keyword."""
    lines = [
        f"| FRR in % | operating point | {' | '.join(keywords)} | mean | false alarms "
        "| per hour and keyword | CPU time / audio |",
        "|---" * (len(keywords) + 6) + "|",
    ]
    for row in rows:
        alarms = row.alarms
        cells = [_cell(row.errors.get(word), "misses", "rate", 100, 1) for word in keywords]
        mean = f"{100 * row.mean_frr:.1f}"
        if len(row.errors) < len(keywords):
            mean += f" of {len(row.errors)}"
        ratio = "" if row.real_time_ratio is None else f"{row.real_time_ratio:.4f}"
        rate = f"{alarms['per_hour']:.2f} ({alarms['low']:.2f} to {alarms['high']:.2f})"
        cells += [mean, str(alarms["count"]), rate, ratio]
        lines.append(f"| {row.system} | {row.point} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| false alarms per hour | operating point | {' | '.join(keywords)} | hours |",
        "|---" * (len(keywords) + 3) + "|",
    ]
    for row in rows:
        cells = [_cell(row.errors.get(word), "false_alarms", "per_hour", 1, 2) for word in keywords]
        cells.append(f"{row.negative_hours:.2f}")
        lines.append(f"| {row.system} | {row.point} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(point: Mapping[str, Any] | None, kind: str, name: str, factor: int, digits: int) -> str:
    if point is None:
        return ""
    rate, low, high = (
        f"{factor * point[kind][field]:.{digits}f}" for field in (name, "low", "high")
    )
    return f"{rate} ({low} to {high})"


def _check_same_set(data_list: Path, result_dirs: Mapping[str, Path]) -> None:
    """Warn about result folders of another test set: their rows cannot be compared."""
    keys = {utterance.key for utterance in read_data_list(data_list)}
    for name, result_dir in result_dirs.items():
        scored = set(read_scores(result_dir / SCORES_NAME).keys)
        if scored != keys:
            logger.warning(
                "%s: scored on another set: %d of its %d utterances are among the %d of the test "
                "set; its row is no comparison",
                name, len(scored & keys), len(scored), len(keys),
            )  # fmt: skip


def _named_dirs(arguments: Sequence[str]) -> dict[str, Path]:
    named = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or not Path(path).is_dir() or name in named:
            raise ConfigError(f"--results {argument}: expected NAME=DIR, each name once")
        named[name] = Path(path)
    return named


def _sensitivities(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if 0.5 not in values or not all(0 <= value <= 1 for value in values):
        raise ConfigError(
            f"--sensitivities {text}: expected numbers from 0 to 1, 0.5 (the default) among them"
        )
    return values


def main() -> int:
    args = _parser().parse_args()
    result_dirs = _named_dirs(args.results)
    budgets, sensitivities = budgets_from_text(args.budgets), _sensitivities(args.sensitivities)
    if not 0 <= args.silence_s[0] <= args.silence_s[1] or args.num_workers < 1:
        raise ConfigError("expected --silence_s LOW HIGH from 0, --num_workers at least 1")
    if args.keywords:
        keywords = parse_keywords(args.keywords)
    else:
        named = [read_score_info(path)["keywords"] for path in result_dirs.values()]
        keywords = list(dict.fromkeys(word for words in named for word in words))
        if not keywords:
            raise ConfigError("give --keywords, or --results with scored keywords")
    data_list = read_test_set(args.test, args.out_dir)
    _check_same_set(data_list, result_dirs)
    scored_dirs = {}
    for engine in args.engines:
        settings: dict[str, Any] = {"keywords": keywords}
        if engine == "porcupine":
            settings["sensitivities"] = sensitivities
        try:
            score_engine(
                engine, data_list, args.out_dir / engine, env_dir=args.env_dir,
                settings=settings, silence_s=tuple(args.silence_s), num_workers=args.num_workers,
            )  # fmt: skip
        except EngineError as error:
            logger.error("%s is left out: %s", engine, error)
            continue
        scored_dirs[f"{engine} {read_score_info(args.out_dir / engine)['version']}"] = (
            args.out_dir / engine
        )
    rows = [
        row
        for name, folder in {**scored_dirs, **result_dirs}.items()
        for row in rows_of(name, folder, keywords, budgets)
    ]
    if not rows:
        raise ConfigError("no engine could be run, and no --results were given")
    table = to_markdown(rows, keywords)
    with atomic_path(args.out_dir / "peers.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    content = {
        "test": str(args.test),
        "keywords": keywords,
        "rows": [
            {
                "system": row.system, "point": row.point, "mean_frr": row.mean_frr,
                "false_alarms": row.alarms, "negative_hours": row.negative_hours,
                "real_time_ratio": row.real_time_ratio, "keywords": dict(row.errors),
            }
            for row in rows
        ],
    }  # fmt: skip
    write_json(args.out_dir / "peers.json", content)
    print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--test", type=Path, required=True,
        help="test folder: with a data.list, or a Kaldi folder (wav.scp and text, also in folders "
        "below it; relative paths count from the folder above it)",
    )  # fmt: skip
    add("--keywords", help='keywords, such as "ALEXA,SMART MIRROR" [those of --results]')
    add(
        "--engines", nargs="+", choices=tuple(PACKAGES), default=list(PACKAGES),
        help="engines to run [all]",
    )  # fmt: skip
    add(
        "--results", nargs="*", default=[], metavar="NAME=DIR",
        help="folders of our scores on the same test set",
    )  # fmt: skip
    add("--out_dir", type=Path, required=True, help="folder for scores, peers.md and peers.json")
    add(
        "--env_dir", type=Path, default=Path("exp/peers_env"),
        help="folder of the engines' environments [%(default)s]",
    )  # fmt: skip
    add("--budgets", default="0.5,1", help="false alarms per hour and keyword [%(default)s]")
    add(
        "--sensitivities", default="0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
        help="sensitivities of Porcupine to try [%(default)s]",
    )  # fmt: skip
    add(
        "--silence_s", type=float, nargs=2, default=[0.5, 1.0], metavar=("LOW", "HIGH"),
        help="range of the silence before and after a recording, in seconds [0.5 1.0]",
    )  # fmt: skip
    add("--num_workers", type=int, default=1, help="processes per engine [%(default)s]")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
