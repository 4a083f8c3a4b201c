import pytest
import torch

from wekws.distill.distill_conf import DistillConfig
from wekws.distill.loss import FEATURE_TERMS, LOGIT_TERMS, TASK_TERMS, Targets, add_losses
from wekws.distill.objective import Objective
from wekws.distill.schedule import Schedule
from wekws.distill.taps import Output, Outputs
from wekws.distill.terms import (
    ConsistencyConfig,
    CtcConfig,
    GuideConfig,
    KdConfig,
    ctc_loss,
    kd_loss,
)
from wekws.errors import ConfigError


def test_objective_mixes_per_utterance_values():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    lengths, labels = torch.tensor([4, 3]), torch.tensor([[1], [2]])
    label_lengths = torch.tensor([1, 1])
    objective = Objective(DistillConfig(alpha=0.3, temperature=2.0), has_teacher=True)
    outputs = Outputs(Output(student), Output(teacher))
    loss = objective(outputs, Targets(lengths, labels, label_lengths), 4, 0.0)
    ctc = ctc_loss(student, lengths, labels, label_lengths) / 4
    kd = kd_loss(student, teacher, lengths, temperature=2.0) / 4
    assert loss.total.item() == pytest.approx((0.3 * ctc + 0.7 * kd).item(), rel=1e-6)
    assert {n: v.item() for n, v in loss.terms.items()} == {"ctc": ctc.item(), "kd": kd.item()}


def test_without_a_teacher_the_objective_is_ctc_whatever_alpha_says():
    logits, lengths = torch.randn(1, 3, 2), torch.tensor([3])
    labels, label_lengths = torch.tensor([[1]]), torch.tensor([1])
    objective = Objective(DistillConfig(alpha=0.3), has_teacher=False)
    loss = objective(Outputs(Output(logits)), Targets(lengths, labels, label_lengths), 1, 0.0)
    assert loss.total.item() == pytest.approx(
        ctc_loss(logits, lengths, labels, label_lengths).item()
    )


@pytest.mark.parametrize("values", [{"alpha": 1.1}, {"alpha": -0.1}, {"temperature": 0.0}])
def test_weights_that_mean_nothing_are_refused(values):
    with pytest.raises(ConfigError):
        DistillConfig(**values)


def test_a_teacher_that_weighs_nothing_is_not_asked():
    objective = Objective(DistillConfig(alpha=1.0), has_teacher=True)
    assert not objective.wants_teacher(0.5) and objective.weights(0.5) == {"ctc": 1.0}
    assert Objective(DistillConfig(alpha=0.9), has_teacher=True).wants_teacher(0.0)
    falling = Schedule(shape="linear", start=1.0, end=0.9)
    assert Objective(DistillConfig(alpha=falling), has_teacher=True).wants_teacher(0.0)
    views = DistillConfig(kd=KdConfig(weight=0.0), consistency=ConsistencyConfig(weight=1.0))
    alone = Objective(views, has_teacher=True)
    assert alone.wants_second_view(0.0) and not alone.wants_teacher(0.0)
    assert not Objective(DistillConfig(alpha=0.9), has_teacher=False).wants_teacher(0.0)


def test_smoothing_takes_its_share_of_the_tasks_weight():
    objective = Objective(
        DistillConfig(alpha=0.4), CtcConfig(label_smoothing=0.1), has_teacher=True
    )
    assert objective.weights(0.5) == pytest.approx({"ctc": 0.36, "smoothing": 0.04, "kd": 0.6})
    alone = Objective(DistillConfig(), CtcConfig(label_smoothing=0.1), has_teacher=False)
    assert alone.weights(0.5) == pytest.approx({"ctc": 0.9, "smoothing": 0.1})


def test_parts_of_a_batch_add_up_and_the_temperature_moves():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    lengths, labels = torch.tensor([6, 3]), torch.tensor([[1], [2]])
    heat = Schedule(shape="linear", start=6.0, end=3.0)
    config = DistillConfig(temperature=heat, guide=GuideConfig(weight=0.2))
    objective = Objective(config, has_teacher=True)
    ones = torch.tensor([1, 1])

    def loss_of(rows):
        outputs = Outputs(Output(student[rows]), Output(teacher[rows]))
        return objective(outputs, Targets(lengths[rows], labels[rows], ones[rows]), 2, 0.5)

    whole = loss_of(slice(0, 2))
    parts = add_losses([loss_of(slice(0, 1)), loss_of(slice(1, 2))])
    torch.testing.assert_close(parts.total, whole.total)
    torch.testing.assert_close(parts.terms, whole.terms)
    torch.testing.assert_close(parts.weighted, whole.weighted)
    assert whole.weighted["guide"].item() == pytest.approx(0.1 * whole.terms["guide"].item())
    expected = kd_loss(student, teacher, lengths, temperature=4.5) / 2
    assert whole.terms["kd"].item() == pytest.approx(expected.item())


def test_every_term_is_in_one_group():
    groups = (TASK_TERMS, LOGIT_TERMS, FEATURE_TERMS)
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names))
    config = DistillConfig(guide=GuideConfig(weight=1.0), consistency=ConsistencyConfig(weight=1.0))
    objective = Objective(config, CtcConfig(label_smoothing=0.1), has_teacher=True)
    assert set(objective.weights(0.0)) <= set(names)
    assert set(objective.taught) <= {*LOGIT_TERMS, *FEATURE_TERMS}
