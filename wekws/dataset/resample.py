"""Change of the sample rate, of whole recordings and of streams, without torch.

The filter is that of `torchaudio.transforms.Resample` with its defaults: a windowed sinc of 6 zero
crossings on each side, cut off at 0.99 of the lower Nyquist frequency (Smith, "Digital audio
resampling", https://ccrma.stanford.edu/~jos/resample/).
"""

import functools
import math

import numpy as np

_ZERO_CROSSINGS = 6
_ROLL_OFF = 0.99
_PIECE_VALUES = 1 << 20  # of the filter's windows, computed at a time


class Resampler:
    """Resamples one stream; results do not depend on how its samples are cut into pieces.

    source_rate_hz, target_rate_hz: see `wekws.dataset.audio.unsupported_rate` for the limits.
    """

    def __init__(self, source_rate_hz: int, target_rate_hz: int) -> None:
        """Start before the first sample."""
        divisor = math.gcd(source_rate_hz, target_rate_hz)
        self._source, self._target = source_rate_hz // divisor, target_rate_hz // divisor
        self._filter, self._width = _filter(self._source, self._target)
        self.reset()

    def reset(self) -> None:
        """Go back to before the first sample."""
        self._waiting = np.zeros(self._width, np.float32)
        self._num_in = self._num_out = 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples, (N,) float32, and return those at the target rate so far."""
        if self._source == self._target:
            return samples
        self._num_in += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        resampled = self._ready()
        self._num_out += len(resampled)
        return resampled

    def flush(self) -> np.ndarray:
        """Return the last samples, and `reset`. N samples give ceil(N * target / source) in all."""
        if self._source == self._target:
            return np.zeros(0, np.float32)
        num_left = -(-self._num_in * self._target // self._source) - self._num_out
        self._waiting = np.pad(self._waiting, (0, self._width + self._source))
        resampled = self._ready()[:num_left]
        self.reset()
        return resampled

    def _ready(self) -> np.ndarray:
        """Return the samples whose windows are complete."""
        size = len(self._filter)
        windows_at_a_time = max(1, _PIECE_VALUES // size)
        pieces = [np.zeros(0, np.float32)]
        begin = 0
        while (
            num := min((len(self._waiting) - begin - size) // self._source + 1, windows_at_a_time)
        ) > 0:
            part = self._waiting[begin:]
            windows = np.lib.stride_tricks.as_strided(
                part, (num, size), (part.itemsize * self._source, part.itemsize), writeable=False
            )
            pieces.append((windows @ self._filter).ravel())
            begin += num * self._source
        self._waiting = self._waiting[begin:].copy()
        return np.concatenate(pieces)


@functools.lru_cache(maxsize=16)
def _filter(source: int, target: int) -> tuple[np.ndarray, int]:
    """Return the filter, (window, target) float32, and the samples before its centre.

    Row by row it turns a window of the source into ``target`` samples; the next window begins
    ``source`` samples later. Cached: computing it costs as much as applying it.
    """
    cut_off = min(source, target) * _ROLL_OFF
    width = math.ceil(_ZERO_CROSSINGS * source / cut_off)
    place = np.arange(-width, width + source)[:, None] / source
    phases = np.arange(target, dtype=np.float32) / np.float32(target)  # rounded as in torchaudio
    time = (place - phases.astype(np.float64)) * cut_off
    np.clip(time, -_ZERO_CROSSINGS, _ZERO_CROSSINGS, out=time)
    window = np.cos(time * np.pi / _ZERO_CROSSINGS / 2) ** 2
    return (np.sinc(time) * window * (cut_off / source)).astype(np.float32), width
