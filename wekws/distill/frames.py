"""Choice of frames for frame-wise terms. Axes: B batch, T frames, V vocabulary."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FrameChoice = Literal["all", "non_blank", "widened"]


def valid_frames(lengths: Tensor, num_frames: int) -> Tensor:
    """Return a (B, T) mask that is True on the frames before each length."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def spoken_frames(logits: Tensor, lengths: Tensor, *, blank: int = 0) -> Tensor:
    """Return a (B, T) mask of the valid frames whose best token is not blank.

    logits: (B, T, V), the teacher's: where it has its peaks.
    """
    return (logits.argmax(dim=-1) != blank) & valid_frames(lengths, logits.shape[1])


def choose_frames(
    logits: Tensor, lengths: Tensor, choice: FrameChoice, num_neighbours: int
) -> Tensor:
    """Return a (B, T) mask of the chosen frames.

    logits: (B, T, V), the teacher's.
    choice: ``all`` valid ones, the ``non_blank`` ones, or those ``widened`` by
    ``num_neighbours`` frames to either side, never beyond the utterance.
    Source: Hilmes, Rossenbach and Schlueter 2025, arXiv:2506.01503 (symmetric selection).
    """
    valid = valid_frames(lengths, logits.shape[1])
    if choice == "all":
        return valid
    spoken = spoken_frames(logits, lengths)
    if choice == "widened":
        reach = 2 * num_neighbours + 1
        near = F.max_pool1d(spoken[:, None].float(), reach, stride=1, padding=num_neighbours)
        spoken = near[:, 0] > 0
    return spoken & valid
