"""Joined utterances: in training, some utterances are followed by another one without a gap.

From clips of one word each, a model learns that a word begins where the clip begins. In joined
clips a keyword can follow speech, noise or another keyword, as it does on a stream.

Axes: B batch, J joined utterances, T frames, F features, L labels.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from wekws.dataset.batch import Batch, Embeddings


def choose_partners(num_utterances: int, *, join_prob: float, seed: int, epoch: int) -> np.ndarray:
    """Return the index of the utterance that follows each one in this epoch, -1 for none, (N,).

    Depends on the seed and the epoch only: it is the same in every batch and process.
    """
    rng = np.random.default_rng((seed, epoch, 2))
    is_joined = rng.random(num_utterances) < join_prob
    return np.where(is_joined, rng.integers(num_utterances, size=num_utterances), -1)


def join_batches(
    batch: Batch, *, rows: np.ndarray, second: Batch, frame_skip: int, max_labels: int
) -> Batch:
    """Append the utterances of ``second`` (J) to ``rows`` (J,) of ``batch``.

    max_labels: most labels of a joined utterance; 0: no limit.
    An utterance stays single if joining it would exceed ``max_labels``, or if the joined labels
    might have no CTC path.
    """
    at = torch.from_numpy(rows)
    num_frames = batch.feat_lengths[at] + second.feat_lengths
    num_labels = batch.label_lengths[at] + second.label_lengths
    # Twice as many output frames as labels leave a blank between any two.
    fits = -(-num_frames // frame_skip) >= 2 * num_labels
    fits &= (batch.feat_lengths[at] > 0) & (second.feat_lengths > 0)
    if max_labels:
        fits &= num_labels <= max_labels
    at, second = at[fits], second.select(fits)
    feats, feat_lengths = append_rows(
        batch.feats,
        batch.feat_lengths,
        rows=at,
        second=second.feats,
        second_lengths=second.feat_lengths,
    )
    labels, label_lengths = append_rows(
        batch.labels,
        batch.label_lengths,
        rows=at,
        second=second.labels,
        second_lengths=second.label_lengths,
    )
    holds_keyword, indices = batch.holds_keyword.clone(), batch.indices.clone()
    holds_keyword[at] |= second.holds_keyword
    indices[at] = -1
    return dataclasses.replace(
        batch,
        feats=feats,
        feat_lengths=feat_lengths,
        labels=labels,
        label_lengths=label_lengths,
        holds_keyword=holds_keyword,
        indices=indices,
        embeddings=_join_embeddings(batch, at, second),
    )


def _join_embeddings(batch: Batch, rows: Tensor, second: Batch) -> Embeddings | None:
    """Append the embeddings, with their places moved behind the first utterances' frames."""
    first, other = batch.embeddings, second.embeddings
    if first is None or other is None:
        return None
    shift = batch.feat_lengths[rows, None].to(other.starts)
    moved = {
        "values": other.values,
        "starts": other.starts + shift,
        "ends": other.ends + shift,
    }
    joined, lengths = {}, first.lengths
    for name, appended in moved.items():
        joined[name], lengths = append_rows(
            getattr(first, name),
            first.lengths,
            rows=rows,
            second=appended,
            second_lengths=other.lengths,
        )
    return Embeddings(**joined, lengths=lengths)


def append_rows(
    first: Tensor, first_lengths: Tensor, *, rows: Tensor, second: Tensor, second_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Append padded sequences to some sequences of a batch.

    first: (B, T, ...) with first_lengths (B,). second: (J, T2, ...) with second_lengths (J,)
    is appended to the valid part of first[rows], rows: (J,).
    Returns: (B, T3, ...) padded with 0, and its lengths (B,).
    """
    lengths = first_lengths.clone()
    lengths[rows] += second_lengths
    longest = max(first.shape[1], int(lengths.max()))
    joined = first.new_zeros(first.shape[0], longest, *first.shape[2:])
    joined[:, : first.shape[1]] = first
    item, place = (torch.arange(second.shape[1]) < second_lengths[:, None]).nonzero(as_tuple=True)
    joined[rows[item], first_lengths[rows[item]] + place] = second[item, place]
    return joined, lengths
