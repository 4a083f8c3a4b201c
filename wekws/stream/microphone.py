"""Samples of a microphone, as they are recorded."""

import queue
from collections.abc import Iterator

import numpy as np

from wekws.errors import ConfigError

_PIECE_S = 0.03


def read_microphone(sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Yield the samples of the default microphone, (N,) float32, without end.

    Raises: ConfigError if sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: no PortAudio on this machine
        raise ConfigError(
            f"the microphone needs sounddevice and PortAudio ({error}): pip install sounddevice"
        ) from None
    pieces: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    try:
        recording = sounddevice.InputStream(
            samplerate=sample_rate_hz,
            channels=1,
            dtype="float32",
            blocksize=round(_PIECE_S * sample_rate_hz),
            callback=lambda data, *_: pieces.put(data[:, 0].copy()),
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(
            f"no microphone that records at {sample_rate_hz} Hz ({error}); use a file, or a pipe "
            "with - as input"
        ) from None
    with recording:
        while True:
            yield pieces.get()
