import pytest
import torch

from wekws.distill.distill_conf import DistillConfig
from wekws.distill.inner_head import InnerConfig, InnerHead
from wekws.distill.loss import Targets
from wekws.distill.objective import Objective
from wekws.distill.taps import Outputs, forward_tapped
from wekws.distill.terms import CtcConfig, ctc_loss, kd_loss
from wekws.errors import ConfigError
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig


def model(seed=0):
    torch.manual_seed(seed)
    backbone = FSMNConfig(
        input_affine_dim=8,
        num_layers=2,
        linear_dim=10,
        proj_dim=6,
        left_order=3,
        right_order=1,
        output_affine_dim=8,
    )
    return KwsModel(ModelConfig(input_dim=4, output_dim=5, backbone=backbone))


def test_rows_go_back_to_their_frames_and_padding_is_zero():
    head = InnerHead(InnerConfig(weight=1.0, block=2), model())
    torch.nn.init.ones_(head.linear.weight)
    rows = torch.arange(3.0)[:, None].expand(3, 10)
    logits = head({"backbone.fsmn.1.2": rows}, torch.tensor([2, 1]), 2)
    assert logits[..., 0].tolist() == [[0.0, 10.0], [20.0, 0.0]]


def test_the_inner_head_learns_from_labels_and_teacher_and_so_does_the_block_below():
    student, teacher = model(0), model(1)
    config = DistillConfig(alpha=0.4, temperature=2.0, inner=InnerConfig(weight=0.5, block=1))
    objective = Objective.between(config, CtcConfig(), student, teacher)
    expected = {"ctc": 0.4, "inner_ctc": 0.2, "kd": 0.6, "inner_kd": 0.3}
    assert objective.weights(0.0) == pytest.approx(expected)
    torch.nn.init.normal_(objective.inner.linear.weight)
    x, lengths = torch.randn(2, 6, 4), torch.tensor([6, 4])
    targets = Targets(lengths, torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    outputs = Outputs(
        forward_tapped(student, x, lengths, objective.student_paths),
        forward_tapped(teacher, x, lengths, objective.teacher_paths),
    )
    terms = objective.terms(outputs, targets, 0.0)
    logits = objective.inner(outputs.student.hidden, lengths, 6)
    labels = (targets.labels, targets.label_lengths)
    assert terms["inner_ctc"].item() == ctc_loss(logits, lengths, *labels).item()
    kd = kd_loss(logits, outputs.teacher.logits, lengths, temperature=2.0)
    assert terms["inner_kd"].item() == kd.item()
    (terms["inner_ctc"] + terms["inner_kd"]).backward()
    assert objective.inner.linear.weight.grad.abs().max() > 0
    assert student.backbone.fsmn[0][0].linear.weight.grad.abs().max() > 0
    assert student.backbone.fsmn[1][0].linear.weight.grad is None


def test_the_inner_head_learns_from_labels_alone_where_the_teacher_weighs_nothing():
    student = model(0)
    config = DistillConfig(alpha=1.0, inner=InnerConfig(weight=0.5, block=1))
    objective = Objective.between(config, CtcConfig(), student, model(1))
    assert objective.weights(0.0) == {"ctc": 1.0, "inner_ctc": 0.5}
    assert not objective.wants_teacher(0.0)
    x, lengths = torch.randn(2, 6, 4), torch.tensor([6, 4])
    targets = Targets(lengths, torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    outputs = Outputs(forward_tapped(student, x, lengths, objective.student_paths))
    loss = objective(outputs, targets, 2, 0.0)
    assert loss.weighted.keys() == {"ctc", "inner_ctc"}


def test_a_block_that_the_student_lacks_is_named():
    with pytest.raises(ConfigError, match="no module backbone.fsmn.2.2"):
        InnerHead(InnerConfig(weight=1.0, block=3), model())
    with pytest.raises(ConfigError, match="counted from 1"):
        InnerConfig(block=0)
