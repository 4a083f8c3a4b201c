"""Forward passes that keep the outputs of inner layers.

Axes: B batch, T frames, V vocabulary, N valid frames, C channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from wekws.errors import ConfigError
from wekws.model.model import KwsModel


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of one model for a batch."""

    logits: Tensor
    """(B, T, V), unnormalised."""
    features: dict[str, Tensor] = field(default_factory=dict)
    """Module path -> (N, C): the valid frames of the batch, one utterance after another, in the
    same order for every model that takes the same lengths."""


@dataclass(frozen=True)
class StepOutputs:
    """Outputs of student and teacher for a batch."""

    student: ModelOutputs
    teacher: ModelOutputs | None = None
    """None where no term needs the teacher."""
    second_view: ModelOutputs | None = None
    """The student's outputs on another view of the same utterances; None where no term needs it."""


def forward_tapped(
    model: nn.Module, x: Tensor, lengths: Tensor, paths: Sequence[str]
) -> ModelOutputs:
    """Run ``model`` and keep the outputs of the modules at ``paths``.

    Layers whose output the network rectifies in place (``in_linear2`` and the last affine of a
    block, ``backbone.fsmn.N.2``) give the rectified output.
    """
    with _kept_outputs(model, paths) as features:
        logits = model(x, lengths)
    num_valid = int(lengths.sum()) if paths else 0  # in bfloat16, rows that are ignored follow
    return ModelOutputs(logits, {path: rows[:num_valid] for path, rows in features.items()})


@contextmanager
def _kept_outputs(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    outputs: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(partial(_keep, outputs, path))
        for path in paths
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _keep(
    outputs: dict[str, Tensor],
    path: str,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    outputs[path] = output


@torch.no_grad()
def tap_widths(model: KwsModel, paths: Sequence[str], whose: str) -> dict[str, int]:
    """Return the number of channels at each path.

    whose: ``student`` or ``teacher``, for messages.
    Raises: ConfigError for a path that is no layer of the model.
    """
    known = {name for name, _ in model.named_modules()}
    unknown = [path for path in paths if path not in known]
    if unknown:
        layers = [name for name in known if name.count(".") in (1, 3) and "conv" not in name]
        raise ConfigError(
            f"{whose}: no module {', '.join(unknown)}; expected one of "
            f"{', '.join(sorted(layers))} (those that end in .2 are the outputs of blocks 0 to "
            f"{model.config.backbone.num_layers - 1})"
        )
    device = next(model.parameters()).device
    silence = torch.zeros(1, 1, model.config.input_dim, device=device)
    lengths = torch.ones(1, dtype=torch.long, device=device)
    features = forward_tapped(model, silence, lengths, paths).features
    missing = [path for path in paths if path not in features]
    if missing:
        raise ConfigError(f"{whose}: {', '.join(missing)} is no layer with an output; name a layer")
    return {path: features[path].shape[-1] for path in paths}
