"""Start a student from a larger model of its family."""

import copy

import torch
from torch import Tensor

from wekws.distill.transplant.blocks import compensate_blocks, fit_blocks
from wekws.distill.transplant.channels import choose_channels, slice_all
from wekws.distill.transplant.draft import Draft
from wekws.distill.transplant.draft import Row as Row
from wekws.distill.transplant.ends import factor_input, fit_head, fit_input, project_head
from wekws.distill.transplant.graft import Graft
from wekws.distill.transplant.heads import head_like
from wekws.distill.transplant.rules import TransplantConfig as TransplantConfig
from wekws.distill.transplant.sample import Sample as Sample
from wekws.distill.transplant.sample import trace
from wekws.errors import DataError
from wekws.model.model import KwsModel


@torch.no_grad()
def transplant(
    student: KwsModel,
    source: KwsModel,
    config: TransplantConfig,
    sample: Sample | None = None,
    teacher: KwsModel | None = None,
) -> list[Row]:
    """Fill the student from the source, in place, by the rules of ``config``.

    sample: rows of the training set; needed if ``config.needs_data``.
    teacher: whose posteriors a projected head is fitted to; None: the source's.
    A student of the source's own sizes is a copy of it, under every rule. Where one of the two
    has a merged head, the source's is folded, or split, first.
    Returns: a row for every tensor of the student.
    Raises: DataError naming every tensor that cannot be filled; the student is then unchanged.
    """
    source = head_like(student, source)
    graft = _begin(student, source, config, sample)
    slice_all(graft.draft, graft.channels)
    _check_head(graft)
    if graft.draft.is_copied() and graft.draft.blocks == tuple(range(len(source.backbone.fsmn))):
        return graft.draft.write(student)
    fed = _fill_body(graft)
    if config.head == "slice":
        fit_head(graft, fed)
    elif config.head == "project":
        fed = _own_activations(graft, student)
        logits = graft.seen.logits
        if teacher is not None:
            logits = trace(teacher.backbone, sample.rows, sample.packing(teacher)).logits
        project_head(graft, fed, logits)
    return graft.draft.write(student)


def _begin(
    student: KwsModel, source: KwsModel, config: TransplantConfig, sample: Sample | None
) -> Graft:
    numbers = (model.config.backbone.num_layers for model in (student, source))
    draft = Draft(student, source, config.blocks_for(*numbers))
    packing = seen = None
    if config.needs_data:
        packing = sample.packing(student, source)
        seen = trace(source.backbone, sample.rows, packing)
    own, theirs = student.config.backbone, source.config.backbone
    channels = choose_channels(config.channels, own, theirs, draft, seen)
    return Graft(config, draft, channels, own, sample, packing, seen)


def _check_head(graft: Graft) -> None:
    names = [f"{layer}.{part}" for layer in graft.head for part in ("weight", "bias")]
    changed = [name for name in names if not graft.draft.is_copied(name)]
    if graft.config.head == "copy" and changed:
        sizes = [
            f"{n}: source {tuple(graft.draft.of(n).shape)}, student {tuple(graft.draft.shapes[n])}"
            for n in changed
        ]
        raise DataError("transplant.head: copy: does not fit:\n  " + "\n  ".join(sizes))


def _fill_body(graft: Graft) -> Tensor | None:
    """Improve on the slices up to the head; return what the head is fed, where it is known."""
    if graft.config.pairs != "slice":
        factor_input(graft)
    if graft.config.compensation != "none":
        fit_input(graft)
    if graft.config.compensation == "sequential":
        return fit_blocks(graft)
    if graft.config.compensation != "none":
        compensate_blocks(graft)
    if graft.seen is None:
        return None
    return graft.seen.linear[graft.boundaries[-1]][:, graft.channels.linear[-1]]


def _own_activations(graft: Graft, student: KwsModel) -> Tensor:
    """Return (N, H): the student's last activations, as drafted so far."""
    drafted = copy.deepcopy(student)
    graft.draft.write(drafted)
    return trace(drafted.backbone, graft.sample.rows, graft.packing).linear[-1]
