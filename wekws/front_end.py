"""The front end: everything between audio samples and the input frames of a model."""

from dataclasses import dataclass

import numpy as np

PREEMPHASIS = 0.97
"""Share of a sample that is subtracted from the next one."""


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Sample rate, filterbank, context and frame skip, described in one place.

    It is built from a dataset configuration (``DatasetConfig.front_end``) and passed to feature
    extraction, validation, cost and scoring. It has no defaults, so that no two parts of the
    project can assume different ones.
    """

    sample_rate_hz: int
    """All audio is resampled to this rate."""
    num_mel_bins: int
    """Log-mel bins per filterbank frame."""
    frame_length_ms: float
    """Length of one analysis window in milliseconds."""
    frame_shift_ms: float
    """Time from one filterbank frame to the next in milliseconds."""
    left_context: int
    """Filterbank frames before the current one in a model frame."""
    right_context: int
    """Filterbank frames after the current one in a model frame."""
    frame_skip: int
    """One model frame is made per this many filterbank frames, >= 1."""
    expected_dither: float
    """Standard deviation, on the int16 scale, of the noise (dither) that training adds to audio.
    Elsewhere its expected energy is added to each mel bin, so that digital silence is as loud as
    the quietest audio of training."""

    @property
    def input_dim(self) -> int:
        """Numbers in one model frame."""
        return self.num_mel_bins * (self.left_context + 1 + self.right_context)

    @property
    def hop_ms(self) -> float:
        """Time from one model frame to the next in milliseconds."""
        return self.frame_shift_ms * self.frame_skip

    @property
    def hop_s(self) -> float:
        """Time from one model frame to the next in seconds."""
        return self.hop_ms / 1000

    def num_frames(self, num_samples: int) -> int:
        """Return the number of whole windows (Kaldi's ``snip_edges``), 0 if none fits.

        num_samples: at ``sample_rate_hz``.
        """
        window = int(self.sample_rate_hz * self.frame_length_ms * 0.001)
        shift = int(self.sample_rate_hz * self.frame_shift_ms * 0.001)
        return max(0, 1 + (num_samples - window) // shift)

    def num_model_frames(self, num_frames: int) -> int:
        """Return the number of model frames for ``num_frames`` filterbank frames."""
        return -(-num_frames // self.frame_skip)

    def dither_power(self, window: np.ndarray, fft_size: int) -> np.ndarray:
        """Return the expected power spectrum of the dither, (fft_size / 2 + 1,) float32.

        window: (W,), 0 at its ends. A sample x[n] of white noise enters the transform of the
        emphasised window as ``window[n] x[n]`` and as ``-0.97 window[n + 1] x[n]``; the samples are
        independent, so that their powers add. The removal of the mean takes the power of the mean.
        """
        window = window.astype(np.float64)
        angle = 2 * np.pi * np.arange(fft_size // 2 + 1) / fft_size
        power = (1 + PREEMPHASIS**2) * window @ window
        power = power - 2 * PREEMPHASIS * (window[:-1] @ window[1:]) * np.cos(angle)
        mean = (1 - PREEMPHASIS) * np.abs(np.fft.rfft(window, fft_size))
        return (self.expected_dither**2 * (power - mean**2 / len(window))).astype(np.float32)
