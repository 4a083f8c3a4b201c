r"""Cost of detectors on a stream: CPU time per second of audio, and time per chunk of one frame.

python benchmarks/detector_cost.py --models teacher=exp/X/teacher/avg_30.pt \
    student=exp/X/student/avg_30.pt int8=exp/X/student/avg_30.int8.onnx

Each model runs as a `KeywordSpotter` on one thread: front end, network, keyword search and event
rule. The models take turns, a second of audio each, so that the load of the machine affects all
alike. Columns:

    real-time factor    ratio of CPU time to audio time, in chunks of one frame (30 ms, usually),
                        and in chunks of ten frames, which need fewer calls
    chunk, ms           CPU time per chunk of one frame, which on an idle core is its latency:
                        median, 95 % and 99 %, in the fastest of the repeats
    file, state         bytes of the model file; bytes of the network's state per stream, float32

Porcupine and openWakeWord are measured besides if benchmarks/peers.py has installed them: the ratio
of the CPU time of their own calls to the audio time. The result is printed, and written to --out as
JSON. --memory_hours streams noise through the last model and prints the memory of the process after
each quarter.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peers import EngineError, Worker  # noqa: E402

from wekws.errors import ConfigError  # noqa: E402
from wekws.files import write_json  # noqa: E402
from wekws.log import run  # noqa: E402
from wekws.model.cost import model_cost  # noqa: E402
from wekws.stream.load import load_model  # noqa: E402
from wekws.stream.network import SpotterModel  # noqa: E402
from wekws.stream.onnx_network import OnnxNetwork  # noqa: E402
from wekws.stream.spotter import KeywordSpotter  # noqa: E402
from wekws.stream.torch_network import TorchNetwork  # noqa: E402

WORDS = "ALEXA,COMPUTER,JARVIS,SMART MIRROR,SNOWBOY,VIEW GLASS"


@dataclass
class Timed:
    """A detector and its times."""

    name: str
    spotter: KeywordSpotter
    chunk: int  # samples
    repeats: list[list[float]] = field(default_factory=list)  # CPU seconds of each chunk
    cpu_s: list[float] = field(default_factory=list)  # of each repeat

    def start(self) -> None:
        self.spotter.reset()
        self.repeats.append([])
        self.cpu_s.append(0.0)

    def accept(self, samples: np.ndarray) -> None:
        times, began_cpu = self.repeats[-1], time.process_time()
        for place in range(0, len(samples), self.chunk):
            began = time.thread_time()
            self.spotter.accept(samples[place : place + self.chunk])
            times.append(time.thread_time() - began)
        self.cpu_s[-1] += time.process_time() - began_cpu

    def chunk_ms(self) -> dict[str, float]:
        """Percentiles of the CPU time per chunk in the fastest repeat."""
        times = 1000 * np.array(min(self.repeats, key=sum))
        return {f"p{q}": round(float(np.percentile(times, q)), 4) for q in (50, 95, 99)}


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    torch.set_num_threads(1)
    models = dict(_named(item) for item in args.models)
    rows = measure(models, args.duration_s, args.repeats)
    for name in () if args.no_peers else ("porcupine", "openwakeword"):
        if row := peer_row(name, args.env_dir, args.duration_s, args.peer_keywords.split(",")):
            rows.append(row)
    print(table(rows))
    if args.out:
        write_json(args.out, {"duration_s": args.duration_s, "num_threads": 1, "systems": rows})
    if args.memory_hours > 0:
        name, path = list(models.items())[-1]
        for hours, megabytes in memory(_with_thresholds(load_model(path)), args.memory_hours):
            print(f"{name}: after {hours:g} h of audio {megabytes:.0f} MB")
    return 0


def measure(models: dict[str, Path], duration_s: float, repeats: int) -> list[dict]:
    """Return one row per model."""
    loaded = {name: _with_thresholds(load_model(path)) for name, path in models.items()}
    timed = []
    for name, model in loaded.items():
        hop = round(model.front_end.hop_s * model.front_end.sample_rate_hz)
        for num_frames in (1, 10):
            spotter = KeywordSpotter(model, frames_per_step=num_frames)
            timed.append(Timed(name, spotter, hop * num_frames))
    for _ in range(repeats):
        for detector in timed:
            detector.start()
        for second in range(max(1, round(duration_s))):
            for detector in timed:
                rate = detector.spotter.model.front_end.sample_rate_hz
                # A whole number of both chunks, close to a second.
                num_samples = (
                    rate // (10 * detector.chunk) * 10 * detector.chunk or 10 * detector.chunk
                )
                detector.accept(noise(num_samples, second))
    rows = []
    for by_frame, by_ten in zip(timed[::2], timed[1::2], strict=True):
        model = loaded[by_frame.name]
        rate = model.front_end.sample_rate_hz
        factors = [min(d.cpu_s) / (len(d.repeats[0]) * d.chunk / rate) for d in (by_frame, by_ten)]
        rows.append(
            {
                "name": by_frame.name,
                "file": str(models[by_frame.name]),
                "file_bytes": models[by_frame.name].stat().st_size,
                **network_cost(model),
                "real_time_factor": round(factors[0], 6),
                "real_time_factor_10_frames": round(factors[1], 6),
                "chunk_ms": by_frame.chunk_ms(),
            }
        )
    return rows


def network_cost(model: SpotterModel) -> dict:
    """Parameters, MACs per second and bytes of state of a model."""
    network = model.network
    if isinstance(network, OnnxNetwork):
        return {
            "params": network.description.num_parameters,
            "macs_per_second": network.description.macs_per_second,
            "state_bytes": 4 * network.state_size,
        }
    assert isinstance(network, TorchNetwork)
    cost = model_cost(network.model.config, model.front_end)
    return {name: cost[name] for name in ("params", "macs_per_second", "state_bytes")}


def peer_row(name: str, env_dir: Path, duration_s: float, keywords: list[str]) -> dict | None:
    """Return the row of a wake-word engine; None if it is not installed."""
    settings: dict = {"keywords": keywords}
    if name == "porcupine":
        settings["sensitivities"] = [0.5]
    audio = (noise(round(16000 * duration_s), 0) * 32767).astype(np.int16)
    try:
        with Worker(env_dir / name / "bin" / "python", name, settings) as worker:
            cpu_s = min(worker.detect(audio)[1] for _ in range(3))
            ready = worker.ready
    except EngineError as error:
        print(
            f"{name} is left out, benchmarks/peers.py --env_dir {env_dir} installs it: {error}",
            file=sys.stderr,
        )
        return None
    return {
        "name": f"{name} {ready['version']} ({', '.join(ready['keywords'])})",
        "real_time_factor": round(cpu_s / duration_s, 6),
    }


def memory(model: SpotterModel, hours: float) -> list[tuple[float, float]]:
    """Return hours of audio so far and the largest memory of the process in MB, four times."""
    spotter = KeywordSpotter(model, frames_per_step=10)
    rate = model.front_end.sample_rate_hz
    audio, rows = noise(60 * rate, 0), []
    for quarter in range(1, 5):
        for _ in range(max(1, round(15 * hours))):
            spotter.accept(audio)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        rows.append((quarter * hours / 4, megabytes))
    return rows


def noise(num_samples: int, seed: int) -> np.ndarray:
    """Return noise whose level changes, (N,) float32."""
    rng = np.random.default_rng(seed)
    level = 0.1 * (1 + np.sin(np.arange(num_samples) / 2000))
    return (level * rng.standard_normal(num_samples)).astype(np.float32).clip(-1, 1)


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| detector | parameters | MACs per second | file | state | real-time factor, 1 frame "
        "| 10 frames | chunk p50, ms | p95 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    columns: list[tuple[str, Callable[[float], str]]] = [
        ("params", "{:,}".format),
        ("macs_per_second", lambda value: f"{value / 1e6:.2f} M"),
        ("file_bytes", lambda value: f"{value / 1000:,.0f} kB"),
        ("state_bytes", lambda value: f"{value / 1000:,.1f} kB"),
        ("real_time_factor", "{:.5f}".format),
        ("real_time_factor_10_frames", "{:.5f}".format),
    ]
    for row in rows:
        cells = [row["name"]]
        cells += [show(row[key]) if row.get(key) is not None else "" for key, show in columns]
        cells += [
            f"{row['chunk_ms'][q]:.3f}" if "chunk_ms" in row else "" for q in ("p50", "p95", "p99")
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_thresholds(model: SpotterModel) -> SpotterModel:
    """Return a model in which keywords without a threshold have one."""
    missing = {keyword.text: 0.5 for keyword in model.keywords if keyword.threshold is None}
    return model.with_thresholds(missing)


def _named(item: str) -> tuple[str, Path]:
    name, _, path = item.rpartition("=")
    if not Path(path).is_file():
        raise ConfigError(f"--models {item}: {path}: no such file; expected NAME=FILE")
    return name or Path(path).name, Path(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--models", nargs="+", required=True, metavar="NAME=FILE",
        help="checkpoints (.pt) and exported models (.onnx)",
    )  # fmt: skip
    add("--duration_s", type=float, default=60.0, help="audio per repeat, in seconds [%(default)s]")
    add("--repeats", type=int, default=3, help="repeats [%(default)s]")
    add(
        "--peer_keywords",
        default=WORDS,
        help="keywords of Porcupine and openWakeWord [%(default)s]",
    )
    add(
        "--env_dir", type=Path, default=Path("exp/peers_env"),
        help="folder of the environments that benchmarks/peers.py makes [%(default)s]",
    )  # fmt: skip
    add("--no_peers", action="store_true", help="do not measure Porcupine and openWakeWord")
    add("--memory_hours", type=float, default=0.0, help="hours to stream for memory [%(default)s]")
    add("--out", type=Path, help="JSON to write")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
