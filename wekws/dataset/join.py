"""Two utterances heard one after the other, as training sees some of them.

Clips of one word each teach a model that a word begins where the clip does. Joined clips do not:
what precedes a keyword is then speech, noise or another keyword, as it is on a stream.

Axes: B batch, J joined utterances, T frames, F features, L labels.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from wekws.dataset.batch import Batch


def choose_partners(num: int, share: float, seed: int, epoch: int) -> np.ndarray:
    """Return for each utterance the one that follows it in this epoch, -1 for none, (num,).

    A function of seed and epoch alone: the same in every batch and process.
    """
    rng = np.random.default_rng((seed, epoch, 2))
    is_joined = rng.random(num) < share
    return np.where(is_joined, rng.integers(num, size=num), -1)


def join_batches(
    batch: Batch, rows: np.ndarray, second: Batch, frame_skip: int, most_labels: int = 0
) -> Batch:
    """Put the utterances of ``second`` (J) behind ``rows`` (J,) of ``batch``.

    Where CTC might then have no path, or there would be more than ``most_labels`` (0: any), the
    first utterance stays alone.
    """
    at = torch.from_numpy(rows)
    num_frames = batch.feat_lengths[at] + second.feat_lengths
    num_labels = batch.label_lengths[at] + second.label_lengths
    # Twice as many output frames as labels leave a blank between any two.
    fits = -(-num_frames // frame_skip) >= 2 * num_labels
    if most_labels:
        fits &= num_labels <= most_labels
    at, second = at[fits], second.select(fits)
    feats, feat_lengths = append_rows(
        batch.feats, batch.feat_lengths, at, second.feats, second.feat_lengths
    )
    labels, label_lengths = append_rows(
        batch.labels, batch.label_lengths, at, second.labels, second.label_lengths
    )
    is_keyword = batch.is_keyword.clone()
    is_keyword[at] |= second.is_keyword
    return dataclasses.replace(
        batch,
        feats=feats,
        feat_lengths=feat_lengths,
        labels=labels,
        label_lengths=label_lengths,
        is_keyword=is_keyword,
    )


def append_rows(
    first: Tensor, first_lengths: Tensor, rows: Tensor, second: Tensor, second_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Put padded sequences behind some of a batch.

    first: (B, T, ...) with first_lengths (B,). second: (J, T2, ...) with second_lengths (J,)
    goes behind the valid part of first[rows], rows: (J,).
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
