"""Greedy CTC decoding of whole batches, its errors and its shares of blank and filler.

Axes: B batch, T frames, V vocabulary, H hypothesis length, L label length.
"""

import torch
from torch import Tensor

from wekws.distill.frames import valid_frames

NUM_BUCKETS = 1024


def greedy_tokens(logits: Tensor, lengths: Tensor, blank: int = 0) -> tuple[Tensor, Tensor]:
    """Return the best path with repeats and blanks removed: (B, T) left-packed, and (B,) lengths.

    logits: (B, T, V). Entries at and past each returned length are -1.
    """
    best = logits.argmax(dim=-1)
    before = torch.nn.functional.pad(best[:, :-1], (1, 0), value=blank)
    valid = valid_frames(lengths, best.shape[1], best.device)
    is_token = (best != blank) & (best != before) & valid
    place = is_token.cumsum(dim=1) - 1
    packed = best.new_full((best.shape[0], best.shape[1] + 1), -1)
    packed.scatter_(1, torch.where(is_token, place, best.shape[1]), best)
    return packed[:, :-1], is_token.sum(dim=1)


def edit_distances(
    hypotheses: Tensor, hypothesis_lengths: Tensor, labels: Tensor, label_lengths: Tensor
) -> Tensor:
    """Return the Levenshtein distance of every pair, (B,).

    hypotheses: (B, H), labels: (B, L). A row of the table at a time for the whole batch; the
    insertions along a row are a running minimum.
    """
    num_rows = int(hypothesis_lengths.max()) if len(hypothesis_lengths) else 0
    columns = torch.arange(labels.shape[1] + 1, device=labels.device)
    row = columns.expand(labels.shape[0], -1)
    for i in range(num_rows):
        substituted = row[:, :-1] + (labels != hypotheses[:, i : i + 1])
        best = torch.cat([row[:, :1] + 1, torch.minimum(row[:, 1:] + 1, substituted)], dim=1)
        following = (best - columns).cummin(dim=1).values + columns
        row = torch.where((i < hypothesis_lengths).unsqueeze(1), following, row)
    return row.gather(1, label_lengths.unsqueeze(1)).squeeze(1)


def frame_counts(logits: Tensor, lengths: Tensor, *, blank: int = 0, filler: int = 1) -> Tensor:
    """Return (3,): valid frames, those whose best token is blank, those whose best is filler."""
    best = logits.argmax(dim=-1)
    valid = valid_frames(lengths, logits.shape[1], logits.device)
    return torch.stack([(valid & kind).sum() for kind in (valid, best == blank, best == filler)])


def output_histogram(hypotheses: Tensor) -> Tensor:
    """Count equal outputs: (NUM_BUCKETS,), an utterance each, equal ones in one bucket.

    hypotheses: (B, H) as ``greedy_tokens`` packs them. Histograms of batches and of processes
    add up. Different outputs share a bucket by chance, one in NUM_BUCKETS: too few to mistake
    a crowd of utterances for one output.
    """
    place = torch.arange(1, hypotheses.shape[1] + 1, device=hypotheses.device)
    # Integer arithmetic that overflows, as hashes do; positions past the end count 0.
    mixed = ((hypotheses + 1) * _mix(place)).sum(dim=1)
    buckets = (_mix(mixed) >> 20) % NUM_BUCKETS
    return torch.bincount(buckets, minlength=NUM_BUCKETS)


def _mix(values: Tensor) -> Tensor:
    """Scatter integers over all 64 bits, with the constants of SplitMix64.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    values = values * -7046029254386353131
    return (values ^ (values >> 29)) * -4658895280553007687
