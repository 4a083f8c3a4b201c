import pytest
import torch
from small_models import objective_of, outputs_of, tiny_model, two_utterances

from wekws.distill.ctc import ctc_loss
from wekws.distill.inner_head import InnerConfig, InnerHead
from wekws.distill.kd import KdConfig, kd_loss
from wekws.distill.methods import DistillConfig
from wekws.distill.taps import StepOutputs, forward_tapped
from wekws.errors import ConfigError


def inner_head(block):
    config = InnerConfig(weight=1.0, block=block)
    return InnerHead(config, tiny_model(), has_kd=True, kd=KdConfig())


def test_rows_go_back_to_their_frames_and_padding_is_zero():
    head = inner_head(block=2)
    torch.nn.init.ones_(head.linear.weight)
    rows = torch.arange(3.0)[:, None].expand(3, 10)
    logits = head({"backbone.fsmn.1.2": rows}, torch.tensor([2, 1]), 2)
    assert logits[..., 0].tolist() == [[0.0, 10.0], [20.0, 0.0]]


def test_the_head_starts_at_zero_and_uses_no_random_number():
    student = tiny_model()
    state = torch.get_rng_state()
    head = InnerHead(InnerConfig(weight=1.0), student, has_kd=True, kd=KdConfig())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.abs().max() == 0.0 for p in head.parameters())


def test_labels_and_teacher_train_the_head_and_the_blocks_below_it():
    student, teacher = tiny_model(), tiny_model(1)
    config = DistillConfig(alpha=0.4, temperature=2.0, inner=InnerConfig(weight=0.5, block=1))
    objective = objective_of(config, student=student, teacher=teacher)
    expected = {"ctc": 0.4, "inner_ctc": 0.2, "kd": 0.6, "inner_kd": 0.3}
    assert objective.weights(0.0) == pytest.approx(expected)
    head = objective.methods["inner"]
    torch.nn.init.normal_(head.linear.weight)
    x, targets = two_utterances()
    outputs = outputs_of(objective, student, teacher, x, targets.lengths)
    terms = objective.terms(outputs, targets, 0.0, objective.active_terms(0.0))
    logits = head(outputs.student.features, targets.lengths, 6)
    labels = (targets.labels, targets.label_lengths)
    assert terms["inner_ctc"].item() == ctc_loss(logits, targets.lengths, *labels).item()
    kd = kd_loss(logits, outputs.teacher.logits, targets.lengths, temperature=2.0)
    assert terms["inner_kd"].item() == kd.item()
    (terms["inner_ctc"] + terms["inner_kd"]).backward()
    assert head.linear.weight.grad.abs().max() > 0
    assert student.backbone.fsmn[0][0].linear.weight.grad.abs().max() > 0
    assert student.backbone.fsmn[1][0].linear.weight.grad is None


def test_the_inner_kl_compares_as_the_section_kd_says():
    student, teacher = tiny_model(), tiny_model(1)
    kd = KdConfig(blank_weight=0.5, token_weight=2.0)
    config = DistillConfig(kd=kd, inner=InnerConfig(weight=0.5, block=1))
    objective = objective_of(config, student=student, teacher=teacher)
    x, targets = two_utterances()
    outputs = outputs_of(objective, student, teacher, x, targets.lengths)
    value = objective.terms(outputs, targets, 0.0, ("inner_kd",))["inner_kd"]
    logits = objective.methods["inner"](outputs.student.features, targets.lengths, 6)
    target = outputs.teacher.logits
    expected = kd_loss(logits, target, targets.lengths, temperature=2.0, config=kd)
    assert value.item() == pytest.approx(expected.item())
    plain = kd_loss(logits, target, targets.lengths, temperature=2.0)
    assert value.item() != pytest.approx(plain.item(), rel=0.01)


def test_labels_alone_train_the_head_where_distillation_has_no_weight():
    student = tiny_model()
    config = DistillConfig(alpha=1.0, inner=InnerConfig(weight=0.5, block=1))
    objective = objective_of(config, student=student)
    assert objective.weights(0.0) == {"ctc": 1.0, "inner_ctc": 0.5}
    assert not objective.needs_teacher(objective.active_terms(0.0))
    x, targets = two_utterances()
    outputs = StepOutputs(forward_tapped(student, x, targets.lengths, objective.student_paths))
    loss = objective(outputs, targets, 2, 0.0)
    assert loss.weighted.keys() == {"ctc", "inner_ctc"}


def test_without_a_teacher_there_is_no_head():
    objective = objective_of(DistillConfig(inner=InnerConfig(weight=0.5)), has_teacher=False)
    assert objective.weights(0.0) == {"ctc": 1.0} and not list(objective.parameters())


def test_a_block_that_the_student_lacks_is_named():
    with pytest.raises(ConfigError, match="no module backbone.fsmn.2.2"):
        inner_head(block=3)
    with pytest.raises(ConfigError, match="counted from 1"):
        InnerConfig(block=0)
