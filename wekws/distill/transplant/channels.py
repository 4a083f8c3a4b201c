"""Choice of the source's channels that the student keeps, the same on both sides of a tensor."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.distill.transplant.rules import ChannelRule
from wekws.distill.transplant.sample import Activations
from wekws.model.fsmn import (
    IN_LINEAR1,
    IN_LINEAR2,
    OUT_LINEAR1,
    OUT_LINEAR2,
    expansion_name,
    left_taps_name,
    projection_name,
    right_taps_name,
)
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig


@dataclass(frozen=True)
class Channels:
    """Ascending indices into the source's channels, for every width of the student."""

    input_affine: Tensor
    """Between the two input affines."""
    linear: list[Tensor]
    """Input of block 0, then the output of each block."""
    memory: list[Tensor]
    """Memory of each block."""
    output_affine: Tensor
    """Input of the last layer; of a merged head, the last of ``linear``."""

    def kept_axes(self) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        """Return the kept rows and columns of each layer, by its name; None: all."""
        axes: dict[str, tuple[Tensor | None, Tensor | None]] = {
            IN_LINEAR1: (self.input_affine, None),
            IN_LINEAR2: (self.linear[0], self.input_affine),
            OUT_LINEAR1: (self.output_affine, self.linear[-1]),
            OUT_LINEAR2: (None, self.output_affine),
        }
        for block, memory in enumerate(self.memory):
            axes[projection_name(block)] = memory, self.linear[block]
            axes[left_taps_name(block)] = axes[right_taps_name(block)] = memory, None
            axes[expansion_name(block)] = self.linear[block + 1], memory
        return axes


def evenly_spaced(size: int, num: int) -> Tensor:
    """Return ``num`` of ``size`` channels, evenly spaced, the first and the last included."""
    return torch.linspace(0, size - 1, num, dtype=torch.float64).round().long()


def most_needed(needs: Tensor, num: int) -> Tensor:
    """Return the ``num`` channels with the largest needs, in ascending order. needs: (H,)."""
    return needs.topk(num).indices.sort().values


def need(activations: Tensor, consumer: Tensor) -> Tensor:
    """Return the share of the next layer's input variance that each channel carries, (H,).

    activations: (N, H). consumer: (O, H), weights of the layer that reads them. The mean of a
    channel does not count: a bias can replace it.
    """
    return activations.var(dim=0, unbiased=False) * consumer.square().sum(dim=0)


def choose_channels(
    rule: ChannelRule,
    student: FSMNConfig,
    source: KwsModel,
    blocks: tuple[int, ...],
    activations: Activations | None,
) -> Channels:
    """Return the channels to keep, for every width of the student.

    Where the block map leaves out blocks, the channels between two kept blocks are chosen at the
    output of the earlier one. blocks: the source's block for each block of the student.
    activations: those of the source; the rule ``activation`` needs them.
    """
    weights, sizes = source.state_dict(), source.config.backbone

    def choose(size: int, num: int, reader: str, values: Callable[[Activations], Tensor]) -> Tensor:
        if num == size or rule == "first":
            return torch.arange(num)
        if rule == "uniform":
            return evenly_spaced(size, num)
        assert activations is not None, "channels: activation: without activations"
        return most_needed(need(values(activations), weights[f"{reader}.weight"]), num)

    def choose_linear(boundary: int) -> Tensor:
        head = OUT_LINEAR2 if sizes.is_head_merged else OUT_LINEAR1
        reader = projection_name(boundary) if boundary < sizes.num_layers else head
        return choose(
            sizes.linear_dim, student.linear_dim, reader, lambda seen: seen.linear[boundary]
        )

    def choose_memory(block: int) -> Tensor:
        reader = expansion_name(block)
        return choose(sizes.proj_dim, student.proj_dim, reader, lambda seen: seen.memory[block])

    linear = [choose_linear(boundary) for boundary in (blocks[0], *(block + 1 for block in blocks))]
    output_affine = linear[-1]
    if not student.is_head_merged:
        widths = (sizes.output_affine_dim, student.output_affine_dim)
        output_affine = choose(*widths, OUT_LINEAR2, lambda seen: seen.inner_out)
    widths = (sizes.input_affine_dim, student.input_affine_dim)
    return Channels(
        input_affine=choose(*widths, IN_LINEAR2, lambda seen: seen.inner_in),
        linear=linear,
        memory=[choose_memory(block) for block in blocks],
        output_affine=output_affine,
    )
