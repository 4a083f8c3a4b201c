"""Which channels of the source stay, one choice for both sides of every tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.distill.transplant.draft import Draft
from wekws.distill.transplant.sample import Trace
from wekws.model.fsmn import FSMNConfig


@dataclass(frozen=True)
class Channels:
    """Ascending indices into the source's channels, for each width of the student.

    linear: for the input of block 0, then for the output of each block.
    memory: for each block.
    output_affine: for what the last layer reads; of a merged head, the last of ``linear``.
    """

    input_affine: Tensor
    linear: list[Tensor]
    memory: list[Tensor]
    output_affine: Tensor


def keep(rule: str, size: int, num: int, needs: Tensor | None = None) -> Tensor:
    """Return which ``num`` of ``size`` channels stay, ascending.

    rule: ``first``, ``uniform`` (evenly spaced, both ends included) or ``activation``.
    needs: (size,) how much each is needed, for ``activation``.
    """
    if num == size or rule == "first":
        return torch.arange(num)
    if rule == "uniform":
        return torch.linspace(0, size - 1, num, dtype=torch.float64).round().long()
    return needs.topk(num).indices.sort().values


def need(activations: Tensor, consumer: Tensor) -> Tensor:
    """Return how much of the consumer's input variance each channel carries, (H,).

    activations: (N, H). consumer: (O, H), the weights that read them. A channel's mean is no
    loss: a bias can take it over.
    """
    return activations.var(dim=0, unbiased=False) * consumer.square().sum(dim=0)


def choose_channels(
    rule: str, own: FSMNConfig, theirs: FSMNConfig, draft: Draft, seen: Trace | None
) -> Channels:
    """Return the channels of every width of the student.

    Where the block map leaves blocks out, the channels between two blocks are those of the
    earlier block's output. seen: the source's activations, for ``activation``.
    """
    state = draft.source
    last = theirs.num_layers
    boundaries = [draft.blocks[0], *(block + 1 for block in draft.blocks)]

    def needs(activations: str, index: int | None, consumer: str) -> Tensor | None:
        if rule != "activation":
            return None
        values = getattr(seen, activations)
        values = values if index is None else values[index]
        return need(values, state[f"backbone.{consumer}.linear.weight"])

    def readers(boundary: int) -> str:
        if boundary < last:
            return f"fsmn.{boundary}.0"
        return "out_linear2" if theirs.is_head_merged else "out_linear1"

    linear = [
        keep(rule, theirs.linear_dim, own.linear_dim, needs("linear", b, readers(b)))
        for b in boundaries
    ]
    output_affine = linear[-1]
    if not own.is_head_merged:
        output_affine = keep(
            rule,
            *(theirs.output_affine_dim, own.output_affine_dim),
            needs("inner_out", None, "out_linear2"),
        )
    return Channels(
        input_affine=keep(
            rule,
            *(theirs.input_affine_dim, own.input_affine_dim),
            needs("inner_in", None, "in_linear2"),
        ),
        linear=linear,
        memory=[
            keep(rule, theirs.proj_dim, own.proj_dim, needs("memory", b, f"fsmn.{b}.2"))
            for b in draft.blocks
        ],
        output_affine=output_affine,
    )


def slice_all(draft: Draft, channels: Channels) -> None:
    """Fill the draft with the kept rows and columns of every tensor.

    Of the taps on the past the last stay, of those on the future the first: the nearest to the
    present. CMVN is copied.
    """
    for name, shape in draft.shapes.items():
        source = draft.of(name)
        tensor = source
        for axis, kept in enumerate(_kept_along(name, channels)):
            if kept is not None:
                tensor = tensor.index_select(axis, kept.to(tensor.device))
        if name.endswith("conv_left.weight"):
            tensor = tensor[:, :, tensor.shape[2] - shape[2] :]
        elif name.endswith("conv_right.weight"):
            tensor = tensor[:, :, : shape[2]]
        draft.put(name, tensor.clone(), "copied" if tensor.shape == source.shape else "sliced")


def _kept_along(name: str, channels: Channels) -> tuple[Tensor | None, ...]:
    """Return the kept indices along rows and columns of a tensor; None: all."""
    parts = name.split(".")
    if parts[0] != "backbone":
        return ()
    if parts[1] == "fsmn":
        block, stage = int(parts[2]), int(parts[3])
        rows, columns = [
            (channels.memory[block], channels.linear[block]),
            (channels.memory[block], None),
            (channels.linear[block + 1], channels.memory[block]),
        ][stage]
    else:
        rows, columns = {
            "in_linear1": (channels.input_affine, None),
            "in_linear2": (channels.linear[0], channels.input_affine),
            "out_linear1": (channels.output_affine, channels.linear[-1]),
            "out_linear2": (None, channels.output_affine),
        }[parts[1]]
    return (rows,) if parts[-1] == "bias" else (rows, columns)
