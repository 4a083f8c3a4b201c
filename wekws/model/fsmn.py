"""Feed-forward sequential memory network, with look-ahead instead of delay.

Axes: B batch, T frames, D input features, V outputs, P channels of the memory, N valid frames of
the whole batch, one utterance after another.

Between input and output the network sees valid frames only, as rows of one (N, .) matrix: padding
costs nothing, and cannot leak into an utterance. Only the memory looks across frames; it spreads
the rows out with silence (zeros) between utterances, as wide as its longest reach.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FSMNConfig:
    """Section ``model.backbone``: sizes of an FSMN.

    input_affine_dim, output_affine_dim: inner width of the linear pairs at either end. An
    output_affine_dim of 0 is a merged head: one affine from linear_dim to the tokens.
    num_layers: blocks. linear_dim: width between blocks. proj_dim: channels of the memory.
    left_order: taps on the present and the past; right_order: taps on the future, 0 for none.
    left_stride, right_stride: frames between taps.
    """

    type: Literal["fsmn"] = "fsmn"
    input_affine_dim: int
    num_layers: int
    linear_dim: int
    proj_dim: int
    left_order: int
    right_order: int
    left_stride: int = 1
    right_stride: int = 1
    output_affine_dim: int

    def __post_init__(self) -> None:
        """Refuse sizes that describe no network."""
        for name in (
            "input_affine_dim",
            "num_layers",
            "linear_dim",
            "proj_dim",
            "left_order",
            "left_stride",
            "right_stride",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected at least 1")
        for name in ("right_order", "output_affine_dim"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; expected at least 0")

    @property
    def is_head_merged(self) -> bool:
        """Whether one affine makes the logits, where others have two."""
        return self.output_affine_dim == 0

    @property
    def left_reach(self) -> int:
        """Frames of the past that one memory sees."""
        return (self.left_order - 1) * self.left_stride

    @property
    def right_reach(self) -> int:
        """Frames of the future that one memory sees."""
        return self.right_order * self.right_stride


@dataclass(frozen=True)
class Packing:
    """Where the valid frames of a batch are.

    rows: (N,) their places among the B * T frames of the batch.
    slots: (N,) their places in a sequence with silence between the utterances.
    num_slots: length of that sequence.
    """

    rows: Tensor
    slots: Tensor
    num_slots: int


def pack(lengths: Tensor, num_frames: int, gap: int) -> Packing:
    """Lay the valid frames of a batch in one sequence, ``gap`` slots after each utterance.

    lengths: (B,) valid frames; 0 is an utterance that is all padding. num_frames: T.
    On a GPU this waits for the device once, to learn how many frames are valid.
    """
    is_valid = torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)
    rows = is_valid.flatten().nonzero().squeeze(1)
    utterance = rows.div(max(num_frames, 1), rounding_mode="floor")
    slots = torch.arange(rows.numel(), device=rows.device) + gap * utterance
    return Packing(rows, slots, rows.numel() + gap * lengths.numel())


class Linear(nn.Module):
    """A linear layer under the key that WeKWS gives it."""

    def __init__(self, input_dim: int, output_dim: int, *, bias: bool = True) -> None:
        """Make ``linear`` of these sizes."""
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) to (..., output_dim)."""
        return self.linear(x)


class Memory(nn.Module):
    """Each channel's weighted sum of its neighbours in time, plus itself.

    ``y[t] = x[t] + sum_i left[i] x[t - (L-1-i) s_l] + sum_j right[j] x[t + (j+1) s_r]``
    Source: Zhang et al. 2018, "Deep-FSMN", arXiv:1803.05030, eq. 7 (without the skip between
    blocks); the order of the taps is that of WeKWS's checkpoints.
    """

    def __init__(self, config: FSMNConfig) -> None:
        """Make the taps; the convolutions hold weights, shapes and initial values only."""
        super().__init__()
        dim = config.proj_dim
        self.config = config
        self.step = math.gcd(config.left_stride, config.right_stride)
        if config.right_order == 0:
            self.step = config.left_stride
        self.conv_left = nn.Conv2d(dim, dim, (config.left_order, 1), groups=dim, bias=False)
        self.conv_right = None
        if config.right_order > 0:
            self.conv_right = nn.Conv2d(dim, dim, (config.right_order, 1), groups=dim, bias=False)

    def forward(self, rows: Tensor, packing: Packing) -> Tensor:
        """(N, P) valid frames to as many.

        The rows are a channels-last image of height N and width 1 as they are, so that one
        depthwise convolution takes all taps and transposes nothing. ``benchmarks/memory_block.py``,
        float32, 64 x 97 frames, 128 channels, one thread, forward + backward: 5 ms, against
        12 to 19 as WeKWS has it (two convolutions over (B, P, T, 1)) and 15 to 19 for shifted
        slices; a hand-written backward won 0.3 ms more and was not worth its lines.
        """
        left, right = self.config.left_reach, self.config.right_reach
        spread = rows.new_zeros(left + packing.num_slots + right, rows.shape[1])
        spread = spread.index_copy(0, packing.slots + left, rows)
        image = spread[None, :, None].permute(0, 3, 1, 2)
        taps = self._taps()[:, None, :, None]
        mixed = F.conv2d(image, taps, dilation=(self.step, 1), groups=len(taps))
        mixed = mixed.permute(0, 2, 3, 1).flatten(0, 2)
        return rows + mixed.index_select(0, packing.slots)

    def _taps(self) -> Tensor:
        """Return (P, K): all taps from the oldest frame to the newest, ``step`` frames apart."""
        taps = [self.conv_left.weight.flatten(1)]
        strides = [self.config.left_stride]
        if self.conv_right is not None:
            taps.append(self.conv_right.weight.flatten(1))
            strides.append(self.config.right_stride)
        if all(stride == self.step for stride in strides):
            return torch.cat(taps, dim=1)
        left, right = (stride // self.step for stride in strides)
        places = [*range(0, self.config.left_order * left, left)]
        places += [places[-1] + right * (j + 1) for j in range(self.config.right_order)]
        empty = taps[0].new_zeros(len(taps[0]), places[-1] + 1)
        index = torch.tensor(places, device=empty.device)
        return empty.index_copy(1, index, torch.cat(taps, dim=1))


def _make_block(config: FSMNConfig) -> nn.ModuleList:
    return nn.ModuleList(
        [
            Linear(config.linear_dim, config.proj_dim, bias=False),
            Memory(config),
            Linear(config.proj_dim, config.linear_dim),
        ]
    )


class FSMN(nn.Module):
    """FSMN of any size in the family; keys are WeKWS's.

    Frame t of the output belongs to frame t of the input. WeKWS pads on the left alone, so that
    its output is this one, late by ``num_layers * right_order * right_stride`` frames (and
    without the last of them); near the edges the two differ a little. A merged head has the key
    of the second output affine, whose rows are the tokens as well, and no first one; WeKWS's own
    network always has both.
    """

    def __init__(self, input_dim: int, output_dim: int, config: FSMNConfig) -> None:
        """Make the layers. Raises: ConfigError unless both sizes are positive."""
        super().__init__()
        if input_dim < 1 or output_dim < 1:
            raise ConfigError(
                f"model: input_dim {input_dim}, output_dim {output_dim}; expected at least 1 "
                "(output_dim is the size of the vocabulary)"
            )
        self.config = config
        self.output_dim = output_dim
        self.in_linear1 = Linear(input_dim, config.input_affine_dim)
        self.in_linear2 = Linear(config.input_affine_dim, config.linear_dim)
        self.fsmn = nn.ModuleList(_make_block(config) for _ in range(config.num_layers))
        self.out_linear1 = None
        if not config.is_head_merged:
            self.out_linear1 = Linear(config.linear_dim, config.output_affine_dim)
        self.out_linear2 = Linear(config.output_affine_dim or config.linear_dim, output_dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map features to logits.

        x: (B, T, D). lengths: (B,) valid frames, anything may follow them; None: all are valid.
        Returns: (B, T, V), zero on padding.
        """
        num_utterances, num_frames = x.shape[:2]
        if lengths is None:
            lengths = torch.full((num_utterances,), num_frames, device=x.device)
        gap = max(self.config.left_reach, self.config.right_reach, 1)
        packing = pack(lengths.to(x.device), num_frames, gap)
        rows = x.reshape(-1, x.shape[2])
        if packing.rows.numel() < rows.shape[0]:
            rows = rows.index_select(0, packing.rows)
        logits = self._classify(rows, packing)
        if packing.rows.numel() < num_utterances * num_frames:
            empty = logits.new_zeros(num_utterances * num_frames, self.output_dim)
            logits = empty.index_copy(0, packing.rows, logits)
        return logits.reshape(num_utterances, num_frames, self.output_dim)

    def append_block(self) -> nn.ModuleList:
        """Put one more block, of random weights, before the head; return it."""
        device = self.out_linear2.linear.weight.device
        self.fsmn.append(_make_block(self.config).to(device))
        self.config = dataclasses.replace(self.config, num_layers=len(self.fsmn))
        return self.fsmn[-1]

    def _classify(self, rows: Tensor, packing: Packing) -> Tensor:
        """(N, D) to (N, V)."""
        rows = F.relu(self.in_linear2(self.in_linear1(rows)), inplace=True)
        for project, memory, expand in self.fsmn:
            rows = F.relu(expand(memory(project(rows), packing)), inplace=True)
        return self.out_linear2(self.inner_out(rows))

    def inner_out(self, rows: Tensor) -> Tensor:
        """Map (N, H) to what the last layer reads: of a merged head, the rows themselves."""
        return rows if self.out_linear1 is None else self.out_linear1(rows)
