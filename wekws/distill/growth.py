"""A student that gains blocks while it trains. Axes: N valid frames, H channels, P of the memory.

A new block goes behind the last one, before the head. Where it is the teacher's, the student's
block i is at every depth what ``transplant.blocks`` says of it at full depth. A student that
grows by identities starts as that section says for a student of its first blocks: ``ends`` pairs
these with the teacher's first and last ones, of a list the first items count.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.distill.stages import share_out
from wekws.distill.transplant import Sample, TransplantConfig, transplant
from wekws.distill.transplant.fit import fit_rectified
from wekws.distill.transplant.sample import trace
from wekws.errors import ConfigError
from wekws.model.model import KwsModel


@dataclass(frozen=True, kw_only=True)
class ProgressiveConfig:
    """Section ``progressive``: depth that grows to ``model.backbone.num_layers``.

    start_blocks: at the start; 0: all of them, nothing grows.
    every: epochs from one new block to the next; 0: as many at every depth.
    new_block: ``identity``, as near as a block can be to what it is fed (see ``near_identity``),
    so that the loss does not jump; or ``teacher``, that block of the teacher by the transplant's
    map and channels, which makes sense for a student that itself began with
    ``--init_from_teacher``: the head has yet to learn to read it, and the loss jumps.
    """

    start_blocks: int = 0
    every: int = 0
    new_block: Literal["identity", "teacher"] = "identity"

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.start_blocks < 0 or self.every < 0:
            raise ConfigError(
                f"start_blocks {self.start_blocks}, every {self.every}: expected at least 0"
            )
        if not self.start_blocks and (self.every, self.new_block) != (0, "identity"):
            raise ConfigError("every, new_block: no effect without start_blocks; expected >= 1")

    @property
    def is_used(self) -> bool:
        """Whether the student grows."""
        return self.start_blocks > 0

    def depth_at(self, epoch: int, full: int, max_epoch: int) -> int:
        """Return the number of blocks in an epoch of ``max_epoch``, ``full`` at the end."""
        if not self.is_used:
            return full
        if self.every:
            return min(full, self.start_blocks + epoch // self.every)
        shares = share_out([1] * (full - self.start_blocks + 1), max_epoch)
        ends = [sum(shares[: i + 1]) for i in range(len(shares))]
        return min(full, self.start_blocks + sum(end <= epoch for end in ends))


@torch.no_grad()
def add_identity_block(model: KwsModel, sample: Sample) -> None:
    """Grow ``model`` by a block that gives back, nearly, what the last one gives."""
    backbone = model.backbone
    rows = trace(backbone, sample.rows, sample.packing(model)).linear[-1]
    reader = backbone.out_linear2.linear.weight
    if backbone.out_linear1 is not None:
        reader = reader @ backbone.out_linear1.linear.weight
    project, memory, expand = model.append_block()
    first, second, bias = near_identity(rows, reader, len(project.linear.weight))
    project.linear.weight.copy_(first)
    for taps in memory.parameters():
        taps.zero_()
    expand.linear.weight.copy_(second)
    expand.linear.bias.copy_(bias)


def near_identity(rows: Tensor, reader: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (P, H), (H, P), (H,) of a block that gives back its input as well as it can.

    rows: (N, H) what it is fed: rectified, so at least 0, which is why the block's own ReLU lets
    it through. The memory passes its input on when all taps are 0. Left is the narrow waist of
    ``width`` = P channels: projection and affine are those of the input's P first principal
    components, which lose the least of all affine maps of that rank and nothing where the input
    varies in P directions only. Least in the metric I + W^T W: as features and, on a par, as
    the head sees them; reader: (V, H), its W. The affine is then fitted once more, what is 0
    being free to be anything below (see ``rectified_target``), if that comes closer.
    """
    double, head = rows.double(), reader.double()
    size, mean = rows.shape[1], double.mean(dim=0)
    metric = head.T @ head
    metric = metric / metric.diagonal().mean() + torch.eye(size, dtype=torch.float64)
    root = torch.linalg.cholesky(metric)  # metric = root root^T
    seen = (double - mean) @ root
    vectors = torch.linalg.eigh(seen.T @ seen).eigenvectors.flip(1)
    # Of more channels than the input has, the rest read what the first read, unused at first.
    vectors = vectors[:, torch.arange(width) % size]
    project = vectors.T @ root.T
    expand = torch.linalg.solve(root.T, vectors)
    expand[:, size:] = 0.0
    inner = double @ project.T
    choices = [(expand, mean - expand @ (project @ mean)), fit_rectified(inner, double)]
    outputs = [(inner @ weight.T + bias).clamp(min=0.0) for weight, bias in choices]
    errors = [((output - double) @ root).square().sum() for output in outputs]
    expand, bias = choices[int(errors[1] < errors[0])]
    return project.to(rows.dtype), expand.to(rows.dtype), bias.to(rows.dtype)


@torch.no_grad()
def add_teacher_block(model: KwsModel, teacher: KwsModel, config: TransplantConfig) -> None:
    """Grow ``model`` by the teacher's block for that place, sliced as ``config`` says.

    Both on the CPU; ``config.blocks``: a list.
    Raises: DataError if the teacher has no such block, or it is too small.
    """
    index = len(model.backbone.fsmn)
    cmvn = (teacher.global_cmvn.mean, teacher.global_cmvn.istd)
    donor = KwsModel(model.config.with_num_layers(index + 1), cmvn)
    slices = TransplantConfig(channels=config.channels, blocks=config.blocks[: index + 1])
    transplant(donor, teacher, slices)
    copy_block(model.append_block(), donor.backbone.fsmn[index])


def copy_block(block: nn.ModuleList, other: nn.ModuleList) -> None:
    """Give a block the weights of another of its size."""
    block.load_state_dict(other.state_dict())
