"""Wake-word engines that people use, as one process that reads audio and writes events.

benchmarks/peers.py starts this file with the Python of an environment in which the engine is
installed; it needs nothing else. It also reports the CPU time per recording, from which peers.py
computes the ratio of CPU time to audio.

Messages are lines of JSON. First this process writes {"version", "keywords", "missing",
"default_threshold", "default_label"}: the engine's version, the keywords that it can detect, the
reason for each other one, and the operating point that the engine has out of the box. Then, for
each line {"num_samples"} on standard input, followed by so many 16-bit samples at 16 kHz, it
writes {"events": [[keyword number, confidence, time of the end in s], ...], "cpu_s"}. Every
recording starts from a fresh state. A confidence lies in [0, 1].
"""

import argparse
import array
import importlib.metadata
import json
import os
import sys
import time
from typing import Any

SAMPLE_RATE_HZ = 16000

Event = tuple[int, float, float]
"""Number of the keyword, confidence, time of its end in seconds."""


class Porcupine:
    """Porcupine with its built-in keywords.

    It has a sensitivity but no score. The confidence of an event is 1 minus the lowest sensitivity
    at which it is detected, so that a threshold of 0.4 is a sensitivity of 0.6. A lower
    sensitivity detects a part of what a higher one does: they are tried from the highest to the
    first that detects nothing. CPU time is that of the highest one.

    The library leaves the keyword files open each time a detector is made. So there is one per
    sensitivity, and a second of silence before each recording clears its state.
    """

    package = "pvporcupine"
    default_threshold, default_label = 0.5, "sensitivity 0.5"

    def __init__(self, keywords: list[str], sensitivities: list[float]) -> None:
        import pvporcupine

        built_in = set(pvporcupine.KEYWORDS)
        self.keywords = [word for word in keywords if word.lower() in built_in]
        self.missing = {
            word: "not a built-in keyword" for word in keywords if word.lower() not in built_in
        }
        names = [word.lower() for word in self.keywords]
        self._detectors = {
            sensitivity: pvporcupine.create(
                keywords=names, sensitivities=[sensitivity] * len(names)
            )
            for sensitivity in (sorted(sensitivities, reverse=True) if names else ())
        }

    def detect(self, samples: array.array) -> tuple[list[Event], float]:
        events: list[Event] = []
        first_cpu_s = None
        for sensitivity, detector in self._detectors.items():
            self._run(detector, array.array("h", bytes(2 * SAMPLE_RATE_HZ)))
            began = time.process_time()
            found = self._run(detector, samples)
            first_cpu_s = first_cpu_s or time.process_time() - began
            events += [(k, round(1 - sensitivity, 6), end_s) for k, end_s in found]
            if not found:
                break
        return events, first_cpu_s or 0.0

    def _run(self, detector: Any, samples: array.array) -> list[tuple[int, float]]:
        size = detector.frame_length
        found = []
        for start in range(0, len(samples) - size + 1, size):
            keyword = detector.process(samples[start : start + size])
            if keyword >= 0:
                found.append((keyword, (start + size) / SAMPLE_RATE_HZ))
        return found


ENGINES: dict[str, Any] = {"porcupine": Porcupine}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), required=True, help="engine to run")
    parser.add_argument(
        "--settings", required=True, help='JSON: {"keywords": [...], and what the engine takes}'
    )
    args = parser.parse_args()
    # Engines print to standard output: the messages go to a copy of it, everything else to errors.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        engine = ENGINES[args.engine](**json.loads(args.settings))
    except ImportError as error:
        print(f"{args.engine} cannot be imported: {error}", file=sys.stderr)
        return 2
    ready = {
        "version": importlib.metadata.version(engine.package),
        "keywords": engine.keywords,
        "missing": engine.missing,
        "default_threshold": engine.default_threshold,
        "default_label": engine.default_label,
    }
    print(json.dumps(ready), file=messages, flush=True)
    while line := sys.stdin.buffer.readline():
        samples = array.array("h")
        samples.frombytes(sys.stdin.buffer.read(2 * json.loads(line)["num_samples"]))
        events, cpu_s = engine.detect(samples)
        print(json.dumps({"events": events, "cpu_s": cpu_s}), file=messages, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
