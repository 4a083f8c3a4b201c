"""Sources of voices behind one interface: espeak-ng, Piper, Kokoro.

A source is described in the main process and opened in a process of its own, by one chunk of
utterances: what the chunk contains decides its bytes, not the number of processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import acoustics
import numpy as np
from compose import choose
from corpus_plan import read_voices
from espeak import Espeak

MIN_SPEAKERS_TO_SPLIT = 10  # a source with fewer gives all of them to train
EVAL_EVERY = 5  # of a source that is split, every fifth voice is for dev or test
RATE_WPM = {"sentence": (170, 270), "short": (115, 220)}  # keywords are slower than sentences
PITCH = (25, 78)
PITCH_RANGE = (25, 80)
PITCH_SHIFTS = (0.88, 0.91, 0.94, 0.97, 1.0, 1.03, 1.06, 1.09, 1.12)  # of neural voices


class Engine(Protocol):
    """A synthesiser that is loaded."""

    def speak(self, text: str, speaker: str, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Synthesise a text with random speed and pitch.

        kind: `sentence` for fluent speech, anything else for slower speech.
        Returns: (N,) float32 at 16 kHz, of any level, with silence at the ends.
        """


class VoiceSource(Protocol):
    """An engine with the voices that it has: what the workers need to open it."""

    name: str
    """Name in the plan, such as `espeak` or `piper/en_US-joe-medium`."""
    files: Sequence[Path]
    """Files that hold the voices."""

    def speakers(self, split: str) -> list[str]:
        """Voices for one split; no voice is in two."""

    def open(self, seed: Sequence[int]) -> Engine:
        """Load the engine; to be called in a process of its own."""


class EspeakEngine:
    """espeak-ng."""

    def __init__(self, accents: Sequence[str]) -> None:
        """Load the library.

        accents: espeak-ng voices of the language, one of which is drawn for each text.
        """
        self._accents = accents
        self._espeak = Espeak()
        self._resample = acoustics.Resampler(self._espeak.sample_rate_hz, acoustics.SAMPLE_RATE_HZ)

    def speak(self, text: str, speaker: str, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Synthesise with a voice variant, see Engine."""
        return self.speak_as(f"{choose(rng, self._accents)}+{speaker}", text, kind, rng)

    def speak_as(self, voice: str, text: str, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Synthesise with a voice such as `en-us+f3` and random rate, pitch and intonation."""
        self._espeak.set_voice(voice)
        samples = self._espeak.synthesise(
            text,
            rate=int(rng.integers(*RATE_WPM.get(kind, RATE_WPM["short"]))),
            pitch=int(rng.integers(*PITCH)),
            pitch_range=int(rng.integers(*PITCH_RANGE)),
            seed=int(rng.integers(2**31)),
        )
        return self._resample(samples.astype(np.float32) / 32768)


class EspeakSource:
    """The voice variants of words/voices.tsv."""

    name = "espeak"
    files: Sequence[Path] = ()

    def __init__(self, accents: Sequence[str]) -> None:
        """Keep the espeak-ng voices of the language."""
        self.accents = accents

    def speakers(self, split: str) -> list[str]:
        """Variants of one split."""
        return read_voices()[split]

    def open(self, seed: Sequence[int]) -> EspeakEngine:
        """Load the library; it is seeded for each utterance."""
        return EspeakEngine(self.accents)


class PitchShifter:
    """Resampling to 16 kHz that changes the pitch, and with it the speed, by a random factor."""

    def __init__(self, sample_rate_hz: int) -> None:
        """Resample from this rate."""
        self._rates_hz = [round(sample_rate_hz * factor / 50) * 50 for factor in PITCH_SHIFTS]
        self._resamplers: dict[int, acoustics.Resampler] = {}

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Resample (N,) float32."""
        rate_hz = choose(rng, self._rates_hz)
        if rate_hz not in self._resamplers:
            self._resamplers[rate_hz] = acoustics.Resampler(rate_hz, acoustics.SAMPLE_RATE_HZ)
        return self._resamplers[rate_hz](samples)


def split_speakers(speakers: Sequence[str], split: str) -> list[str]:
    """Share out the voices of a source: all to train if they are few.

    Of many, every fifth goes to dev and test in turn.
    """
    if len(speakers) < MIN_SPEAKERS_TO_SPLIT:
        return list(speakers) if split == "train" else []
    eval_voices = speakers[EVAL_EVERY - 1 :: EVAL_EVERY]
    chosen = {"dev": eval_voices[::2], "test": eval_voices[1::2]}
    held_out = set(eval_voices)
    return list(chosen.get(split, [name for name in speakers if name not in held_out]))
