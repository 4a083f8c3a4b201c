"""From samples to the input frames of a network, on a stream and without torch.

Axes: W samples of a window, T frames, F mel bins, D features of an input frame.

The features are those of scoring: `wekws.dataset.features` (Kaldi's filterbank as torchaudio
computes it, with the expected energy of the dither). Frames are always made in the same groups,
counted from the start of the stream, however the samples arrive: so the chunks of a stream change
no bit of the result.
"""

from collections.abc import Iterator

import numpy as np

from wekws.errors import ConfigError
from wekws.front_end import PREEMPHASIS, FrontEnd

_INT16_SCALE = np.float32(32768.0)
_PREEMPHASIS = np.float32(PREEMPHASIS)
_LOWEST_HZ = 20.0
_EPSILON = np.finfo(np.float32).eps
# Limits of a front end that can be read from a model file.
_MAX_SAMPLE_RATE_HZ = 384_000
_MAX_FRAME_MS = 1000.0
_MAX_MEL_BINS = 1024
_MAX_FRAMES = 1000
_MAX_DITHER = 32768.0


class FilterBank:
    """Log-mel filterbank energies of windows: natural logarithm, Povey window.

    Raises: ConfigError for a front end that gives no frame, or is far from any in use.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        """Compute the window and the mel filters."""
        check_front_end(front_end)
        rate = front_end.sample_rate_hz
        self.window_samples = int(rate * front_end.frame_length_ms * 0.001)
        self.shift_samples = int(rate * front_end.frame_shift_ms * 0.001)
        self._fft_samples = 1 << (self.window_samples - 1).bit_length()
        # Povey's window: a Hann window raised to 0.85.
        angle = 2 * np.pi * np.arange(self.window_samples) / (self.window_samples - 1)
        self._window = ((0.5 - 0.5 * np.cos(angle)) ** 0.85).astype(np.float32)
        self._filters = mel_filters(front_end.num_mel_bins, self._fft_samples, rate)
        dither = front_end.dither_power(self._window, self._fft_samples)
        self._dither_energies = dither[:-1] @ self._filters

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return (T, F) float32 of all whole windows; samples: (N,) float32 in [-1, 1], N >= W."""
        width = self.window_samples
        num_frames = 1 + (len(samples) - width) // self.shift_samples
        (stride,) = samples.strides
        windows = np.lib.stride_tricks.as_strided(
            samples, (num_frames, width), (self.shift_samples * stride, stride), writeable=False
        )
        frames = windows * _INT16_SCALE
        frames -= np.add.reduce(frames, axis=1, keepdims=True) * np.float32(1 / width)
        padded = np.zeros((num_frames, self._fft_samples), np.float32)
        emphasised = padded[:, :width]
        # The first sample of a window is its own predecessor.
        np.multiply(frames[:, :1], -_PREEMPHASIS, out=emphasised[:, :1])
        np.multiply(frames[:, :-1], -_PREEMPHASIS, out=emphasised[:, 1:])
        emphasised += frames
        emphasised *= self._window
        spectrum = np.fft.rfft(padded)[:, :-1]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel = power.astype(np.float32, copy=False) @ self._filters
        mel += self._dither_energies
        return np.log(np.maximum(mel, _EPSILON, out=mel), out=mel)


def check_front_end(front_end: FrontEnd) -> None:
    """Raise ConfigError for a front end that gives no frame, or is far from any in use."""
    limits = {
        "sample_rate_hz": (1000, _MAX_SAMPLE_RATE_HZ),
        "num_mel_bins": (4, _MAX_MEL_BINS),
        "frame_length_ms": (1.0, _MAX_FRAME_MS),
        "frame_shift_ms": (1.0, front_end.frame_length_ms),
        "left_context": (0, _MAX_FRAMES),
        "right_context": (0, _MAX_FRAMES),
        "frame_skip": (1, _MAX_FRAMES),
        "expected_dither": (0.0, _MAX_DITHER),
    }
    for name, (low, high) in limits.items():
        value = getattr(front_end, name)
        if not low <= value <= high:
            raise ConfigError(f"front end: {name} {value}; expected {low:g} to {high:g}")


def mel_filters(num_mel_bins: int, fft_samples: int, sample_rate_hz: int) -> np.ndarray:
    """Return Kaldi's triangular filters, (fft_samples / 2, F) float32, from 20 Hz to half the rate.

    Each step is rounded to float32 as in torchaudio, so that the filters are the same.
    """
    lowest = 1127.0 * np.log(1.0 + _LOWEST_HZ / 700.0)
    highest = 1127.0 * np.log(1.0 + 0.5 * sample_rate_hz / 700.0)
    step = (highest - lowest) / (num_mel_bins + 1)
    bins = np.arange(num_mel_bins, dtype=np.float32)
    left, centre, right = (
        np.float32(lowest) + (bins + np.float32(i)) * np.float32(step) for i in range(3)
    )
    hertz = np.float32(sample_rate_hz / fft_samples) * np.arange(fft_samples // 2, dtype=np.float32)
    mel = np.float32(1127.0) * np.log(np.float32(1.0) + hertz / np.float32(700.0))[:, None]
    rising = (mel - left) / (centre - left)
    falling = (right - mel) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class FrontEndStream:
    """Input frames of one stream; holds the samples and frames that later ones need.

    frames_per_step: input frames that are made at a time, >= 1; 1 is the lowest delay.
    """

    def __init__(self, front_end: FrontEnd, frames_per_step: int = 1) -> None:
        """Start before the first sample."""
        self.front_end = front_end
        self.frames_per_step = frames_per_step
        self._bank = FilterBank(front_end)
        self.reset()

    def reset(self) -> None:
        """Go back to before the first sample."""
        self._samples = np.zeros(0, np.float32)
        self._fbank = np.zeros((0, self.front_end.num_mel_bins), np.float32)
        self._first_fbank = 0  # number of the first frame in `_fbank`
        self._num_frames = 0  # input frames so far

    def samples_until(self, num_frames: int) -> int:
        """Return the samples of a stream that its first ``num_frames`` >= 1 input frames need."""
        last_fbank = (num_frames - 1) * self.front_end.frame_skip + self.front_end.right_context
        return last_fbank * self._bank.shift_samples + self._bank.window_samples

    def accept(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next samples, (N,) float32, and yield the groups (T, D) that they complete.

        All groups have to be taken before the next call.
        """
        self._samples = np.concatenate([self._samples, samples])
        shift, window = self._bank.shift_samples, self._bank.window_samples
        begin = 0
        while True:
            number = self._num_frames + self.frames_per_step
            last = (number - 1) * self.front_end.frame_skip + self.front_end.right_context
            num_new = last + 1 - self._first_fbank - len(self._fbank)
            end = begin + (num_new - 1) * shift + window
            if end > len(self._samples):
                break
            self._append(self._bank(self._samples[begin:end]))
            begin += num_new * shift
            yield self._expand(number, last)
        self._samples = self._samples[begin:].copy()

    def flush(self) -> np.ndarray:
        """Return the input frames (T, D) that the end of the stream completes; T may be 0.

        The last filterbank frame is repeated where a context goes beyond the end.
        """
        if len(self._samples) >= self._bank.window_samples:
            self._append(self._bank(self._samples))
        num_fbank = self._first_fbank + len(self._fbank)
        number = self.front_end.num_model_frames(num_fbank)
        if number <= self._num_frames:
            return np.zeros((0, self.front_end.input_dim), np.float32)
        return self._expand(number, num_fbank - 1)

    def _append(self, fbank: np.ndarray) -> None:
        self._fbank = np.concatenate([self._fbank, fbank])

    def _expand(self, number: int, last: int) -> np.ndarray:
        """Return the input frames up to ``number``, and forget what later ones do not need.

        last: filterbank frame that is repeated where a context goes beyond it.
        """
        skip, left = self.front_end.frame_skip, self.front_end.left_context
        centres = np.arange(self._num_frames, number)[:, None] * skip
        index = centres + np.arange(-left, self.front_end.right_context + 1)
        rows = np.clip(index, 0, last) - self._first_fbank
        frames = self._fbank[rows].reshape(len(rows), -1)
        self._num_frames = number
        needed = max(0, number * skip - left)
        unused = min(needed - self._first_fbank, len(self._fbank))
        self._fbank = self._fbank[unused:].copy()
        self._first_fbank += unused
        return frames
