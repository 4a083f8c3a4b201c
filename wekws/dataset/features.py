"""Log-mel filterbank features and their context expansion.

Axes: B batch, T frames of 10 ms, F features of one frame.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi

from wekws.errors import DataError
from wekws.front_end import PREEMPHASIS, FrontEnd

_INT16_SCALE = 32768.0
# Frames that are computed at once: their spectra fit into a core's cache, and those of hours would
# need several GiB.
_CHUNK_FRAMES = 1_000
_PIECE_FRAMES = 6 * _CHUNK_FRAMES  # a whole number of chunks, so that the sums are the same
_LOWEST_HZ = 20.0
_LEAST_ENERGY = torch.finfo(torch.float32).eps


def fbank(
    samples: np.ndarray | torch.Tensor,
    front_end: FrontEnd,
    *,
    dither: float = 0.0,
    rng: np.random.Generator | torch.Generator | None = None,
) -> torch.Tensor:
    """Return Kaldi's log-mel filterbank energies: natural logarithm, Povey window.

    samples: (N,) in [-1, 1] at the front end's rate; scaled to the int16 range as Kaldi expects.
    dither: standard deviation of added noise on that scale. The noise is added once to the
    waveform (Kaldi adds it to each window separately), so that it can be drawn from ``rng``.
    numpy's noise takes as long as the filterbank, torch's a tenth of it; caches have numpy's.
    0: the expected energy of the front end's dither is added to the mel bins.
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
            part += dither * _standard_normal(len(part), rng)
    num_frames = front_end.num_frames(len(wave))
    added = _dither_energies(front_end) if dither == 0 else None
    chunks = [
        _fbank(wave, front_end, start, min(start + _CHUNK_FRAMES, num_frames), added)
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
    needed = (_PIECE_FRAMES - 1) * shift + _window(front_end)
    for piece in samples:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= needed:
            yield fbank(waiting[:needed], front_end)
            waiting = waiting[_PIECE_FRAMES * shift :]
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


def _standard_normal(num: int, rng: np.random.Generator | torch.Generator) -> torch.Tensor:
    if isinstance(rng, torch.Generator):
        return torch.randn(num, generator=rng)
    return torch.from_numpy(rng.standard_normal(num, dtype=np.float32))


def _shift(front_end: FrontEnd) -> int:
    return int(front_end.sample_rate_hz * front_end.frame_shift_ms * 0.001)


def _window(front_end: FrontEnd) -> int:
    return int(front_end.sample_rate_hz * front_end.frame_length_ms * 0.001)


def _fbank(
    wave: torch.Tensor, front_end: FrontEnd, start: int, stop: int, added: torch.Tensor | None
) -> torch.Tensor:
    """Return the frames ``start`` to ``stop`` of a waveform, (stop - start, num_mel_bins).

    added: energies that each frame gets, (num_mel_bins,).
    """
    shift, rate = _shift(front_end), front_end.sample_rate_hz
    window, banks = _constants(rate, front_end.frame_length_ms, front_end.num_mel_bins)
    frames = wave[start * shift :].as_strided((stop - start, len(window)), (shift, 1))
    frames = frames - frames.mean(dim=1, keepdim=True)
    spaced = frames.new_zeros(len(frames), 2 * (len(banks) - 1))
    emphasised = spaced[:, : len(window)]
    torch.mul(frames[:, :1], PREEMPHASIS, out=emphasised[:, :1])
    torch.mul(frames[:, :-1], PREEMPHASIS, out=emphasised[:, 1:])
    torch.sub(frames, emphasised, out=emphasised)
    emphasised.mul_(window)
    power = torch.fft.rfft(spaced).abs().pow_(2.0)
    energies = torch.mm(power, banks)
    if added is not None:
        energies += added
    return energies.clamp_(min=_LEAST_ENERGY).log_()


@functools.lru_cache(maxsize=16)
def _dither_energies(front_end: FrontEnd) -> torch.Tensor:
    """Return the expected energies of the dither, (num_mel_bins,)."""
    window, banks = _constants(
        front_end.sample_rate_hz, front_end.frame_length_ms, front_end.num_mel_bins
    )
    power = front_end.dither_power(window.numpy(), 2 * (len(banks) - 1))
    return torch.from_numpy(power) @ banks


@functools.lru_cache(maxsize=16)
def _constants(
    sample_rate_hz: int, frame_length_ms: float, num_mel_bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Povey window (window,) and the mel filters (FFT bins, num_mel_bins).

    ``torchaudio.compliance.kaldi.fbank`` makes them for every utterance; the steps of ``_fbank``
    are its own, in its order, so that the results are the same to the last bit.
    """
    num_samples = int(sample_rate_hz * frame_length_ms * 0.001)
    fft_size = 1 << (num_samples - 1).bit_length()
    banks, _ = kaldi.get_mel_banks(
        num_mel_bins, fft_size, sample_rate_hz, _LOWEST_HZ, 0.0, 100.0, -500.0, 1.0
    )
    banks = torch.nn.functional.pad(banks, (0, 1))
    return torch.hann_window(num_samples, periodic=False).pow(0.85), banks.T


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
