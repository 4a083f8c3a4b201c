"""A model's activations on a sample of the training set.

Axes: N valid frames, D features, P memory channels, H channels between blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wekws.model.fsmn import FSMN, Packing, pack
from wekws.model.model import KwsModel


@dataclass(frozen=True)
class Sample:
    """Utterances to look at a model with. rows: (N, D) normalised features of the valid frames.

    lengths: (B,) frames of each utterance, in the order of the rows.
    """

    rows: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, model: KwsModel, inputs: Iterable[tuple[Tensor, Tensor]]) -> "Sample":
        """Make a sample of (B, T, D) features with (B,) lengths, as ``model`` normalises them."""
        rows, lengths = [], []
        for feats, num_frames in inputs:
            if model.global_cmvn is not None:
                feats = model.global_cmvn(feats)
            is_valid = torch.arange(feats.shape[1]) < num_frames.unsqueeze(1)
            rows.append(feats[is_valid])
            lengths.append(num_frames)
        return cls(torch.cat(rows), torch.cat(lengths))

    def packing(self, *models: KwsModel) -> Packing:
        """Return where the rows are in time, with room for the longest reach of the models."""
        reaches = [max(m.config.backbone.left_reach, m.config.backbone.right_reach) for m in models]
        return pack(self.lengths, int(self.lengths.max()), max(*reaches, 1))


@dataclass(frozen=True)
class Trace:
    """What flows through a backbone, frame by frame.

    inner_in, inner_out: (N, .) between the two affines at either end; before a merged head.
    linear: (N, H) after each ReLU: the input of block 0, then the output of each block.
    projected, memory: (N, P) before and after each block's taps.
    before: (N, H) what each ``linear`` was before its ReLU. logits: (N, V).
    """

    inner_in: Tensor
    linear: list[Tensor]
    before: list[Tensor]
    projected: list[Tensor]
    memory: list[Tensor]
    inner_out: Tensor
    logits: Tensor


@torch.no_grad()
def trace(backbone: FSMN, rows: Tensor, packing: Packing) -> Trace:
    """Run a backbone over packed rows and keep everything on the way."""
    inner_in = backbone.in_linear1(rows)
    before = [backbone.in_linear2(inner_in)]
    linear, projected, memory = [F.relu(before[0])], [], []
    for project, taps, expand in backbone.fsmn:
        projected.append(project(linear[-1]))
        memory.append(taps(projected[-1], packing))
        before.append(expand(memory[-1]))
        linear.append(F.relu(before[-1]))
    inner_out = backbone.inner_out(linear[-1])
    logits = backbone.out_linear2(inner_out)
    return Trace(inner_in, linear, before, projected, memory, inner_out, logits)
