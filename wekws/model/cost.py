"""Computational cost of a model: parameters, arithmetic, bytes, context and look-ahead."""

from typing import TypedDict

from torch import Tensor, nn

from wekws.front_end import FrontEnd
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig, skeleton


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


def model_cost(model: KwsModel | ModelConfig, front_end: FrontEnd) -> ModelCost:
    """Return the cost of a model whose frames come from ``front_end``."""
    if isinstance(model, ModelConfig):
        model = skeleton(model)
    by_part = params_by_part(model)
    return {
        "params": sum(by_part.values()),
        "params_by_part": by_part,
        "macs_per_second": round(macs_per_frame(model) * 1000 / front_end.hop_ms),
        "receptive_field_ms": receptive_field_ms(model.config.backbone, front_end),
        "lookahead_ms": lookahead_ms(model.config.backbone, front_end),
        "state_bytes": 4 * state_size(model.config.backbone),
        "size_bytes": size_bytes(model),
    }


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def params_by_part(model: KwsModel) -> dict[str, int]:
    """Return the trainable parameters of each layer, in the order of the network."""
    parts: dict[str, int] = {}
    for name, parameter in model.backbone.named_parameters():
        names = name.split(".")
        part = ".".join(names[:2]) if names[0] == "fsmn" else names[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    order = ["in_linear1", "in_linear2", *(p for p in parts if p.startswith("fsmn."))]
    order += ["out_linear1", "out_linear2"]
    return {part: parts[part] for part in order if part in parts}


def macs_per_frame(model: KwsModel) -> int:
    """Return the multiply-accumulates per frame: every weight is used once."""
    return sum(weight.numel() for weight in _weights(model))


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


def size_bytes(model: KwsModel) -> dict[str, int]:
    """Return the bytes of a model's tensors per number format, CMVN included."""
    num_params = sum(parameter.numel() for parameter in model.parameters())
    num_cmvn = 2 * model.config.input_dim
    num_weights = sum(weight.numel() for weight in _weights(model))
    num_scales = sum(weight.shape[0] for weight in _weights(model))
    num_floats = num_params - num_weights + num_scales + num_cmvn
    return {
        "fp32": 4 * (num_params + num_cmvn),
        "fp16": 2 * (num_params + num_cmvn),
        "int8": num_weights + 4 * num_floats,
    }


def _weights(model: KwsModel) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
