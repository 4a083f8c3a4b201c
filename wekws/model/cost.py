"""Computational cost of a model: parameters, arithmetic, bytes, context and look-ahead."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

from wekws.front_end import FrontEnd
from wekws.model.model_conf import FSMNConfig, ModelConfig


class ModelCost(TypedDict):
    """Cost of a model, ready for JSON."""

    params: int
    """Trainable parameters; CMVN is not trained and not counted."""
    params_by_part: dict[str, int]
    """The same per layer; a block is its projection, memory and expansion."""
    macs_per_second: int
    """Multiply-accumulates per second of audio: rows x columns of every matrix and channels x taps
    of every memory, once per frame. Biases, ReLU, CMVN and the front end are not counted."""
    receptive_field_ms: float
    """Audio that one output frame depends on, from the first sample of the first window to the
    last sample of the last window."""
    lookahead_ms: float
    """Audio needed after the time stamp of a frame (the first sample of its middle window): the
    future taps of all blocks, the future context frames, and the window itself."""
    state_bytes: int
    """Bytes of state per stream, float32."""
    size_bytes: dict[str, int]
    """Bytes of parameters and CMVN: ``fp32`` 4 and ``fp16`` 2 per value; ``int8``: 1 per weight of
    matrices and memories plus a float32 scale per output channel of each tensor, while biases and
    CMVN stay float32."""


@dataclass(frozen=True)
class _Matrix:
    """A weight matrix, or the taps of a memory, with its bias."""

    part: str
    """Layer that it belongs to."""
    num_rows: int
    """Output channels."""
    num_columns: int
    """Inputs, or taps, of each output channel."""
    has_bias: bool = True
    """Whether each output channel has a bias."""

    @property
    def num_weights(self) -> int:
        return self.num_rows * self.num_columns

    @property
    def num_biases(self) -> int:
        return self.num_rows if self.has_bias else 0


def _matrices(config: ModelConfig) -> Iterator[_Matrix]:
    """Yield what a network of these sizes consists of, in its order."""
    sizes = config.backbone
    yield _Matrix("in_linear1", sizes.input_affine_dim, config.input_dim)
    yield _Matrix("in_linear2", sizes.linear_dim, sizes.input_affine_dim)
    for block in range(sizes.num_layers):
        part = f"fsmn.{block}"
        yield _Matrix(part, sizes.proj_dim, sizes.linear_dim, has_bias=False)
        for order in (sizes.left_order, sizes.right_order):
            if order > 0:
                yield _Matrix(part, sizes.proj_dim, order, has_bias=False)
        yield _Matrix(part, sizes.linear_dim, sizes.proj_dim)
    if not sizes.is_head_merged:
        yield _Matrix("out_linear1", sizes.output_affine_dim, sizes.linear_dim)
    yield _Matrix("out_linear2", config.output_dim, sizes.output_affine_dim or sizes.linear_dim)


def model_cost(config: ModelConfig, front_end: FrontEnd) -> ModelCost:
    """Return the cost of a model whose frames come from ``front_end``."""
    by_part = params_by_part(config)
    return {
        "params": sum(by_part.values()),
        "params_by_part": by_part,
        "macs_per_second": round(macs_per_frame(config) * 1000 / front_end.hop_ms),
        "receptive_field_ms": receptive_field_ms(config.backbone, front_end),
        "lookahead_ms": lookahead_ms(config.backbone, front_end),
        "state_bytes": 4 * state_size(config.backbone),
        "size_bytes": size_bytes(config),
    }


def params_by_part(config: ModelConfig) -> dict[str, int]:
    """Return the trainable parameters of each layer, in the order of the network."""
    parts: dict[str, int] = {}
    for matrix in _matrices(config):
        parts[matrix.part] = parts.get(matrix.part, 0) + matrix.num_weights + matrix.num_biases
    return parts


def macs_per_frame(config: ModelConfig) -> int:
    """Return the multiply-accumulates per frame: every weight is used once."""
    return sum(matrix.num_weights for matrix in _matrices(config))


def receptive_field_ms(config: FSMNConfig, front_end: FrontEnd) -> float:
    """Return the length of the audio that one output frame depends on."""
    reach = config.num_layers * (config.left_reach + config.right_reach)
    spliced = front_end.left_context + front_end.right_context
    return reach * front_end.hop_ms + spliced * front_end.frame_shift_ms + front_end.frame_length_ms


def lookahead_ms(config: FSMNConfig, front_end: FrontEnd) -> float:
    """Return the length of the audio needed after the time stamp of an output frame."""
    ahead = config.num_layers * config.right_reach * front_end.hop_ms
    spliced = front_end.right_context * front_end.frame_shift_ms
    return ahead + spliced + front_end.frame_length_ms


def state_size(config: FSMNConfig) -> int:
    """Return the numbers that an exported network keeps of a stream.

    Every memory keeps the frames that it reaches, and the network the validity of the frames that
    it looks ahead.
    """
    kept = config.left_reach + config.right_reach
    return config.num_layers * (kept * config.proj_dim + config.right_reach)


def size_bytes(config: ModelConfig) -> dict[str, int]:
    """Return the bytes of a model's tensors per number format, CMVN included."""
    matrices = tuple(_matrices(config))
    num_cmvn = 2 * config.input_dim
    num_weights = sum(matrix.num_weights for matrix in matrices)
    num_biases = sum(matrix.num_biases for matrix in matrices)
    num_scales = sum(matrix.num_rows for matrix in matrices)
    num_all = num_weights + num_biases + num_cmvn
    return {
        "fp32": 4 * num_all,
        "fp16": 2 * num_all,
        "int8": num_weights + 4 * (num_scales + num_biases + num_cmvn),
    }
