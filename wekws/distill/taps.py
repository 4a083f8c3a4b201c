"""A model's logits together with what went on inside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from wekws.errors import ConfigError


@dataclass(frozen=True)
class Output:
    """What a model says of a batch.

    logits: (B, T, V). hidden: module path -> (N, C), the N valid frames of the batch one
    utterance after another, in the same order for every model that hears the same lengths.
    """

    logits: Tensor
    hidden: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """What all who listen say of a batch.

    teacher: None in plain CTC. again: the student on a second view, where terms want one.
    """

    student: Output
    teacher: Output | None = None
    again: Output | None = None


def forward_tapped(model: nn.Module, x: Tensor, lengths: Tensor, paths: Sequence[str]) -> Output:
    """Run ``model`` and keep the outputs of the modules at ``paths``.

    A layer that the network rectifies in place (``in_linear2`` and the last affine of a block,
    ``backbone.fsmn.N.2``) gives its rectified output: the block's own.
    """
    with _kept_outputs(model, paths) as hidden:
        logits = model(x, lengths)
    return Output(logits, hidden)


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
    outputs: dict[str, Tensor], path: str, module: nn.Module, inputs: tuple, output: Tensor
) -> None:
    outputs[path] = output


@torch.no_grad()
def tap_widths(model: nn.Module, paths: Sequence[str], whose: str) -> dict[str, int]:
    """Return the number of channels at each path.

    whose: ``student`` or ``teacher``, for messages.
    Raises: ConfigError for a path that is no layer of the model.
    """
    known = {name for name, _ in model.named_modules()}
    unknown = [path for path in paths if path not in known]
    if unknown:
        layers = [name for name in known if name.count(".") in (1, 3) and "conv" not in name]
        raise ConfigError(
            f"{whose}: no module {', '.join(unknown)}; expected one of {', '.join(sorted(layers))}"
        )
    device = next(model.parameters()).device
    silence = torch.zeros(1, 1, model.config.input_dim, device=device)
    hidden = forward_tapped(model, silence, torch.ones(1, dtype=torch.long, device=device), paths)
    missing = [path for path in paths if path not in hidden.hidden]
    if missing:
        raise ConfigError(f"{whose}: {', '.join(missing)} has no output of its own; name a layer")
    return {path: hidden.hidden[path].shape[-1] for path in paths}
