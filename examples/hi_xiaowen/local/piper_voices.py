"""Voices of Piper: VITS networks in ONNX, one file per voice or per set of speakers.

The network takes phonemes as espeak-ng writes them and three scales (Kim et al. 2021, VITS). It is
run by onnxruntime alone, on one thread, so that the same seed gives the same samples.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from espeak import IPA, Espeak
from onnx_session import open_session
from voices import PitchShifter, split_speakers

from wekws.errors import DataError

LANGUAGES = {"en": ("en",), "zh": ("cmn", "zh")}  # beginnings of espeak-ng's names
NOISE_SCALE = (0.4, 0.9)  # variation of the voice's sound
NOISE_W = (0.4, 1.1)  # variation of the durations of phonemes
LENGTH_SCALE = {"sentence": (0.75, 1.2), "short": (0.8, 1.5)}  # relative to the voice's own
START, END, PAD = "^", "$", "_"
SWITCH = re.compile(r"\([a-z-]+\)")  # change of language in the middle of a text
PUNCTUATION = {"，": ",", "。": ".", "？": "?", "！": "!", "、": ","} | {c: c for c in ",.?!;:"}


class PiperSource:
    """One Piper model and its speakers."""

    def __init__(self, model_path: Path) -> None:
        """Read the description beside the model.

        Raises: DataError if it is missing, damaged or of a kind that needs another front end.
        """
        config_path = model_path.with_name(model_path.name + ".json")
        try:
            self._config = json.loads(config_path.read_text(encoding="utf-8"))
            self.espeak_voice: str = self._config["espeak"]["voice"]
            self._phoneme_type = self._config.get("phoneme_type", "espeak")
            num_speakers = int(self._config.get("num_speakers", 1))
            names = self._config.get("speaker_id_map") or {}
            self._speaker_ids = {str(name): int(number) for name, number in names.items()}
            self._is_many = num_speakers > 1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{config_path}: {type(error).__name__}: {error}; expected the description of a "
                "Piper voice, with espeak.voice and phoneme_id_map"
            ) from error
        if self._phoneme_type != "espeak":
            raise DataError(
                f"{config_path}: phoneme_type '{self._phoneme_type}'; expected a voice with "
                "espeak phonemes"
            )
        if not self._speaker_ids:
            self._speaker_ids = {str(number): number for number in range(num_speakers)}
        self.name = f"piper/{model_path.stem}"
        self.files: Sequence[Path] = (model_path, config_path)

    def speakers(self, split: str) -> list[str]:
        """All speakers of the model, shared out among the splits."""
        return [f"{self.name}/{s}" for s in split_speakers(list(self._speaker_ids), split)]

    def open(self, seed: Sequence[int]) -> "PiperEngine":
        """Load the network; the seed decides its noise."""
        session = open_session(self.files[0], seed)
        return PiperEngine(session, self._config, self._speaker_ids if self._is_many else None)


class PiperEngine:
    """A Piper network that is loaded."""

    def __init__(
        self, session: Any, config: Mapping[str, Any], speaker_ids: Mapping[str, int] | None
    ) -> None:
        """Keep the network and load espeak-ng.

        session: onnxruntime's. config: the voice's description. speaker_ids: None for one speaker.
        """
        self._session = session
        self._ids: Mapping[str, list[int]] = config["phoneme_id_map"]
        self._scale = float(config.get("inference", {}).get("length_scale", 1.0))
        self._speaker_ids = speaker_ids
        self._espeak = Espeak()
        self._espeak.set_voice(config["espeak"]["voice"])
        self._shift = PitchShifter(int(config["audio"]["sample_rate"]))

    def speak(self, text: str, speaker: str, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Synthesise a text, see voices.Engine."""
        ids = phoneme_ids(phonemes_with_marks(text, self._espeak), self._ids)
        length = rng.uniform(*LENGTH_SCALE.get(kind, LENGTH_SCALE["short"])) * self._scale
        scales = [rng.uniform(*NOISE_SCALE), length, rng.uniform(*NOISE_W)]
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array(scales, np.float32),
        }
        if self._speaker_ids is not None:
            number = self._speaker_ids[speaker.rpartition("/")[2]]
            inputs["sid"] = np.array([number], np.int64)
        samples = self._session.run(None, inputs)[0].ravel()
        return self._shift(np.asarray(samples, np.float32), rng)


def phonemes_with_marks(text: str, espeak: Espeak) -> str:
    """IPA of a text, with its punctuation, which both Piper and Kokoro were trained with."""
    parts = re.split(f"([{re.escape(''.join(PUNCTUATION))}])", text)
    made = ""
    for part in parts:
        if part in PUNCTUATION:
            made = made.rstrip() + PUNCTUATION[part] + " "
        elif part.strip():
            made += SWITCH.sub("", espeak.phonemes(part.strip(), IPA))
    return made.strip()


def phoneme_ids(phonemes: str, ids: Mapping[str, Sequence[int]]) -> list[int]:
    """Numbers of the phonemes, with padding after each, as in Piper.

    Phonemes that the voice has no number for are left out.
    Raises: DataError if none is left.
    """
    known = [symbol for symbol in unicodedata.normalize("NFD", phonemes) if symbol in ids]
    if not known:
        raise DataError(f"Piper's voice knows none of the phonemes '{phonemes}'")
    spelt: Iterator[int] = (i for symbol in known for i in (*ids[symbol], *ids[PAD]))
    return [*ids[START], *ids[PAD], *spelt, *ids[END]]


def find_piper(folders: Sequence[Path], language: str) -> list[PiperSource]:
    """Piper's voices of one language, by name."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.onnx"))]
    described = (path for path in paths if path.with_name(path.name + ".json").is_file())
    sources = [PiperSource(path) for path in described]
    return [s for s in sources if s.espeak_voice.startswith(LANGUAGES[language])]
