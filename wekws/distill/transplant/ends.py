"""The linear pairs at either end of the network."""

import torch
from torch import Tensor

from wekws.distill.transplant.fit import compensate, fit_rectified
from wekws.distill.transplant.graft import IN1, IN2, OUT1, OUT2, Graft
from wekws.distill.transplant.head_fit import fit_softmax
from wekws.distill.transplant.pairs import factor


def factor_input(graft: Graft) -> None:
    """Put the truncated SVD of the input affines' product in place of their slices."""
    if graft.is_copied(IN1) and graft.is_copied(IN2):
        return
    matrix, bias = graft.product(IN1, IN2)
    kept = graft.channels.linear[0]
    fed = graft.sample.rows if graft.config.pairs == "data_svd" else None
    _put_pair(graft, (IN1, IN2), matrix[kept], bias[kept], fed, graft.config.pairs)


def fit_input(graft: Graft) -> None:
    """Make the second input affine up for what the first one lost."""
    if graft.is_copied(IN1):
        return
    weight, bias = graft.affine(IN1)
    inner = graft.sample.rows @ weight.T + bias
    target = graft.seen.before[graft.boundaries[0]][:, graft.channels.linear[0]]
    rule = graft.config.compensation
    if rule == "sequential":
        fitted = fit_rectified(inner, target)
    else:
        fitted = compensate(rule, *graft.affine(IN2), inner, target)
    graft.put(IN2, *fitted, rule)


def fit_head(graft: Graft, fed: Tensor | None) -> None:
    """Fill the output layers by slices or SVD, made up for what they are no longer fed.

    fed: (N, H) its input: the source's kept channels, or the student's own activations; None
    where no rule asks for data.
    """
    is_exact = graft.boundaries[-1] == len(graft.seen.memory) if graft.seen else True
    rule = graft.config.compensation
    is_copied = all(graft.is_copied(layer) for layer in graft.head)
    if is_copied and is_exact and rule != "sequential":
        return
    rule = "least_squares" if rule == "sequential" else rule
    if graft.own.is_head_merged:
        if rule != "none":
            graft.put(OUT2, *compensate(rule, *graft.affine(OUT2), fed, graft.seen.logits), rule)
    elif graft.config.pairs != "slice":
        _factor_head(graft, fed, rule)
    elif rule != "none":
        _fit_sliced_head(graft, fed, rule)


def _factor_head(graft: Graft, fed: Tensor | None, rule: str) -> None:
    matrix, bias = graft.product(OUT1, OUT2)
    matrix, bias = matrix[:, graft.channels.linear[-1]].float(), bias.float()
    if rule != "none":
        matrix, bias = compensate(rule, matrix, bias, fed, graft.seen.logits)
    weighing = fed if graft.config.pairs == "data_svd" else None
    action = graft.config.pairs if rule == "none" else f"{rule} + {graft.config.pairs}"
    _put_pair(graft, (OUT1, OUT2), matrix, bias, weighing, action)


def _fit_sliced_head(graft: Graft, fed: Tensor, rule: str) -> None:
    target = graft.seen.inner_out[:, graft.channels.output_affine]
    graft.put(OUT1, *compensate(rule, *graft.affine(OUT1), fed, target), rule)
    weight, bias = graft.affine(OUT1)
    inner = fed @ weight.T + bias
    graft.put(OUT2, *compensate(rule, *graft.affine(OUT2), inner, graft.seen.logits), rule)


def project_head(graft: Graft, fed: Tensor, logits: Tensor) -> None:
    """Fit the output layers to a teacher's posteriors.

    fed: (N, H) the student's own last activations. logits: (N, V), the teacher's.
    """
    weight, bias = fit_softmax(fed, logits)
    if graft.own.is_head_merged:
        graft.put(OUT2, weight, bias, "projected")
    else:
        _put_pair(graft, (OUT1, OUT2), weight, bias, fed, "projected")


def _put_pair(
    graft: Graft,
    names: tuple[str, str],
    matrix: Tensor,
    bias: Tensor,
    fed: Tensor | None,
    action: str,
) -> None:
    width = graft.draft.shapes[f"{names[0]}.bias"][0]
    first, second = factor(matrix, width, fed)
    graft.put(names[0], first.float(), torch.zeros(width), action)
    graft.put(names[1], second.float(), bias.float(), action)
