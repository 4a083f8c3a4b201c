"""The streaming ONNX graph of a model: frames and state in, log-probabilities and state out.

Axes: B batch, T frames, D input features, V tokens, H channels between blocks, P memory channels,
L blocks, C frames that a memory keeps, S numbers of state.

The graph is written node by node, not traced: every name and shape in it is chosen here, and the
file depends on no exporter's version. Activations are (B, channels, T), and each affine is a
convolution of width 1: in int8, onnxruntime runs these faster than matrix products.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wekws.errors import ConfigError
from wekws.model.cmvn import CMVN_KEYS
from wekws.model.cost import state_size
from wekws.model.fold import fold_head, why_larger
from wekws.model.fsmn import (
    BLOCKS,
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

OPSET, IR_VERSION = 17, 8  # onnxruntime 1.12 (2022) and newer read these
TO_THE_END = 2**62


class GraphWriter:
    """Nodes and constants of a graph that is being written."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        """Start an empty graph. weights: those of the model, by their names in its state dict."""
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray] = {}

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray | list[int]) -> str:
        """Add a constant, lists as int64; return its name."""
        self._constants[name] = np.ascontiguousarray(value)
        return name

    def slice(self, x: str, start: int, end: int, axis: int, name: str) -> str:
        """Add the part of ``x`` from start to end (negative: from the end) of an axis."""
        bounds = {"start": start, "end": end, "axis": axis}
        places = [self.constant(f"{name}.{key}", [value]) for key, value in bounds.items()]
        return self.node("Slice", [x, *places], name)

    def split(self, x: str, num_parts: int) -> list[str]:
        """Add the equal parts of axis 1 of ``x``."""
        parts = [f"{x}_{i}" for i in range(num_parts)]
        self._nodes.append(helper.make_node("Split", [x], parts, name=f"{x}_split", axis=1))
        return parts

    def normalise(self, frames: str, model: KwsModel) -> str:
        """Add CMVN; map frames (B, T, D) to (B, D, T)."""
        if model.cmvn is not None:
            mean, istd = (self.constant(name, self._weights[name]) for name in CMVN_KEYS)
            frames = self.node("Sub", [frames, mean], "centred")
            if model.config.cmvn.norm_var:
                frames = self.node("Mul", [frames, istd], "normalised")
        return self.node("Transpose", [frames], "input_channels", perm=[0, 2, 1])

    def affine(self, x: str, layer: str, name: str) -> str:
        """Add a linear layer of the model, with a bias if it has one; x: (B, channels, T)."""
        weight = self._weights[f"{layer}.weight"]
        inputs = [x, self.constant(f"{layer}.weight", weight[:, :, None])]
        if f"{layer}.bias" in self._weights:
            inputs.append(self.constant(f"{layer}.bias", self._weights[f"{layer}.bias"]))
        return self.node("Conv", inputs, name)

    def head(self, x: str, sizes: FSMNConfig) -> str:
        """Add the output affines; map (B, H, T) to logits (B, T, V)."""
        if not sizes.is_head_merged:
            x = self.affine(x, OUT_LINEAR1, "out_linear1")
        x = self.affine(x, OUT_LINEAR2, "out_linear2")
        return self.node("Transpose", [x], "logits", perm=[0, 2, 1])

    def taps(self, block: int, sizes: FSMNConfig) -> NDArray[np.float32]:
        """Return the taps (P, C + 1) of a memory, oldest frame first, with the present frame."""
        taps = np.zeros((sizes.proj_dim, kept_frames(sizes) + 1), np.float32)
        left = self._weights[f"{left_taps_name(block)}.weight"]
        taps[:, : sizes.left_reach + 1 : sizes.left_stride] = left.reshape(sizes.proj_dim, -1)
        taps[:, sizes.left_reach] += 1
        if sizes.right_order:
            right = self._weights[f"{right_taps_name(block)}.weight"]
            first = sizes.left_reach + sizes.right_stride
            taps[:, first :: sizes.right_stride] = right.reshape(sizes.proj_dim, -1)
        return taps

    def model(
        self, *, inputs: dict[str, list[str | int]], outputs: dict[str, list[str | int]]
    ) -> onnx.ModelProto:
        """Return the graph as a checked model; inputs, outputs: shapes of float32 tensors."""
        graph = helper.make_graph(
            self._nodes,
            "fsmn",
            [_float_tensor(*item) for item in inputs.items()],
            [_float_tensor(*item) for item in outputs.items()],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="wekws-distill",
        )
        onnx.checker.check_model(model)
        return model


def _float_tensor(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weights_of(model: KwsModel) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a model by their names in its state dict."""
    return {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def smallest_form(model: KwsModel) -> KwsModel:
    """Return the model, with its head folded where that is smaller."""
    return model if why_larger(model.config.backbone, model.config.output_dim) else fold_head(model)


def kept_frames(config: FSMNConfig) -> int:
    """Return C: the frames that every memory keeps from one call to the next.

    Raises: ConfigError if there are none: such a network has no state.
    """
    kept = config.left_reach + config.right_reach
    if kept == 0:
        raise ConfigError(
            "left_order 1 and right_order 0: no memory, so there is nothing to stream"
        )
    return kept


def delay_frames(config: FSMNConfig) -> int:
    """Return by how many frames the graph's outputs are late: the network's look-ahead."""
    return config.num_layers * config.right_reach


def stream_graph(model: KwsModel) -> onnx.ModelProto:
    """Return the streaming graph of a model.

    Inputs: ``frames`` (B, T, D); ``valid`` (B, T), 1 for a frame of the recording and 0 for one
    after its end; ``state`` (B, S), zeros at the start of a recording. Outputs: ``log_probs``
    (B, T, V) and ``next_state`` (B, S).
    Output t belongs to the frame that came `delay_frames` before input t. So the first outputs of
    a recording have no meaning, and after its end as many frames with ``valid`` 0 (and any finite
    content) bring out the last ones. As in ``model``, what a memory sees before the start and
    after the end is 0; the outputs are those of ``model`` for the whole recording.
    """
    config, sizes = model.config, model.config.backbone
    writer = GraphWriter(weights_of(model))
    num_cached = sizes.num_layers * kept_frames(sizes) * sizes.proj_dim
    cached = writer.slice("state", 0, num_cached, 1, "cached")
    shape = [-1, sizes.num_layers * sizes.proj_dim, kept_frames(sizes)]
    cached = writer.node("Reshape", [cached, writer.constant("cache_shape", shape)], "caches")
    masks, past_validity = _masks(writer, sizes, num_cached)
    x = writer.normalise("frames", model)
    x, caches = run_blocks(writer, sizes, x, writer.split(cached, sizes.num_layers), masks)
    x = writer.head(x, sizes)
    writer.node("LogSoftmax", [x], "log_probs", axis=-1)
    merged = writer.node("Concat", caches, "next_caches", axis=1)
    flat = writer.constant("flat_shape", [-1, num_cached])
    parts = [writer.node("Reshape", [merged, flat], "next_cached"), *past_validity]
    writer.node("Concat", parts, "next_state", axis=1)
    size = state_size(sizes)
    return writer.model(
        inputs={
            "frames": ["B", "T", config.input_dim],
            "valid": ["B", "T"],
            "state": ["B", size],
        },
        outputs={"log_probs": ["B", "T", config.output_dim], "next_state": ["B", size]},
    )


def run_blocks(
    writer: GraphWriter,
    sizes: FSMNConfig,
    x: str,
    caches: list[str],
    masks: list[str],
    num_extra: int = 0,
) -> tuple[str, list[str]]:
    """Write input affines and blocks.

    x: (B, D, T). caches: (B, P, C) per block. masks: (B, 1, T) per block, 0 where its input is no
    frame of the recording; empty: all frames count. num_extra: last frames that leave no trace in
    the caches.
    Returns: (B, H, T), and the next caches. Each block is late by `right_reach` frames.
    """
    end = -num_extra or TO_THE_END
    x = writer.affine(writer.affine(x, IN_LINEAR1, "in_linear1"), IN_LINEAR2, "in_linear2")
    x = writer.node("Relu", [x], "block_0")
    next_caches = []
    for i, cache in enumerate(caches):
        x = writer.affine(x, projection_name(i), f"projection_{i}")
        if masks:
            x = writer.node("Mul", [x, masks[i]], f"masked_{i}")
        x = writer.node("Concat", [cache, x], f"window_{i}", axis=2)
        start = -kept_frames(sizes) - num_extra
        next_caches.append(writer.slice(x, start, end, 2, f"next_cache_{i}"))
        taps = writer.constant(f"{BLOCKS}.{i}.taps", writer.taps(i, sizes)[:, None])
        x = writer.node("Conv", [x, taps], f"memory_{i}", group=sizes.proj_dim)
        x = writer.affine(x, expansion_name(i), f"expansion_{i}")
        x = writer.node("Relu", [x], f"block_{i + 1}")
    return x, next_caches


def _masks(writer: GraphWriter, sizes: FSMNConfig, num_cached: int) -> tuple[list[str], list[str]]:
    """Write the validity of each block's input; return it, and the part of the next state."""
    reach, delay = sizes.right_reach, delay_frames(sizes)
    if delay == 0:
        axis = writer.constant("channel_axis", [1])
        return [writer.node("Unsqueeze", ["valid", axis], "mask")] * sizes.num_layers, []
    past = writer.slice("state", num_cached, TO_THE_END, 1, "past_valid")
    validity = writer.node("Concat", [past, "valid"], "validity", axis=1)
    axis = writer.constant("channel_axis", [1])
    channel = writer.node("Unsqueeze", [validity, axis], "validity_channel")
    masks = []
    for i in range(sizes.num_layers):
        # Block i takes frames that are late by i * reach.
        end = -i * reach if i else TO_THE_END
        masks.append(writer.slice(channel, delay - i * reach, end, 2, f"mask_{i}"))
    return masks, [writer.slice(validity, -delay, TO_THE_END, 1, "next_valid")]
