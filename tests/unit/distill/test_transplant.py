import pytest
import torch

from wekws.distill.transplant import transplant_first
from wekws.errors import DataError
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig

TEACHER = {
    "input_affine_dim": 6,
    "num_layers": 3,
    "linear_dim": 8,
    "proj_dim": 5,
    "left_order": 4,
    "right_order": 2,
    "output_affine_dim": 6,
}
STUDENT = {
    "input_affine_dim": 4,
    "num_layers": 2,
    "linear_dim": 7,
    "proj_dim": 3,
    "left_order": 2,
    "right_order": 1,
    "output_affine_dim": 6,
}


def model(seed, sizes, output_dim=3, input_dim=10, has_cmvn=True, **changes):
    torch.manual_seed(seed)
    backbone = FSMNConfig(**{**sizes, **changes})
    config = ModelConfig(input_dim=input_dim, output_dim=output_dim, backbone=backbone)
    cmvn = (torch.randn(input_dim), torch.rand(input_dim) + 1) if has_cmvn else None
    return KwsModel(config, cmvn)


def test_every_tensor_is_the_expected_slice_and_accounted_for():
    teacher, student = model(1, TEACHER).state_dict(), model(2, STUDENT)
    report = transplant_first(student, teacher)
    own = student.state_dict()
    assert [row.name for row in report] == list(own)
    expected = {
        "global_cmvn.mean": teacher["global_cmvn.mean"],
        "backbone.in_linear1.linear.weight": teacher["backbone.in_linear1.linear.weight"][:4],
        "backbone.in_linear2.linear.weight": teacher["backbone.in_linear2.linear.weight"][:7, :4],
        "backbone.in_linear2.linear.bias": teacher["backbone.in_linear2.linear.bias"][:7],
        "backbone.fsmn.1.0.linear.weight": teacher["backbone.fsmn.1.0.linear.weight"][:3, :7],
        # The taps nearest to the present: the last two of the past, the first of the future.
        "backbone.fsmn.1.1.conv_left.weight": teacher["backbone.fsmn.1.1.conv_left.weight"][
            :3, :, 2:
        ],
        "backbone.fsmn.1.1.conv_right.weight": teacher["backbone.fsmn.1.1.conv_right.weight"][
            :3, :, :1
        ],
        "backbone.out_linear1.linear.weight": teacher["backbone.out_linear1.linear.weight"][:, :7],
        "backbone.out_linear2.linear.weight": teacher["backbone.out_linear2.linear.weight"],
    }
    for name, tensor in expected.items():
        assert torch.equal(own[name], tensor), name
    actions = {row.name: row.action for row in report}
    assert actions["backbone.out_linear2.linear.weight"] == "copied"
    assert actions["backbone.out_linear1.linear.bias"] == "copied"
    assert actions["backbone.in_linear1.linear.weight"] == "sliced"
    row = next(row for row in report if row.name == "backbone.in_linear1.linear.weight")
    assert (row.teacher_shape, row.student_shape) == ((6, 10), (4, 10))


def test_same_sizes_give_the_same_model():
    teacher, student = model(1, TEACHER), model(2, TEACHER)
    report = transplant_first(student, teacher.state_dict())
    assert {row.action for row in report} == {"copied"}
    x = torch.randn(2, 9, 10)
    assert torch.equal(student(x), teacher(x))


def test_a_student_without_right_taps_takes_the_rest():
    student = model(2, STUDENT, right_order=0)
    report = transplant_first(student, model(1, TEACHER).state_dict())
    assert not any("conv_right" in row.name for row in report)


def test_teacher_and_student_share_no_memory():
    teacher, student = model(1, TEACHER), model(2, TEACHER)
    transplant_first(student, teacher.state_dict())
    with torch.no_grad():
        student.backbone.in_linear1.linear.weight.zero_()
    assert teacher.backbone.in_linear1.linear.weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"num_layers": 4}, ["backbone.fsmn.3.0.linear.weight: the teacher has none"]),
        (
            {"proj_dim": 9},
            ["fsmn.0.1.conv_left.weight: teacher (5, 1, 4, 1), student (9, 1, 2, 1)", "larger"],
        ),
        ({"output_dim": 2}, ["out_linear2.linear.weight", "out_linear2.linear.bias", "surgery"]),
        ({"input_dim": 8}, ["in_linear1.linear.weight", "global_cmvn.mean", "same input"]),
        ({"has_cmvn": False}, ["global_cmvn.mean: the teacher normalises"]),
    ],
)
def test_what_cannot_be_filled_is_named_and_nothing_changes(changes, messages):
    student = model(2, STUDENT, **changes)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(DataError) as caught:
        transplant_first(student, model(1, TEACHER).state_dict())
    for message in messages:
        assert message in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())
