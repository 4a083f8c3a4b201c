"""A source whose head is of the student's kind: one affine behind the last block, or two."""

import dataclasses
import logging

import torch

from wekws.distill.transplant.graft import OUT1, OUT2
from wekws.distill.transplant.pairs import factor
from wekws.model.checkpoint import model_of
from wekws.model.fold import fold_head
from wekws.model.model import KwsModel

log = logging.getLogger(__name__)


def head_like(student: KwsModel, source: KwsModel) -> KwsModel:
    """Return the source as it is, or with its head folded or split as the student's is."""
    own, theirs = student.config.backbone, source.config.backbone
    if own.is_head_merged == theirs.is_head_merged:
        return source
    if own.is_head_merged:
        log.info("the source's two output affines are folded into one first")
        return fold_head(source)
    log.info("the source's merged head is split first, inner width %d", own.output_affine_dim)
    return split_head(source, own.output_affine_dim)


@torch.no_grad()
def split_head(model: KwsModel, width: int) -> KwsModel:
    """Return a model of two output affines in place of a merged one.

    width: between them; from the number of tokens on nothing is lost, below it as little as can
    be: truncated SVD. Returns: on the CPU, in eval mode.
    """
    state = model.state_dict()
    state[f"{OUT1}.weight"], state[f"{OUT2}.weight"] = factor(state[f"{OUT2}.weight"], width)
    state[f"{OUT1}.bias"] = torch.zeros(width)
    backbone = dataclasses.replace(model.config.backbone, output_affine_dim=width)
    config = dataclasses.replace(model.config, backbone=backbone)
    return model_of(config, state, source="the split head")
