"""Voices of Kokoro-82M: one network in ONNX; a voice is a table of style vectors.

Style vectors can be blended into further voices. The network takes IPA as its training had it:
American English with one letter per diphthong, Mandarin with arrows for tones.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pypinyin
from espeak import Espeak
from onnx_session import open_session
from phonetics import syllable_ipa
from piper_voices import PUNCTUATION, phonemes_with_marks
from voices import PitchShifter, split_speakers

from wekws.errors import DataError

SAMPLE_RATE_HZ = 24000
SPEED = {"sentence": (0.85, 1.35), "short": (0.65, 1.2)}
BLEND = (0.25, 0.75)  # weight of the first of two styles
MAX_TOKENS = 500
# espeak-ng's American IPA in the network's alphabet, in this order.
ENGLISH = {
    **{"eɪ": "A", "aɪ": "I", "aʊ": "W", "oʊ": "O", "ɔɪ": "Y", "tʃ": "ʧ", "dʒ": "ʤ"},
    **{"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɚ": "əɹ", "ɾ": "T", "ɐ": "ə", "ː": "", "r": "ɹ", "x": "k"},
    **{"ɬ": "l", "ʔ": "t", "o": "ɔ"},
}
TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}


class KokoroSource:
    """A Kokoro network with its style vectors; a voice is one style, or two to be blended."""

    name = "kokoro"

    def __init__(
        self, model_path: Path, styles_path: Path, vocab_path: Path, language: str
    ) -> None:
        """Read the names of the styles.

        styles_path: see ``read_styles``.
        Raises: DataError for files that are no styles or no vocabulary.
        """
        self.files: Sequence[Path] = (model_path, *style_files(styles_path), vocab_path)
        self._styles_path = styles_path
        self._language = language
        self._vocab = read_vocab(vocab_path)
        self._styles = sorted(read_styles(styles_path))

    def speakers(self, split: str) -> list[str]:
        """Styles of a split, alone and in pairs."""
        styles = split_speakers(self._styles, split)
        return [*styles, *("+".join(pair) for pair in itertools.combinations(styles, 2))]

    def open(self, seed: Sequence[int]) -> "KokoroEngine":
        """Load the network."""
        session = open_session(self.files[0], seed)
        return KokoroEngine(session, read_styles(self._styles_path), self._vocab, self._language)


class KokoroEngine:
    """A Kokoro network that is loaded."""

    def __init__(
        self,
        session: Any,
        styles: Mapping[str, np.ndarray],
        vocab: Mapping[str, int],
        language: str,
    ) -> None:
        """Keep network and styles, and load espeak-ng.

        session: onnxruntime's. styles: (lengths, 1, 256) by name. vocab: number of each symbol.
        """
        self._session = session
        self._styles = styles
        self._vocab = vocab
        self._language = language
        self._espeak = Espeak()
        self._espeak.set_voice("en-us")
        self._shift = PitchShifter(SAMPLE_RATE_HZ)
        inputs = {entry.name: entry.type for entry in session.get_inputs()}
        self._tokens_name = "tokens" if "tokens" in inputs else "input_ids"
        self._speed_type = np.int32 if "int" in inputs["speed"] else np.float32

    def speak(self, text: str, speaker: str, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Synthesise a text, see voices.Engine."""
        symbols = self._symbols(text)
        tokens = [self._vocab[s] for s in symbols if s in self._vocab][:MAX_TOKENS]
        if not tokens:
            raise DataError(f"Kokoro knows none of the phonemes '{symbols}' of '{text}'")
        speed = rng.uniform(*SPEED.get(kind, SPEED["short"]))
        inputs = {
            self._tokens_name: np.array([[0, *tokens, 0]], np.int64),
            "style": self._style(speaker, len(tokens), rng.uniform(*BLEND)),
            "speed": np.array([speed]).astype(self._speed_type),
        }
        samples = self._session.run(None, inputs)[0].ravel()
        return self._shift(np.asarray(samples, np.float32), rng)

    def _symbols(self, text: str) -> str:
        if self._language == "zh":
            return mandarin_symbols(text)
        return english_symbols(phonemes_with_marks(text, self._espeak))

    def _style(self, speaker: str, num_tokens: int, weight: float) -> np.ndarray:
        """Style vector (1, 256) for texts of this length; of two, their weighted mean."""
        first, *rest = (self._styles[name] for name in speaker.split("+"))
        blended = weight * first + (1 - weight) * rest[0] if rest else first
        row = blended[min(num_tokens, len(blended)) - 1]
        return row.reshape(1, -1).astype(np.float32)


def english_symbols(ipa: str) -> str:
    """Kokoro's symbols of espeak-ng's American IPA: `hˈeɪ` -> hˈA."""
    for written, symbol in ENGLISH.items():
        ipa = ipa.replace(written, symbol)
    return ipa


def mandarin_symbols(text: str) -> str:
    """Kokoro's symbols of a Mandarin text: 小问 -> ɕjau↓wən↘."""
    made = ""
    for piece in pypinyin.lazy_pinyin(text, style=pypinyin.Style.TONE3):
        if piece[0] in PUNCTUATION:
            made += PUNCTUATION[piece[0]] + " "
        elif piece.isascii() and piece.isalnum():
            ipa, tone = syllable_ipa(piece)
            made += ipa.replace("ʐ", "ɻ") + TONES[tone]
    return made.strip()


def style_files(path: Path) -> list[Path]:
    """The file itself, or the `.bin` files of a folder."""
    return sorted(path.glob("*.bin")) if path.is_dir() else [path]


def read_styles(path: Path) -> dict[str, np.ndarray]:
    """Style vectors by name, (lengths, 1, 256) float32 each.

    path: an .npz (also called .bin) with all of them, as for `kokoro-onnx`; or a folder with one
        file of plain float32 per style (`af_heart.bin`), as in `kokoro-js`.
    Raises: DataError if the files hold something else.
    """
    if path.is_dir():
        return {file.stem: _read_plain_style(file) for file in style_files(path)}
    try:
        with np.load(path) as arrays:
            styles = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: {error}; expected Kokoro's style vectors (.npz)") from error
    wrong = [name for name, style in styles.items() if style.ndim != 3 or style.shape[2] != 256]
    if wrong or not styles:
        raise DataError(f"{path}: expected arrays of shape (lengths, 1, 256); found {wrong}")
    return styles


def _read_plain_style(file: Path) -> np.ndarray:
    values = np.fromfile(file, "<f4")
    if not len(values) or file.stat().st_size % (256 * 4) or not np.isfinite(values).all():
        raise DataError(
            f"{file}: {file.stat().st_size} bytes; expected a style of Kokoro: rows of 256 finite "
            "float32 values"
        )
    return values.reshape(-1, 1, 256)


def read_vocab(path: Path) -> dict[str, int]:
    """Number of each symbol, the entry `vocab` of a JSON file.

    Raises: DataError if there is none.
    """
    try:
        vocab = json.loads(path.read_text(encoding="utf-8"))["vocab"]
        return {str(symbol): int(number) for symbol, number in vocab.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error}; expected JSON with `vocab`: symbol -> number") from error


def find_kokoro(folders: Sequence[Path], language: str) -> list[KokoroSource]:
    """The first Kokoro network of the folders, if there is one.

    Raises: DataError for a network without style vectors or vocabulary beside it.
    """
    for folder in folders:
        for model in sorted(folder.rglob("kokoro*.onnx")):
            styles = [
                p
                for p in sorted(model.parent.glob("voices*"))
                if p.suffix in (".npz", ".bin") or (p.is_dir() and style_files(p))
            ]
            vocabs = [
                p for n in ("vocab.json", "config.json") if (p := model.with_name(n)).is_file()
            ]
            if not styles or not vocabs:
                raise DataError(
                    f"{model}: expected voices*.npz (or .bin, or a folder voices/ of .bin files) "
                    "and vocab.json (or config.json) beside it"
                )
            return [KokoroSource(model, styles[0], vocabs[0], language)]
    return []
