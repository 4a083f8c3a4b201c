"""Log-mel filterbank features and their context expansion.

Axes: B batch, T frames of 10 ms, F features of one frame.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi

from wekws.dataset.feature_view import ContextExpansionConfig as ContextExpansionConfig
from wekws.dataset.feature_view import FbankConfig as FbankConfig
from wekws.errors import DataError
from wekws.front_end import FrontEnd

_INT16_SCALE = 32768.0
# Frames that are computed at once: a recording of hours would need several GiB.
_CHUNK_FRAMES = 30_000


def fbank(
    samples: np.ndarray | torch.Tensor,
    front_end: FrontEnd,
    *,
    dither: float = 0.0,
    rng: np.random.Generator | None = None,
) -> torch.Tensor:
    """Return Kaldi's log-mel filterbank energies: natural logarithm, Povey window.

    samples: (N,) in [-1, 1] at the front end's rate; scaled to the int16 range as Kaldi expects.
    dither: standard deviation of added noise on that scale. The noise is added once to the
    waveform (Kaldi adds it to each window separately), so that it can be drawn from ``rng``.
    Returns: float32 (T, num_mel_bins).
    Raises: DataError if the samples do not fill one window.
    """
    if front_end.num_frames(len(samples)) == 0:
        raise DataError(
            f"{len(samples)} samples at {front_end.sample_rate_hz} Hz do not fill one window of"
            f" {front_end.frame_length_ms:g} ms"
        )
    wave = torch.as_tensor(samples, dtype=torch.float32) * _INT16_SCALE
    if dither > 0:
        assert rng is not None, "dither needs a generator"
        for part in wave.split(_CHUNK_FRAMES * _shift(front_end)):
            part += dither * torch.from_numpy(rng.standard_normal(len(part), dtype=np.float32))
    num_frames = front_end.num_frames(len(wave))
    chunks = [
        _fbank(wave, front_end, start, min(start + _CHUNK_FRAMES, num_frames))
        for start in range(0, num_frames, _CHUNK_FRAMES)
    ]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def fbank_pieces(samples: Iterable[np.ndarray], front_end: FrontEnd) -> Iterator[torch.Tensor]:
    """Yield the frames of `fbank` without dither, the same to the last bit, piece by piece.

    samples: pieces of one recording, of any size. Returns: (T, num_mel_bins) each; nothing if the
    recording does not fill one window.
    """
    waiting = np.zeros(0, np.float32)
    shift = _shift(front_end)
    needed = (_CHUNK_FRAMES - 1) * shift + _window(front_end)
    for piece in samples:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= needed:
            yield fbank(waiting[:needed], front_end)
            waiting = waiting[_CHUNK_FRAMES * shift :]
    if front_end.num_frames(len(waiting)):
        yield fbank(waiting, front_end)


def expanded_pieces(feats: Iterable[torch.Tensor], front_end: FrontEnd) -> Iterator[torch.Tensor]:
    """Yield the frames of `expand_context` for one recording, piece by piece.

    feats: (T, F) pieces, T of any size. Returns: (T', input_dim) each.
    """
    skip = front_end.frame_skip
    rows = torch.zeros(0, front_end.num_mel_bins)
    first = number = 0  # of the filterbank frames in `rows`; of the frames that were yielded

    def expand(stop: int, last: int) -> torch.Tensor:
        offsets = torch.arange(-front_end.left_context, front_end.right_context + 1)
        index = torch.arange(number, stop)[:, None] * skip + offsets
        return rows[index.clamp(0, last) - first].flatten(1)

    for piece in feats:
        rows = torch.cat([rows, piece])
        last = first + len(rows) - 1
        stop = (last - front_end.right_context) // skip + 1
        if stop > number:
            yield expand(stop, last)
            number = stop
            unused = min(max(0, number * skip - front_end.left_context) - first, len(rows))
            rows, first = rows[unused:].clone(), first + unused
    total = first + len(rows)
    if front_end.num_model_frames(total) > number:
        yield expand(front_end.num_model_frames(total), total - 1)


def _shift(front_end: FrontEnd) -> int:
    return int(front_end.sample_rate_hz * front_end.frame_shift_ms * 0.001)


def _window(front_end: FrontEnd) -> int:
    return int(front_end.sample_rate_hz * front_end.frame_length_ms * 0.001)


def _fbank(wave: torch.Tensor, front_end: FrontEnd, start: int, stop: int) -> torch.Tensor:
    """Return the frames ``start`` to ``stop`` of a waveform, (stop - start, num_mel_bins)."""
    shift = _shift(front_end)
    return kaldi.fbank(
        wave[None, start * shift : (stop - 1) * shift + _window(front_end)],
        num_mel_bins=front_end.num_mel_bins,
        frame_length=front_end.frame_length_ms,
        frame_shift=front_end.frame_shift_ms,
        sample_frequency=front_end.sample_rate_hz,
        dither=0.0,
        energy_floor=0.0,
        window_type="povey",
    )


def expand_context(
    feats: torch.Tensor, lengths: torch.Tensor, front_end: FrontEnd
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the model input: every ``frame_skip``-th frame joined with its neighbours.

    feats: (B, T, F); lengths: (B,) valid frames. Before the first and after the last valid frame
    that frame is repeated, so that padding never enters a valid frame.
    Returns: (B, ceil(T / skip), (left + 1 + right) * F), whose frame t is centred on input frame
    t * skip and is zero where that is padding; lengths ceil(lengths / skip).
    """
    left, right = front_end.left_context, front_end.right_context
    skip = front_end.frame_skip
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
