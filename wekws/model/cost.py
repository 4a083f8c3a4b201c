"""What a model costs: parameters, arithmetic, bytes, and the audio it has to hear."""

from torch import nn

from wekws.front_end import FrontEnd
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig, skeleton


def model_cost(model: KwsModel | ModelConfig, front_end: FrontEnd) -> dict:
    """Return the cost of a model, ready for JSON.

    params: trainable parameters; CMVN is not trained and not counted.
    params_by_part: the same by layer; a block is its projection, memory and expansion.
    macs_per_second: multiply-accumulates for a second of audio: rows x columns of every matrix and
    channels x taps of every memory, once a frame. Biases, ReLU, CMVN and the front end are left
    out.
    receptive_field_ms: audio that one output frame depends on, from the first sample of the first
    window to the last sample of the last.
    lookahead_ms: audio after a frame's time stamp (the first sample of its middle window) that
    the frame waits for: the future taps of all blocks, the spliced frames, the window itself.
    size_bytes: parameters and CMVN at 4 (fp32) or 2 bytes (fp16). int8: weights of matrices and
    memories at 1 byte, with a float32 scale for each output channel of each tensor; biases and
    CMVN stay float32.
    """
    if isinstance(model, ModelConfig):
        model = skeleton(model)
    by_part = params_by_part(model)
    return {
        "params": sum(by_part.values()),
        "params_by_part": by_part,
        "macs_per_second": round(macs_per_frame(model) * 1000 / front_end.hop_ms),
        "receptive_field_ms": receptive_field_ms(model.config.backbone, front_end),
        "lookahead_ms": lookahead_ms(model.config.backbone, front_end),
        "size_bytes": size_bytes(model),
    }


def num_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def params_by_part(model: KwsModel) -> dict[str, int]:
    """Return trainable parameters by layer, in the order of the network."""
    parts: dict[str, int] = {}
    for name, parameter in model.backbone.named_parameters():
        names = name.split(".")
        part = ".".join(names[:2]) if names[0] == "fsmn" else names[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    order = ["in_linear1", "in_linear2", *(p for p in parts if p.startswith("fsmn."))]
    order += ["out_linear1", "out_linear2"]
    return {part: parts[part] for part in order if part in parts}


def macs_per_frame(model: KwsModel) -> int:
    """Return the multiply-accumulates of one frame: every weight is used once."""
    return sum(weight.numel() for weight in _weights(model))


def receptive_field_ms(config: FSMNConfig, front_end: FrontEnd) -> float:
    """Return the length of audio that one output frame depends on."""
    reach = config.num_layers * (config.left_reach + config.right_reach)
    spliced = front_end.left_context + front_end.right_context
    return reach * front_end.hop_ms + spliced * front_end.frame_shift_ms + front_end.frame_length_ms


def lookahead_ms(config: FSMNConfig, front_end: FrontEnd) -> float:
    """Return the audio after its time stamp that an output frame waits for."""
    ahead = config.num_layers * config.right_reach * front_end.hop_ms
    spliced = front_end.right_context * front_end.frame_shift_ms
    return ahead + spliced + front_end.frame_length_ms


def size_bytes(model: KwsModel) -> dict[str, int]:
    """Return the bytes of a model's tensors by number format, CMVN included."""
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


def _weights(model: KwsModel) -> list[nn.Parameter]:
    return [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
