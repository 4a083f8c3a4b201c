"""Choice of frames for frame-wise terms. Axes: B batch, T frames, V vocabulary."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wekws.model.fsmn import valid_rows

FrameChoice = Literal["all", "non_blank", "widened"]


def valid_frames(lengths: Tensor, num_frames: int, device: torch.device | None = None) -> Tensor:
    """Return a (B, T) mask that is True on the frames before each length.

    device: of the mask; None: that of the lengths. To index with it, see ``take_valid``.
    """
    mask = torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)
    return mask.to(device, non_blocking=True)


def take_valid(values: Tensor, lengths: Tensor) -> Tensor:
    """Return the valid frames of a batch (B, T, ...), one utterance after another, (N, ...).

    lengths: (B,) on the CPU. Indexing with a mask on a GPU would wait for the GPU, to know N.
    """
    rows = torch.from_numpy(valid_rows(lengths, values.shape[1]))
    return values.flatten(0, 1).index_select(0, rows.to(values.device, non_blocking=True))


def spoken_frames(logits: Tensor, lengths: Tensor, *, blank: int = 0) -> Tensor:
    """Return a (B, T) mask of the valid frames whose best token is not blank.

    logits: (B, T, V), the teacher's: where it has its peaks.
    """
    return (logits.argmax(dim=-1) != blank) & valid_frames(lengths, logits.shape[1], logits.device)


def choose_frames(
    logits: Tensor, lengths: Tensor, choice: FrameChoice, num_neighbours: int
) -> Tensor:
    """Return a (B, T) mask of the chosen frames.

    logits: (B, T, V), the teacher's.
    choice: ``all`` valid ones, the ``non_blank`` ones, or those ``widened`` by
    ``num_neighbours`` frames to either side, never beyond the utterance.
    Source: Hilmes, Rossenbach and Schlueter 2025, arXiv:2506.01503 (symmetric selection).
    """
    valid = valid_frames(lengths, logits.shape[1], logits.device)
    if choice == "all":
        return valid
    spoken = spoken_frames(logits, lengths)
    if choice == "widened":
        reach = 2 * num_neighbours + 1
        near = F.max_pool1d(spoken[:, None].float(), reach, stride=1, padding=num_neighbours)
        spoken = near[:, 0] > 0
    return spoken & valid
