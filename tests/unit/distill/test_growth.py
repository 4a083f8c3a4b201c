import pytest
import torch
from small_models import STUDENT, TEACHER, loud_model, sample_of

from wekws.distill.growth import (
    ProgressiveConfig,
    add_identity_block,
    add_teacher_block,
    near_identity,
)
from wekws.distill.transplant import TransplantConfig, transplant
from wekws.errors import ConfigError


def run_block(rows, parts):
    first, second, bias = parts
    return (rows @ first.T @ second.T + bias).clamp(min=0.0)


def test_the_identity_is_exact_where_the_input_varies_in_few_directions():
    torch.manual_seed(0)
    # Of 9 channels, 2 directions and an offset, all of it at least 0.
    rows = torch.rand(50, 2) @ torch.rand(2, 9) + 0.5
    reader = torch.randn(4, 9)
    for width in (2, 3, 9, 12):
        torch.testing.assert_close(run_block(rows, near_identity(rows, reader, width)), rows)
    assert (run_block(rows, near_identity(rows, reader, 1)) - rows).abs().max() > 0.05


def test_a_narrow_identity_loses_no_more_than_principal_components():
    torch.manual_seed(0)
    rows = (torch.randn(400, 6) @ torch.randn(6, 10)).clamp(min=0.0)
    # A head that reads every channel alike does not change what is lost.
    lost = (run_block(rows, near_identity(rows, torch.eye(10), 5)) - rows).square().sum().item()
    centred = rows - rows.mean(dim=0)
    tail = torch.linalg.svdvals(centred)[5:].square().sum().item()  # Eckart and Young 1936
    assert 0.0 < lost < tail


def test_what_the_head_reads_is_lost_last():
    torch.manual_seed(0)
    rows = torch.rand(400, 10) + 3.0  # far from 0: the ReLU changes nothing
    reader = torch.zeros(2, 10)
    reader[0, 7] = reader[1, 4] = 1.0
    back = run_block(rows, near_identity(rows, reader, 5))
    lost = (back - rows).square().mean(dim=0)
    assert lost[[4, 7]].max() < 0.1 * lost.mean()


def test_a_grown_model_keeps_its_outputs():
    teacher = loud_model(1, TEACHER)
    sample = sample_of(teacher)
    wide = {"linear_dim": 4, "proj_dim": 4}
    student = loud_model(2, STUDENT, **wide)
    feats, lengths = torch.randn(3, 20, 10), torch.tensor([20, 7, 1])
    before = student(feats, lengths)
    add_identity_block(student, sample)
    # Any input, not the sample's alone: no channel is lost.
    torch.testing.assert_close(student(feats, lengths), before, rtol=1e-4, atol=1e-5)
    assert student.config.backbone.num_layers == len(student.backbone.fsmn) == 3
    assert {"backbone.fsmn.2.2.linear.bias"} <= student.state_dict().keys()


def test_a_narrow_identity_block_changes_outputs_less_than_a_random_block():
    teacher = loud_model(1, TEACHER)
    feats, lengths = torch.randn(8, 20, 10), torch.full((8,), 20)
    changes = []
    for add in (add_identity_block, lambda model, sample: model.append_block()):
        student = loud_model(2, STUDENT, proj_dim=5)  # of 7 channels between blocks
        before = student(feats, lengths)
        add(student, sample_of(teacher))
        changes.append((student(feats, lengths) - before).square().mean().sqrt() / before.std())
    assert changes[0] < 0.4 and changes[0] < 0.5 * changes[1]


def test_a_block_of_the_teacher_is_the_slice_that_a_transplant_would_take():
    teacher = loud_model(1, TEACHER)
    config = TransplantConfig(blocks=(0, 2), channels="uniform")
    begun = loud_model(2, STUDENT, num_layers=1)
    add_teacher_block(begun, teacher, config)
    whole = loud_model(3, STUDENT)
    transplant(whole, teacher, config)
    grown, expected = begun.backbone.fsmn[1].state_dict(), whole.backbone.fsmn[1].state_dict()
    assert all(torch.equal(grown[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("values", "depths"),
    [
        ({}, [4] * 6),
        ({"start_blocks": 2, "every": 2}, [2, 2, 3, 3, 4, 4]),
        ({"start_blocks": 2}, [2, 2, 3, 3, 4, 4]),
        ({"start_blocks": 3, "every": 1}, [3, 4, 4, 4, 4, 4]),
        ({"start_blocks": 1}, [1, 1, 2, 2, 3, 4]),  # 6 epochs, 4 depths: the first two get one more
    ],
)
def test_depth_of_each_epoch(values, depths):
    config = ProgressiveConfig(**values)
    assert [config.depth_at(epoch, 4, 6) for epoch in range(6)] == depths


@pytest.mark.parametrize("values", [{"start_blocks": -1}, {"every": 2}, {"new_block": "teacher"}])
def test_growth_that_means_nothing_is_refused(values):
    with pytest.raises(ConfigError):
        ProgressiveConfig(**values)
