"""Feed-forward sequential memory network (FSMN), with look-ahead instead of delay.

Axes: B batch, T frames, D input features, V output tokens, H channels between blocks, P memory
channels, K taps of a memory, N valid frames of the whole batch, one utterance after another, then
perhaps some that are ignored.

The layers compute on valid frames only, as rows of one (N, .) matrix: padding costs nothing and
cannot leak into an utterance. Only the memory combines frames; for that it places the rows on a
time axis with zeros between utterances, at least as many as its longest tap reaches.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.errors import ConfigError
from wekws.model.model_conf import FSMNConfig

# In bfloat16 on the CPU the rows are filled up to a multiple of this: oneDNN compiles a program for
# each size of a matrix, and the number of valid frames is a new one in every step.
_BF16_ROWS = 256

# Layer names in the state dict of a ``KwsModel``: those of WeKWS's checkpoints. An affine has
# ``.weight`` and ``.bias`` below its name. A merged head is OUT_LINEAR2 alone.
IN_LINEAR1 = "backbone.in_linear1.linear"
IN_LINEAR2 = "backbone.in_linear2.linear"
OUT_LINEAR1 = "backbone.out_linear1.linear"
OUT_LINEAR2 = "backbone.out_linear2.linear"
BLOCKS = "backbone.fsmn"


def projection_name(block: int) -> str:
    """Return the name of a block's projection, which has a weight and no bias."""
    return f"{BLOCKS}.{block}.0.linear"


def left_taps_name(block: int) -> str:
    """Return the name of a memory's taps on the present and the past."""
    return f"{BLOCKS}.{block}.1.conv_left"


def right_taps_name(block: int) -> str:
    """Return the name of a memory's taps on the future; absent where right_order is 0."""
    return f"{BLOCKS}.{block}.1.conv_right"


def expansion_name(block: int) -> str:
    """Return the name of a block's last affine."""
    return f"{BLOCKS}.{block}.2.linear"


def block_path(block: int) -> str:
    """Return the module path whose output, rectified in place, is that of a block."""
    return f"{BLOCKS}.{block}.2"


@dataclass(frozen=True)
class Packing:
    """Positions of the valid frames of a batch."""

    rows: Tensor
    """(N,) indices into the B * T frames of the batch."""
    slots: Tensor
    """(N,) indices into a time axis that has zeros between the utterances."""
    num_slots: int
    """Length of that time axis."""
    num_valid: int
    """Valid frames; the rows after them repeat a frame and are ignored."""


def pack(
    lengths: Tensor,
    num_frames: int,
    gap: int,
    device: torch.device | str = "cpu",
    multiple: int = 1,
) -> Packing:
    """Place the valid frames of a batch on one time axis, ``gap`` empty slots after each utterance.

    lengths: (B,) valid frames, best on the CPU, see ``valid_rows``; 0 is an utterance that is all
    padding. num_frames: T. device: where the positions are needed. multiple: N and the length of
    the time axis become multiples of it, by rows after the last utterance that are ignored.
    """
    rows = valid_rows(lengths, num_frames)
    slots = np.arange(len(rows)) + gap * (rows // max(num_frames, 1))
    num_valid, num_slots = len(rows), len(rows) + gap * lengths.numel()
    if num_more := -num_valid % multiple if num_valid else 0:
        slots = np.append(slots, num_slots + np.arange(num_more))
        rows = np.append(rows, np.full(num_more, rows[0]))
    num_slots += num_more
    num_slots += -num_slots % multiple
    return Packing(
        torch.from_numpy(rows).to(device, non_blocking=True),
        torch.from_numpy(slots).to(device, non_blocking=True),
        num_slots,
        num_valid,
    )


def valid_rows(lengths: Tensor, num_frames: int) -> np.ndarray:
    """Return the indices (N,) of the valid frames among the B * T frames of a batch.

    lengths: (B,) valid frames; best on the CPU, since their number sizes the result: of lengths on
    a GPU this waits for all work that the GPU has been given.
    """
    is_valid = np.arange(num_frames) < lengths.cpu().numpy()[:, None]
    return np.flatnonzero(is_valid)


class Linear(nn.Module):
    """Linear layer whose parameters have WeKWS's names, ``linear.weight`` and ``linear.bias``."""

    def __init__(self, input_dim: int, output_dim: int, *, bias: bool = True) -> None:
        """Create the layer with random weights."""
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) to (..., output_dim)."""
        return self.linear(x)


class Memory(nn.Module):
    """Weighted sum of neighbouring frames, per channel, plus the present frame.

    ``y[t] = x[t] + sum_i left[i] x[t - (L-1-i) s_l] + sum_j right[j] x[t + (j+1) s_r]``
    Source: Zhang et al. 2018, "Deep-FSMN", arXiv:1803.05030, eq. 7 (without the skip between
    blocks); the order of the taps is that of WeKWS's checkpoints.
    """

    def __init__(self, config: FSMNConfig) -> None:
        """Create the taps; the convolutions only hold weights, ``forward`` does not call them."""
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
        """Map (N, P) valid frames to (N, P).

        The rows already are a channels-last image of height N and width 1, so one depthwise
        convolution computes all taps without a transpose. ``benchmarks/memory_block.py``, float32,
        64 x 97 frames, 128 channels, one thread, forward + backward: 5 ms, against 12 to 19 for
        WeKWS's form (two convolutions over (B, P, T, 1)) and 15 to 19 for shifted slices. A
        hand-written backward pass saved another 0.3 ms and was not worth the code.
        """
        left, right = self.config.left_reach, self.config.right_reach
        spread = rows.new_zeros(left + packing.num_slots + right, rows.shape[1])
        spread = spread.index_copy(0, packing.slots + left, rows)
        return rows + self.mix(spread).index_select(0, packing.slots)

    def mix(self, axis: Tensor) -> Tensor:
        """Return the sums over the taps at each inner frame of one time axis.

        axis: (T, P), longer than the memory reaches. Returns: (T - left_reach - right_reach, P),
        without the present frame itself.
        """
        image = axis[None, :, None].permute(0, 3, 1, 2)
        taps = self._taps()[:, None, :, None]
        mixed = F.conv2d(image, taps, dilation=(self.step, 1), groups=len(taps))
        return mixed.permute(0, 2, 3, 1).flatten(0, 2)

    def _taps(self) -> Tensor:
        """Return (P, K) taps from the oldest frame to the newest, ``step`` frames apart."""
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


class FSMNBlock(nn.ModuleList):
    """Projection, memory and expansion of one block, as items 0, 1 and 2."""

    def __init__(self, config: FSMNConfig) -> None:
        """Create the layers with random weights."""
        super().__init__(
            [
                Linear(config.linear_dim, config.proj_dim, bias=False),
                Memory(config),
                Linear(config.proj_dim, config.linear_dim),
            ]
        )

    @property
    def layers(self) -> tuple[Linear, Memory, Linear]:
        """Projection (H to P), memory (P) and expansion (P to H)."""
        project, memory, expand = self
        assert isinstance(project, Linear) and isinstance(memory, Memory)
        assert isinstance(expand, Linear)
        return project, memory, expand


class FSMN(nn.Module):
    """FSMN of any size; parameters have WeKWS's names.

    Frame t of the output belongs to frame t of the input. WeKWS pads on the left only, so its
    output equals this one, delayed by ``num_layers * right_order * right_stride`` frames (and
    without the last ones); near the edges the two differ slightly. A merged head is
    ``out_linear2`` without ``out_linear1``; WeKWS's own network always has both.
    """

    def __init__(self, input_dim: int, output_dim: int, config: FSMNConfig) -> None:
        """Create the layers. Raises: ConfigError unless both sizes are positive."""
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
        self.fsmn = nn.ModuleList(FSMNBlock(config) for _ in range(config.num_layers))
        self.out_linear1 = None
        if not config.is_head_merged:
            self.out_linear1 = Linear(config.linear_dim, config.output_affine_dim)
        self.out_linear2 = Linear(config.output_affine_dim or config.linear_dim, output_dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map features to logits.

        x: (B, T, D). lengths: (B,) valid frames, best on the CPU whatever the device of x, see
        ``valid_rows``; padding may hold anything. None: all are valid.
        Returns: (B, T, V), zero on padding.
        """
        num_utterances, num_frames = x.shape[:2]
        if lengths is None:
            lengths = torch.full((num_utterances,), num_frames)
        gap = max(self.config.left_reach, self.config.right_reach, 1)
        is_bf16_on_cpu = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        multiple = _BF16_ROWS if is_bf16_on_cpu else 1
        packing = pack(lengths, num_frames, gap, x.device, multiple)
        num_valid = packing.num_valid
        rows = x.reshape(-1, x.shape[2])
        if len(packing.rows) > num_valid or num_valid < len(rows):
            rows = rows.index_select(0, packing.rows)
        logits = self._classify(rows, packing)[:num_valid]
        if num_valid < num_utterances * num_frames:
            empty = logits.new_zeros(num_utterances * num_frames, self.output_dim)
            logits = empty.index_copy(0, packing.rows[:num_valid], logits)
        return logits.reshape(num_utterances, num_frames, self.output_dim)

    @property
    def blocks(self) -> list[FSMNBlock]:
        """The blocks, first to last; ``fsmn``, which gives them WeKWS's names, in a typed form."""
        return [block for block in self.fsmn if isinstance(block, FSMNBlock)]

    def append_block(self) -> FSMNBlock:
        """Add a block with random weights between the last one and the head, and return it."""
        device = self.out_linear2.linear.weight.device
        block = FSMNBlock(self.config).to(device)
        self.fsmn.append(block)
        self.config = dataclasses.replace(self.config, num_layers=len(self.fsmn))
        return block

    def _classify(self, rows: Tensor, packing: Packing) -> Tensor:
        """Map (N, D) to (N, V)."""
        rows = F.relu(self.in_linear2(self.in_linear1(rows)), inplace=True)
        for block in self.blocks:
            project, memory, expand = block.layers
            rows = F.relu(expand(memory(project(rows), packing)), inplace=True)
        return self.out_linear2(self.inner_out(rows))

    def inner_out(self, rows: Tensor) -> Tensor:
        """Map (N, H) to the input of the last layer; the identity where the head is merged."""
        return rows if self.out_linear1 is None else self.out_linear1(rows)
