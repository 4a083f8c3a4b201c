"""The output layers: two affines, or the single one of a merged head.

Axes: N frames, I inputs, H channels after the last block, V tokens.
"""

import dataclasses
import logging

import torch
from torch import Tensor

from wekws.distill.transplant.least_squares import compensate, fit_affine
from wekws.distill.transplant.linear_pairs import factor, put_pair
from wekws.distill.transplant.rules import Compensation
from wekws.distill.transplant.sample import SourceData
from wekws.distill.transplant.state import TransplantState
from wekws.errors import DataError
from wekws.model.checkpoint import model_of
from wekws.model.fold import fold_head
from wekws.model.fsmn import OUT_LINEAR1, OUT_LINEAR2
from wekws.model.model import KwsModel

logger = logging.getLogger(__name__)

_SOFTMAX_RIDGE = 1e-3


def with_head_of(student: KwsModel, source: KwsModel) -> KwsModel:
    """Return the source, its head folded or split where the student's is of the other form."""
    sizes, source_sizes = student.config.backbone, source.config.backbone
    if sizes.is_head_merged == source_sizes.is_head_merged:
        return source
    if sizes.is_head_merged:
        logger.info("transplant: the source's two output affines are folded into one first")
        return fold_head(source)
    width = sizes.output_affine_dim
    logger.info("transplant: the source's merged head is split first, inner width %d", width)
    return split_head(source, width)


@torch.no_grad()
def split_head(model: KwsModel, width: int) -> KwsModel:
    """Return a model with two output affines in place of a merged head.

    width: between the two affines. From the number of tokens on nothing is lost; below it, the
    truncated SVD loses as little as possible. Returns: on the CPU, in eval mode.
    """
    state = model.state_dict()
    weights = factor(state[f"{OUT_LINEAR2}.weight"], width)
    state[f"{OUT_LINEAR1}.weight"], state[f"{OUT_LINEAR2}.weight"] = weights
    state[f"{OUT_LINEAR1}.bias"] = torch.zeros(width)
    backbone = dataclasses.replace(model.config.backbone, output_affine_dim=width)
    config = dataclasses.replace(model.config, backbone=backbone)
    return model_of(config, state, source="the split head")


def require_copied_head(state: TransplantState) -> None:
    """Raise DataError naming the tensors of the head whose size is not the source's."""
    names = [f"{layer}.{part}" for layer in state.head for part in ("weight", "bias")]
    sizes = [
        f"{n}: source {tuple(state.source_of(n).shape)}, student {tuple(state.shapes[n])}"
        for n in names
        if not state.is_copied(n)
    ]
    if sizes:
        raise DataError("transplant.head: copy: does not fit:\n  " + "\n  ".join(sizes))


def factor_head(state: TransplantState) -> None:
    """Replace the slices of the output affines by the truncated SVD of their product."""
    if not state.sizes.is_head_merged and not state.is_affine_copied(*state.head):
        put_pair(
            state, (OUT_LINEAR1, OUT_LINEAR2), _sliced_product(state), None, state.config.pairs
        )


def _sliced_product(state: TransplantState) -> tuple[Tensor, Tensor]:
    """Return the product of the source's output affines for the kept channels."""
    matrix, bias = state.source_product(OUT_LINEAR1, OUT_LINEAR2)
    return matrix[:, state.channels.linear[-1]].float(), bias.float()


def fit_head(state: TransplantState, data: SourceData, inputs: Tensor) -> None:
    """Fill the output layers by slices or SVD, corrected by the compensation rule.

    inputs: (N, H) input of the head: the source's kept channels, or the student's activations.
    """
    rule = state.config.compensation
    has_last_block = state.boundaries[-1] == len(data.activations.memory)
    if rule != "sequential" and has_last_block and state.is_affine_copied(*state.head):
        return
    rule = "least_squares" if rule == "sequential" else rule
    if state.config.pairs != "slice" and not state.sizes.is_head_merged:
        _fit_factored_head(state, data, inputs, rule)
    elif rule != "none":
        _fit_sliced_head(state, data, inputs, rule)


def _fit_factored_head(
    state: TransplantState, data: SourceData, inputs: Tensor, rule: Compensation
) -> None:
    affine, action = _sliced_product(state), str(state.config.pairs)
    if rule != "none":
        affine = compensate(rule, *affine, inputs, data.activations.logits)
        action = f"{rule} + {action}"
    weighting = inputs if state.config.pairs == "data_svd" else None
    put_pair(state, (OUT_LINEAR1, OUT_LINEAR2), affine, weighting, action)


def _fit_sliced_head(
    state: TransplantState, data: SourceData, inputs: Tensor, rule: Compensation
) -> None:
    if not state.sizes.is_head_merged:
        target = data.activations.inner_out[:, state.channels.output_affine]
        weight, bias = compensate(rule, *state.affine(OUT_LINEAR1), inputs, target)
        state.put_affine(OUT_LINEAR1, weight, bias, rule)
        inputs = inputs @ weight.T + bias
    fitted = compensate(rule, *state.affine(OUT_LINEAR2), inputs, data.activations.logits)
    state.put_affine(OUT_LINEAR2, *fitted, rule)


def project_head(state: TransplantState, inputs: Tensor, logits: Tensor) -> None:
    """Fit the output layers to a teacher's posteriors by softmax regression.

    inputs: (N, H) the student's last activations. logits: (N, V), the teacher's.
    """
    fitted = fit_softmax(inputs, logits)
    if state.sizes.is_head_merged:
        state.put_affine(OUT_LINEAR2, *fitted, "projected")
    else:
        put_pair(state, (OUT_LINEAR1, OUT_LINEAR2), fitted, inputs, "projected")


def fit_softmax(inputs: Tensor, logits: Tensor, *, steps: int = 40) -> tuple[Tensor, Tensor]:
    """Return (V, I) weights and (V,) bias that nearly minimise KL(teacher || student).

    inputs: (N, I). logits: (N, V), the teacher's. Starts from least squares on the logits. Each
    step uses an upper bound of the Hessian, ``(I - 11^T / V) / 2`` times the second moments of
    the inputs (Boehning 1992, "Multinomial logistic regression algorithm"), with Nesterov
    momentum. The problem is convex: there is no step size to choose and nothing random.
    """
    ones = inputs.new_ones(len(inputs), 1)
    weight, bias = fit_affine(inputs, logits - logits.mean(dim=1, keepdim=True))
    solution = torch.cat([weight, bias.unsqueeze(1)], dim=1).T
    extended = torch.cat([inputs, ones], dim=1)
    moments = (extended.T @ extended / len(extended)).double()
    moments.diagonal().add_(_SOFTMAX_RIDGE * moments.diagonal().mean())
    inverse = torch.linalg.inv(moments).to(inputs.dtype)
    posteriors = logits.softmax(dim=-1)
    ahead, momentum = solution, 1.0
    for _ in range(steps):
        errors = (extended @ ahead).softmax(dim=-1) - posteriors
        gradient = extended.T @ errors / len(extended)
        following = ahead - 2.0 * inverse @ gradient
        next_momentum = (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5) / 2.0
        ahead = following + (momentum - 1.0) / next_momentum * (following - solution)
        solution, momentum = following, next_momentum
    return solution[:-1].T.contiguous(), solution[-1]
