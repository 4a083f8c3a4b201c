import pytest
import torch
from small_models import objective_of

from wekws.distill.consistency import ConsistencyConfig
from wekws.distill.ctc import ctc_loss
from wekws.distill.guide import GuideConfig
from wekws.distill.kd import KdConfig, kd_loss
from wekws.distill.method import LossTargets
from wekws.distill.methods import DistillConfig
from wekws.distill.objective import add_losses
from wekws.distill.schedule import Schedule
from wekws.distill.taps import ModelOutputs, StepOutputs


def needs_teacher(objective, progress=0.0):
    return objective.needs_teacher(objective.active_terms(progress))


def test_objective_mixes_per_utterance_values():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    lengths, labels = torch.tensor([4, 3]), torch.tensor([[1], [2]])
    label_lengths = torch.tensor([1, 1])
    objective = objective_of(DistillConfig(alpha=0.3, temperature=2.0))
    outputs = StepOutputs(ModelOutputs(student), ModelOutputs(teacher))
    loss = objective(outputs, LossTargets(lengths, labels, label_lengths), 4, 0.0)
    ctc = ctc_loss(student, lengths, labels, label_lengths) / 4
    kd = kd_loss(student, teacher, lengths, temperature=2.0) / 4
    assert loss.total.item() == pytest.approx((0.3 * ctc + 0.7 * kd).item(), rel=1e-6)
    assert {n: v.item() for n, v in loss.terms.items()} == {"ctc": ctc.item(), "kd": kd.item()}


def test_without_a_teacher_the_objective_is_ctc_whatever_alpha_is():
    logits, lengths = torch.randn(1, 3, 2), torch.tensor([3])
    labels, label_lengths = torch.tensor([[1]]), torch.tensor([1])
    objective = objective_of(DistillConfig(alpha=0.3), has_teacher=False)
    outputs = StepOutputs(ModelOutputs(logits))
    loss = objective(outputs, LossTargets(lengths, labels, label_lengths), 1, 0.0)
    expected = ctc_loss(logits, lengths, labels, label_lengths).item()
    assert loss.total.item() == pytest.approx(expected)
    assert not needs_teacher(objective) and objective.distillation_terms == ()


def test_a_teacher_without_weight_is_not_needed():
    objective = objective_of(DistillConfig(alpha=1.0))
    assert not needs_teacher(objective, 0.5) and objective.weights(0.5) == {"ctc": 1.0}
    assert needs_teacher(objective_of(DistillConfig(alpha=0.9)))
    falling = Schedule(shape="linear", start=1.0, end=0.9)
    assert needs_teacher(objective_of(DistillConfig(alpha=falling)))
    views = DistillConfig(kd=KdConfig(weight=0.0), consistency=ConsistencyConfig(weight=1.0))
    alone = objective_of(views)
    assert alone.needs_second_view(alone.active_terms(0.0)) and not needs_teacher(alone)
    assert not needs_teacher(objective_of(DistillConfig(alpha=0.9), has_teacher=False))


def test_parts_of_a_batch_add_up_and_the_temperature_moves():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    lengths, labels = torch.tensor([6, 3]), torch.tensor([[1], [2]])
    temperature = Schedule(shape="linear", start=6.0, end=3.0)
    config = DistillConfig(temperature=temperature, guide=GuideConfig(weight=0.2))
    objective = objective_of(config)
    ones = torch.tensor([1, 1])

    def loss_of(rows):
        outputs = StepOutputs(ModelOutputs(student[rows]), ModelOutputs(teacher[rows]))
        return objective(outputs, LossTargets(lengths[rows], labels[rows], ones[rows]), 2, 0.5)

    whole = loss_of(slice(0, 2))
    parts = add_losses([loss_of(slice(0, 1)), loss_of(slice(1, 2))])
    torch.testing.assert_close(parts.total, whole.total)
    torch.testing.assert_close(parts.terms, whole.terms)
    torch.testing.assert_close(parts.weighted, whole.weighted)
    assert whole.weighted["guide"].item() == pytest.approx(0.1 * whole.terms["guide"].item())
    expected = kd_loss(student, teacher, lengths, temperature=4.5) / 2
    assert whole.terms["kd"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("view", "sees_masks"), [("student", True), ("clean", False)])
def test_the_configuration_chooses_the_teachers_view(view, sees_masks):
    objective = objective_of(DistillConfig(teacher_view=view))
    assert objective.teacher_sees_masks is sees_masks
