"""Binding to espeak-ng, used by the synthesis tool alone and only inside worker processes.

espeak-ng (GPL-3) keeps global state from one utterance to the next (flutter, aspiration), so that
the same text sounds slightly different after another text. A fresh process per chunk of utterances
keeps the bytes the same whatever the number of workers.
"""

import ctypes

import numpy as np

from wekws.errors import DataError

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS; AUDIO_OUTPUT_RETRIEVAL costs 20 ms per call
PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
CHARS_UTF8 = 1
POSITION_CHARACTER = 1
IPA = 2  # phoneme mode of espeak_TextToPhonemes
MISSING = "espeak-ng is not installed; the synthesised corpus needs it: pip install -e .[synth]"

SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def library_paths() -> tuple[str, str]:
    """Paths of the espeak-ng library and of its data.

    Raises: DataError that names the extra to install when espeakng-loader is missing.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError(MISSING) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


class Espeak:
    """Speech synthesiser; only one per process, because the library's state is global."""

    def __init__(self) -> None:
        """Load the library and its data."""
        library_path, data_path = library_paths()
        self._library = ctypes.CDLL(library_path)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.sample_rate_hz: int = self._library.espeak_Initialize(
            SYNCHRONOUS, 0, data_path.encode(), 0
        )
        if self.sample_rate_hz <= 0:
            raise DataError(f"{data_path}: espeak-ng found no voice data here")
        self._chunks: list[np.ndarray] = []
        self._callback = SynthCallback(self._collect)  # kept here: ctypes does not own it
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(
        self, samples: "ctypes._Pointer[ctypes.c_short]", num_samples: int, events: int | None
    ) -> int:
        """Copy one block of samples; the library calls this."""
        if samples and num_samples > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        return 0

    def set_voice(self, voice: str) -> None:
        """Set a voice such as `cmn+f3` (language + variant)."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise DataError(f"espeak-ng has no voice '{voice}'")

    def synthesise(
        self, text: str, *, rate: int, pitch: int, pitch_range: int, seed: int
    ) -> np.ndarray:
        """Synthesise a text.

        rate: words per minute, 80 to 450. pitch, pitch_range: 0 to 99; 50 is the voice's default.
        seed: 32 bits, for the breath noise that some voices have.
        Returns: (N,) int16 at `sample_rate_hz`.
        """
        for name, value in (("rate", rate), ("pitch", pitch), ("range", pitch_range)):
            self._library.espeak_SetParameter(PARAMETERS[name], value, 0)
        self._seed_noise(seed)
        self._chunks = []
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None
        )
        if status != 0 or not self._chunks:
            raise DataError(f"espeak-ng returned no samples for '{text}' (status {status})")
        return np.concatenate(self._chunks)

    def _seed_noise(self, seed: int) -> None:
        """Seed the breath noise, which espeak-ng itself seeds with the time of day.

        Newer versions have a generator of their own beside the C library's.
        """
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))
        if hasattr(self._library, "espeak_ng_SetRandSeed"):
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))

    def phonemes(self, text: str, mode: int = 0) -> str:
        """Phonemes of a text, with a space between clauses.

        mode: 0 for espeak-ng's ASCII names, IPA for the International Phonetic Alphabet.
        """
        position = ctypes.c_char_p(text.encode())
        clauses = []
        while position.value:
            clause = self._library.espeak_TextToPhonemes(ctypes.byref(position), CHARS_UTF8, mode)
            clauses.append((clause or b"").decode())
        return " ".join(clauses)


def phonemes_of(language: str, texts: list[str]) -> list[str]:
    """Phonemes of several texts; to be called in a process of its own."""
    espeak = Espeak()
    espeak.set_voice(language)
    return [espeak.phonemes(text) for text in texts]


def ipa_of(language: str, texts: list[str]) -> list[str]:
    """IPA of several texts; to be called in a process of its own."""
    espeak = Espeak()
    espeak.set_voice(language)
    return [espeak.phonemes(text, IPA) for text in texts]
