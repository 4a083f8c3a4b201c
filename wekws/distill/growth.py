"""Growing depth: blocks are added to the student while it trains (section ``progressive``).

Axes: N valid frames, H channels between blocks, P memory channels, V tokens.

A new block is inserted between the last one and the head. Where it is the teacher's, block i of the
student is at every depth the one that ``transplant.blocks`` gives for it at full depth. A student
that grows by identity blocks is initialised as that section says for a student with its first
blocks only: ``ends`` pairs these with the teacher's first and last ones; of a list the first items
are used.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wekws.distill.hook import TrainingHook, TrainingRun
from wekws.distill.schedule import share_out
from wekws.distill.transplant import Sample, TransplantConfig, transplant
from wekws.distill.transplant.least_squares import fit_rectified
from wekws.distill.transplant.sample import compute_activations
from wekws.errors import ConfigError
from wekws.model.model import KwsModel


@dataclass(frozen=True, kw_only=True)
class ProgressiveConfig:
    """Section ``progressive``: depth that grows to ``model.backbone.num_layers``."""

    start_blocks: int = 0
    """Blocks at the start; 0: all of them, nothing grows."""
    every: int = 0
    """Epochs from one new block to the next; 0: the same number of epochs at every depth."""
    new_block: Literal["identity", "teacher"] = "identity"
    """``identity``: nearly the identity (see ``near_identity``), so that the loss does not jump.
    ``teacher``: the teacher's block by the transplant's map and channels, for a student that
    itself began with ``--init_from_teacher``; the head has not been trained on it, and the loss
    jumps."""

    def __post_init__(self) -> None:
        """Refuse negative numbers, and settings without effect."""
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
    """Add a block to ``model`` whose output is nearly that of the block before it."""
    backbone = model.backbone
    activations = compute_activations(backbone, sample.rows, sample.packing(model))
    reader = backbone.out_linear2.linear.weight
    if backbone.out_linear1 is not None:
        reader = reader @ backbone.out_linear1.linear.weight
    project, memory, expand = model.append_block().layers
    weights = near_identity(activations.linear[-1], reader, len(project.linear.weight))
    for taps in memory.parameters():
        taps.zero_()
    project.linear.weight.copy_(weights[0])
    expand.linear.weight.copy_(weights[1])
    expand.linear.bias.copy_(weights[2])


def near_identity(rows: Tensor, reader: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (P, H), (H, P), (H,) of a block that reproduces its input as well as possible.

    rows: (N, H) input of the block. It comes from a ReLU, so it is at least 0 and the block's own
    ReLU does not change it; with all taps 0 the memory does not change it either. What loses
    information is the bottleneck of ``width`` = P channels: projection and affine are those of the
    input's first P principal components, which lose the least of all affine maps of that rank, and
    nothing where the input varies in P directions only. The error is measured in the metric
    I + W^T W: on the features and, equally weighted, on the logits; reader: (V, H), the head's W.
    The affine is then fitted again to the ReLU output (see ``rectified_target``), and that fit is
    taken if its error is smaller.
    """
    double, head = rows.double(), reader.double()
    size, mean = rows.shape[1], double.mean(dim=0)
    metric = head.T @ head
    metric = metric / metric.diagonal().mean() + torch.eye(size, dtype=torch.float64)
    root = torch.linalg.cholesky(metric)  # metric = root root^T
    seen = (double - mean) @ root
    vectors = torch.linalg.eigh(seen.T @ seen).eigenvectors.flip(1)
    # With more memory channels than input channels, the rest repeat the first ones, unused so far.
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
    """Add the teacher's block for the next position to ``model``, sliced by ``config.channels``.

    Both models are on the CPU; ``config.blocks`` is a list, not ``ends``.
    Raises: DataError if the teacher has no such block, or is too small.
    """
    assert config.blocks != "ends", "the block map of the full depth is needed"
    index = len(model.backbone.fsmn)
    donor = KwsModel(model.config.with_num_layers(index + 1), teacher.cmvn)
    slices = TransplantConfig(channels=config.channels, blocks=config.blocks[: index + 1])
    transplant(donor, teacher, slices)
    copy_block(model.append_block(), donor.backbone.fsmn[index])


def copy_block(block: nn.Module, other: nn.Module) -> None:
    """Copy the weights of another block of the same sizes."""
    block.load_state_dict(other.state_dict())


def require_teacher_blocks(
    config: TransplantConfig, num_student: int, teacher: KwsModel | None
) -> tuple[int, ...]:
    """Return the teacher's block for each block of the student at full depth.

    num_student: blocks at full depth.
    Raises: ConfigError if there is no teacher, or it lacks one of these blocks.
    """
    num_teacher = teacher.config.backbone.num_layers if teacher is not None else 0
    blocks = config.blocks_for(num_student, num_teacher or num_student)
    if max(blocks) >= num_teacher:
        raise ConfigError(
            f"progressive.new_block: teacher: blocks {list(blocks)} of a teacher that has "
            f"{num_teacher}; change transplant.blocks, or use new_block identity"
        )
    return blocks


class GrowthHook(TrainingHook):
    """Adds the blocks that the student gains in an epoch, before that epoch."""

    def __init__(
        self,
        config: ProgressiveConfig,
        transplant: TransplantConfig,
        *,
        num_layers: int,
        max_epoch: int,
    ) -> None:
        """num_layers: blocks at the end. max_epoch: length of the training."""
        self._config, self._transplant = config, transplant
        self._num_layers, self._max_epoch = num_layers, max_epoch

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Add blocks where the epoch asks for more; log cv_loss before and after."""
        num_layers = self._depth_at(epoch)
        if len(run.model.backbone.fsmn) >= num_layers:
            return
        before = run.cv_loss(run.kept_model)
        while len(run.model.backbone.fsmn) < num_layers:
            self._add_block(run)
        run.update_optimizer_groups()
        figures = {
            "num_layers": num_layers,
            "new_block": self._config.new_block,
            "cv_loss_before": before,
            "cv_loss_after": run.cv_loss(run.kept_model),
        }
        run.log("growth", {"epoch": epoch, **figures})

    def epoch_notes(self, epoch: int) -> dict[str, str | int]:
        """Return the depth, while it is not yet the full one."""
        depth = self._depth_at(epoch)
        return {"num_layers": depth} if depth < self._num_layers else {}

    def _depth_at(self, epoch: int) -> int:
        return self._config.depth_at(epoch, self._num_layers, self._max_epoch)

    def _add_block(self, run: TrainingRun) -> None:
        """Add one block, made on the CPU wherever the run is, to all models of the run."""
        grown, rules = copy.deepcopy(run.model).cpu(), self._transplant
        if self._config.new_block == "teacher":
            teacher = copy.deepcopy(run.teacher)
            blocks = require_teacher_blocks(rules, self._num_layers, teacher)
            assert teacher is not None, "require_teacher_blocks has checked it"
            add_teacher_block(grown, teacher.cpu(), dataclasses.replace(rules, blocks=blocks))
        else:
            add_identity_block(grown, run.draw_sample(grown, rules.num_batches))
        copy_block(run.model.append_block(), grown.backbone.fsmn[-1])
        run.copy_from_first(run.model)
        if run.kept_model is not run.model:
            block = run.kept_model.append_block().requires_grad_(False)
            copy_block(block, run.model.backbone.fsmn[-1])
