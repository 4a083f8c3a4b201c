"""Initialise a student from a larger model of its family."""

import copy

import torch
from torch import Tensor

from wekws.distill.transplant.blocks import compensate_blocks, fit_blocks
from wekws.distill.transplant.channels import choose_channels
from wekws.distill.transplant.head import (
    factor_head,
    fit_head,
    project_head,
    require_copied_head,
    with_head_of,
)
from wekws.distill.transplant.linear_pairs import factor_input, fit_input
from wekws.distill.transplant.rules import TransplantConfig as TransplantConfig
from wekws.distill.transplant.sample import Sample as Sample
from wekws.distill.transplant.sample import SourceData, compute_activations
from wekws.distill.transplant.state import TensorReport as TensorReport
from wekws.distill.transplant.state import TransplantState, require_fit
from wekws.model.model import KwsModel


@torch.no_grad()
def transplant(
    student: KwsModel,
    source: KwsModel,
    config: TransplantConfig,
    *,
    sample: Sample | None = None,
    teacher: KwsModel | None = None,
) -> list[TensorReport]:
    """Fill the student from the source, in place, by the rules of ``config``.

    sample: training data; needed if ``config.needs_data``. teacher: the model whose posteriors a
    projected head is fitted to; None: the source.
    A student with the source's sizes becomes a copy of it, under every rule. Where only one of the
    two has a merged head, the source's head is folded, or split, first.
    Returns: a report on every tensor of the student.
    Raises: DataError naming every tensor that cannot be filled; the student is then unchanged.
    """
    source = with_head_of(student, source)
    num_layers = source.config.backbone.num_layers
    blocks = config.blocks_for(student.config.backbone.num_layers, num_layers)
    require_fit(student, source, blocks)
    data = None
    if config.needs_data:
        if sample is None:
            raise ValueError("transplant: these rules need a sample of training data")
        data = SourceData.of(sample, student, source)
    activations = None if data is None else data.activations
    sizes = student.config.backbone
    channels = choose_channels(config.channels, sizes, source, blocks, activations)
    state = TransplantState(student, source, config=config, blocks=blocks, channels=channels)
    if config.head == "copy":
        require_copied_head(state)
    is_whole = state.is_copied() and blocks == tuple(range(num_layers))
    if not is_whole and data is None:
        _improve(state)
    elif not is_whole and data is not None:
        _improve_on_data(state, data, student, teacher)
    return state.write(student)


def _improve(state: TransplantState) -> None:
    """Replace slices by the rules that need no data."""
    if state.config.pairs != "slice":
        factor_input(state, None)
        if state.config.head == "slice":
            factor_head(state)


def _improve_on_data(
    state: TransplantState, data: SourceData, student: KwsModel, teacher: KwsModel | None
) -> None:
    """Replace slices by factors and fits, from the input to the head."""
    config = state.config
    if config.pairs != "slice":
        factor_input(state, data.sample.rows if config.pairs == "data_svd" else None)
    if config.compensation != "none":
        fit_input(state, data)
    if config.compensation == "sequential":
        head_inputs = fit_blocks(state, data)
    else:
        if config.compensation != "none":
            compensate_blocks(state, data)
        head_inputs = data.activations.linear[state.boundaries[-1]][:, state.channels.linear[-1]]
    if config.head == "slice":
        fit_head(state, data, head_inputs)
    elif config.head == "project":
        logits = data.activations.logits
        if teacher is not None:
            packing = data.sample.packing(teacher)
            logits = compute_activations(teacher.backbone, data.sample.rows, packing).logits
        project_head(state, _student_activations(state, data, student), logits)


def _student_activations(state: TransplantState, data: SourceData, student: KwsModel) -> Tensor:
    """Return (N, H): output of the student's last block, with its tensors as they are so far."""
    filled = copy.deepcopy(student)
    state.write(filled)
    return compute_activations(filled.backbone, data.sample.rows, data.packing).linear[-1]
