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
import copy
import importlib.metadata
import json
import math
import os
import sys
import tempfile
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


class OpenWakeWord:
    """openWakeWord with the models in its wheel; an event is a peak of a model's score."""

    package = "openwakeword"
    default_threshold, default_label = 0.5, "threshold 0.5"
    chunk = 1280  # samples per prediction

    def __init__(self, keywords: list[str]) -> None:
        import openwakeword
        import openwakeword.model

        paths = {
            name.replace("_", " "): model["model_path"]
            for name, model in openwakeword.models.items()
            if name not in ("timer", "weather")  # many phrases each, not a keyword
        }
        self.keywords = [word for word in keywords if word.lower() in paths]
        self.missing = {
            word: "no model in the wheel" for word in keywords if word.lower() not in paths
        }
        if not self.keywords:
            return
        used = [paths[word.lower()] for word in self.keywords]
        self._model = openwakeword.model.Model(wakeword_model_paths=used)
        self._names = list(self._model.models)
        self._start = {
            name: copy.copy(getattr(self._model.preprocessor, name))
            for name in (
                "raw_data_buffer", "melspectrogram_buffer", "accumulated_samples", "feature_buffer"
            )
        }  # fmt: skip

    def detect(self, samples: array.array) -> tuple[list[Event], float]:
        import numpy as np

        self._model.reset()  # forgets the scores only, not the audio
        for name, value in self._start.items():
            setattr(self._model.preprocessor, name, copy.copy(value))
        audio = np.array(samples, dtype=np.int16)
        curves = []
        began = time.process_time()
        for start in range(0, len(audio) - self.chunk + 1, self.chunk):
            scores = self._model.predict(audio[start : start + self.chunk])
            curves.append([float(scores[name]) for name in self._names])
        cpu_s = time.process_time() - began
        return self._peaks(curves), cpu_s

    def _peaks(self, curves: list[list[float]]) -> list[Event]:
        events = []
        for k in range(len(self._names)):
            curve = [0.0, *(scores[k] for scores in curves), 0.0]
            for t in range(1, len(curve) - 1):
                if curve[t - 1] < curve[t] >= curve[t + 1] and curve[t] >= 1e-4:
                    events.append((k, min(curve[t], 1.0), t * self.chunk / SAMPLE_RATE_HZ))
        return events


class PocketSphinx:
    """Keyphrase spotting of PocketSphinx with its English model, for any words of its dictionary.

    A word that the dictionary lacks is said as two words that it has (snow, boy), if there are
    such. The confidence runs from 0 at a score of 1e-50, the threshold in use, to 1 at 1e50.
    """

    package = "pocketsphinx"
    default_threshold, default_label = 0.2, "kws_threshold 1e-30"
    least_log10 = -50

    def __init__(self, keywords: list[str]) -> None:
        import pocketsphinx

        self._decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
        self.missing = {}
        for keyword in keywords:
            unknown = [word for word in keyword.lower().split() if not self._add_word(word)]
            if unknown:
                self.missing[keyword] = f"{unknown[0]} is not in the dictionary"
        self.keywords = [word for word in keywords if word not in self.missing]
        if not self.keywords:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".kws") as stream:
            stream.writelines(f"{word.lower()} /1e{self.least_log10}/\n" for word in self.keywords)
            stream.flush()
            self._decoder.add_kws("keywords", stream.name)
        self._decoder.activate_search("keywords")
        self._cepstral_mean = self._decoder.get_cmn()

    def _add_word(self, word: str) -> bool:
        phones = self._decoder.lookup_word
        if phones(word):
            return True
        splits = sorted(range(2, len(word) - 1), key=lambda i: abs(2 * i - len(word)))
        for i in splits:
            if phones(word[:i]) and phones(word[i:]):
                self._decoder.add_word(word, f"{phones(word[:i])} {phones(word[i:])}", True)
                return True
        return False

    def detect(self, samples: array.array) -> tuple[list[Event], float]:
        numbers = {word.lower(): k for k, word in enumerate(self.keywords)}
        decoder = self._decoder
        decoder.set_cmn(self._cepstral_mean)
        began = time.process_time()
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), False, False)
        decoder.end_utt()
        found = list(decoder.seg()) if decoder.hyp() else []
        cpu_s = time.process_time() - began
        events = [
            (numbers[part.word.strip()], self._confidence(part.prob), (part.end_frame + 1) / 100)
            for part in found
        ]
        return events, cpu_s

    def _confidence(self, probability: float) -> float:
        """Undo the scaling of kws_search.c: log(p) / 1024 - 1500, in units of log(1.0001)."""
        log10 = (math.log(probability) / math.log(1.0001) + 1500) * 1024 * math.log10(1.0001)
        return min(max((log10 - self.least_log10) / (-2 * self.least_log10), 0.0), 1.0)


ENGINES: dict[str, Any] = {
    "porcupine": Porcupine,
    "openwakeword": OpenWakeWord,
    "pocketsphinx": PocketSphinx,
}


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
