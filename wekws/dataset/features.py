"""Log-mel filterbank features and their context expansion.

Axes: B batch, T frames of 10 ms, F features of one frame.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi

from wekws.errors import ConfigError, DataError

_INT16_SCALE = 32768.0


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """Filterbank settings, WeKWS's names."""

    num_mel_bins: int = 80
    """Mel bins, > 0."""
    frame_shift: float = 10.0
    """Hop, milliseconds."""
    frame_length: float = 25.0
    """Window, milliseconds."""
    dither: float = 1.0
    """Standard deviation of the noise added in training, on the int16 scale; 0 elsewhere."""

    def __post_init__(self):
        """Refuse what gives no frame."""
        if self.num_mel_bins <= 0:
            raise ConfigError(f"num_mel_bins: found {self.num_mel_bins}; expected > 0")
        if not 0 < self.frame_shift <= self.frame_length:
            raise ConfigError(
                f"frame_shift {self.frame_shift}, frame_length {self.frame_length}: expected"
                " 0 < frame_shift <= frame_length"
            )
        if self.dither < 0:
            raise ConfigError(f"dither: found {self.dither}; expected >= 0")


@dataclass(frozen=True, kw_only=True)
class ContextExpansionConfig:
    """How many neighbours each frame is joined with."""

    left: int = 2
    """Frames before, >= 0."""
    right: int = 2
    """Frames after, >= 0."""

    def __post_init__(self):
        """Refuse negative orders."""
        if self.left < 0 or self.right < 0:
            raise ConfigError(f"left {self.left}, right {self.right}: expected >= 0")


def num_fbank_frames(num_samples: int, sample_rate_hz: int, config: FbankConfig) -> int:
    """Return how many whole windows fit (Kaldi's ``snip_edges``), 0 if none does."""
    window = int(sample_rate_hz * config.frame_length * 0.001)
    hop = int(sample_rate_hz * config.frame_shift * 0.001)
    return max(0, 1 + (num_samples - window) // hop)


def fbank(
    samples: np.ndarray | torch.Tensor,
    sample_rate_hz: int,
    config: FbankConfig,
    dither: float = 0.0,
    rng: np.random.Generator | None = None,
) -> torch.Tensor:
    """Return Kaldi's log-mel filterbank, natural logarithm, Povey window.

    samples: (N,) in [-1, 1]; scaled to the int16 range as Kaldi expects.
    dither: standard deviation of added noise on that scale. It is added to the waveform, not
    to each window apart as Kaldi does, so that it can be drawn from ``rng``.
    Returns: float32 (T, num_mel_bins).
    Raises: DataError if the samples do not fill one window.
    """
    if num_fbank_frames(len(samples), sample_rate_hz, config) == 0:
        raise DataError(
            f"{len(samples)} samples at {sample_rate_hz} Hz do not fill one window of"
            f" {config.frame_length:g} ms"
        )
    wave = torch.as_tensor(samples, dtype=torch.float32) * _INT16_SCALE
    if dither > 0:
        assert rng is not None, "dither needs a generator"
        wave = wave + dither * torch.from_numpy(rng.standard_normal(len(wave), dtype=np.float32))
    return kaldi.fbank(
        wave[None],
        num_mel_bins=config.num_mel_bins,
        frame_length=config.frame_length,
        frame_shift=config.frame_shift,
        sample_frequency=sample_rate_hz,
        dither=0.0,
        energy_floor=0.0,
        window_type="povey",
    )


def expand_context(
    feats: torch.Tensor, lengths: torch.Tensor, left: int, right: int, skip: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join every ``skip``-th frame with its neighbours.

    feats: (B, T, F); lengths: (B,) valid frames. Beyond an utterance's own edges its first and
    last valid frames repeat, so padding never leaks in.
    Returns: (B, ceil(T / skip), (left + 1 + right) * F), whose frame t is centred on input frame
    t * skip and holds zeros where that is padding; lengths ceil(lengths / skip).
    """
    batch, num_frames, num_features = feats.shape
    device = feats.device
    centres = torch.arange(0, num_frames, skip, device=device)
    offsets = torch.arange(-left, right + 1, device=device)
    last = (lengths.to(device) - 1).clamp(min=0)
    index = (centres[:, None] + offsets).clamp(min=0).expand(batch, -1, -1)
    index = torch.minimum(index, last[:, None, None])
    index = index + (torch.arange(batch, device=device) * num_frames)[:, None, None]
    rows = feats.reshape(-1, num_features).index_select(0, index.flatten())
    expanded = rows.view(batch, len(centres), len(offsets) * num_features)
    out_lengths = (lengths + skip - 1) // skip
    valid = (centres < lengths.to(device)[:, None]).to(feats.dtype)
    # Multiplied, not masked_fill_: with a broadcast mask that is slower than the gather itself.
    return expanded.mul_(valid[:, :, None]), out_lengths
