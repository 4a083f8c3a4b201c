"""Activations of a model on a sample of the training set.

Axes: N valid frames, D input features, H channels between blocks, P memory channels, V tokens.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wekws.dataset.features import expand_context
from wekws.dataset.loader import batches
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.model.fsmn import FSMN, Packing, pack
from wekws.model.model import KwsModel


@dataclass(frozen=True)
class Sample:
    """Model inputs of some training utterances."""

    rows: Tensor
    """(N, D) normalised features of the valid frames, one utterance after another."""
    lengths: Tensor
    """(B,) frames of each utterance, in the order of the rows."""

    @classmethod
    def of(cls, model: KwsModel, inputs: Iterable[tuple[Tensor, Tensor]]) -> "Sample":
        """Make a sample of (B, T, D) features with (B,) lengths, normalised as ``model`` does."""
        rows, lengths = [], []
        for feats, num_frames in inputs:
            if model.global_cmvn is not None:
                feats = model.global_cmvn(feats)
            is_valid = torch.arange(feats.shape[1]) < num_frames.unsqueeze(1)
            rows.append(feats[is_valid])
            lengths.append(num_frames)
        return cls(torch.cat(rows), torch.cat(lengths))

    def packing(self, *models: KwsModel) -> Packing:
        """Return the rows' positions in time, with gaps for the longest taps of the models."""
        reaches = [max(m.config.backbone.left_reach, m.config.backbone.right_reach) for m in models]
        return pack(self.lengths, int(self.lengths.max()), max(*reaches, 1))


def draw_sample(
    model: KwsModel, train_set: SpeechDataset, *, num_batches: int, seed: int
) -> Sample:
    """Return the first batches of a training set's first epoch, without SpecAugment."""
    config = train_set.config
    size, shuffle = config.batch_conf.batch_size, config.shuffle
    drawn = batches(train_set, batch_size=size, epoch=0, seed=seed, shuffle=shuffle)
    inputs = [
        expand_context(batch.feats, batch.feat_lengths, config.front_end)
        for batch in itertools.islice(drawn, num_batches)
    ]
    return Sample.of(model, inputs)


@dataclass(frozen=True)
class Activations:
    """Outputs of every layer of a backbone, for each frame."""

    inner_in: Tensor
    """(N, .) between the two input affines."""
    linear: list[Tensor]
    """(N, H) after each ReLU: the input of block 0, then the output of each block."""
    before: list[Tensor]
    """(N, H) the same before the ReLU: pre-activations."""
    projected: list[Tensor]
    """(N, P) the input of each block's memory."""
    memory: list[Tensor]
    """(N, P) the output of each block's memory."""
    inner_out: Tensor
    """(N, .) between the two output affines; the last ``linear`` where the head is merged."""
    logits: Tensor
    """(N, V)."""


@torch.no_grad()
def compute_activations(backbone: FSMN, rows: Tensor, packing: Packing) -> Activations:
    """Run a backbone on packed rows and keep the output of every layer."""
    inner_in = backbone.in_linear1(rows)
    before = [backbone.in_linear2(inner_in)]
    linear, projected, memory = [F.relu(before[0])], [], []
    for block in backbone.blocks:
        project, remember, expand = block.layers
        projected.append(project(linear[-1]))
        memory.append(remember(projected[-1], packing))
        before.append(expand(memory[-1]))
        linear.append(F.relu(before[-1]))
    inner_out = backbone.inner_out(linear[-1])
    logits = backbone.out_linear2(inner_out)
    return Activations(inner_in, linear, before, projected, memory, inner_out, logits)


@dataclass(frozen=True)
class SourceData:
    """Activations of the source on a sample, for the rules that need data."""

    sample: Sample
    """Model inputs."""
    packing: Packing
    """Positions of the sample's frames in time."""
    activations: Activations
    """Outputs of the source's layers."""

    @classmethod
    def of(cls, sample: Sample, student: KwsModel, source: KwsModel) -> "SourceData":
        """Run the source on a sample, packed with gaps that suffice for the student as well."""
        packing = sample.packing(student, source)
        return cls(sample, packing, compute_activations(source.backbone, sample.rows, packing))
