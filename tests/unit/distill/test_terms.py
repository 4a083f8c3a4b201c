import itertools
import math

import pytest
import torch

from wekws.distill.objective import DistillConfig, Objective
from wekws.distill.terms import ctc_loss, kd_loss
from wekws.errors import ConfigError


def brute_force_ctc(probs, label):
    """Sum the probabilities of every path that collapses to ``label``."""
    total = 0.0
    for path in itertools.product(range(probs.shape[1]), repeat=probs.shape[0]):
        collapsed = [k for k, _ in itertools.groupby(path) if k != 0]
        if collapsed == label:
            total += math.prod(float(probs[t, k]) for t, k in enumerate(path))
    return -math.log(total)


def test_ctc_equals_the_sum_over_all_paths_and_ignores_padding():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 3)
    lengths = torch.tensor([5, 4, 3])
    labels = torch.tensor([[1, 1], [2, 0], [0, 0]])
    label_lengths = torch.tensor([2, 1, 0])
    expected = sum(
        brute_force_ctc(logits[b, : lengths[b]].softmax(-1), labels[b, : label_lengths[b]].tolist())
        for b in range(3)
    )
    value = ctc_loss(logits, lengths, labels, label_lengths)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    logits[1, 4:] = 50.0
    assert ctc_loss(logits, lengths, labels, label_lengths).item() == pytest.approx(expected)


def test_kd_by_hand():
    # teacher (0.5, 0.5), student (0.8, 0.2): 0.5 ln(0.5/0.8) + 0.5 ln(0.5/0.2) = 0.22314
    student = torch.tensor([[[math.log(0.8), math.log(0.2)]]])
    teacher = torch.zeros(1, 1, 2)
    value = kd_loss(student, teacher, torch.tensor([1]), temperature=1.0)
    assert value.item() == pytest.approx(0.22314, abs=1e-5)


def test_kd_is_a_sum_over_valid_frames_times_temperature_squared():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    lengths = torch.tensor([4, 2])
    expected = 0.0
    for b, t in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)):
        p, q = (teacher[b, t] / 3).softmax(-1), (student[b, t] / 3).softmax(-1)
        expected += 9 * (p * (p / q).log()).sum().item()
    value = kd_loss(student, teacher, lengths, temperature=3.0)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_kd_of_equal_models_is_zero_with_zero_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    value = kd_loss(logits, logits.detach(), torch.tensor([3, 1]), temperature=2.0)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_kd_is_finite_where_a_teacher_probability_is_zero():
    teacher = torch.tensor([[[0.0, -1e4, 3.0]]])
    student = torch.zeros(1, 1, 3, requires_grad=True)
    value = kd_loss(student, teacher, torch.tensor([1]), temperature=1.0)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


def test_kd_refuses_other_shapes_and_batches_without_frames():
    logits = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="one frame rate and one vocabulary"):
        kd_loss(logits, torch.zeros(1, 2, 4), torch.tensor([2]), temperature=1.0)
    with pytest.raises(ValueError, match="no frame is valid"):
        kd_loss(logits, logits, torch.tensor([0]), temperature=1.0)


def test_objective_mixes_per_utterance_values():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    lengths, labels = torch.tensor([4, 3]), torch.tensor([[1], [2]])
    label_lengths = torch.tensor([1, 1])
    objective = Objective(DistillConfig(alpha=0.3, temperature=2.0), has_teacher=True)
    loss = objective(student, teacher, lengths, labels, label_lengths, num_utterances=4)
    ctc = ctc_loss(student, lengths, labels, label_lengths) / 4
    kd = kd_loss(student, teacher, lengths, temperature=2.0) / 4
    assert loss.total.item() == pytest.approx((0.3 * ctc + 0.7 * kd).item(), rel=1e-6)
    assert {n: v.item() for n, v in loss.terms.items()} == {"ctc": ctc.item(), "kd": kd.item()}


def test_without_a_teacher_the_objective_is_ctc_whatever_alpha_says():
    logits, lengths = torch.randn(1, 3, 2), torch.tensor([3])
    labels, label_lengths = torch.tensor([[1]]), torch.tensor([1])
    objective = Objective(DistillConfig(alpha=0.3), has_teacher=False)
    loss = objective(logits, None, lengths, labels, label_lengths, 1)
    assert loss.total.item() == pytest.approx(
        ctc_loss(logits, lengths, labels, label_lengths).item()
    )


@pytest.mark.parametrize("values", [{"alpha": 1.1}, {"alpha": -0.1}, {"temperature": 0.0}])
def test_weights_that_mean_nothing_are_refused(values):
    with pytest.raises(ConfigError):
        DistillConfig(**values)


def test_a_teacher_that_weighs_nothing_is_not_asked():
    objective = Objective(DistillConfig(alpha=1.0), has_teacher=True)
    assert not objective.wants_teacher and objective.weights == {"ctc": 1.0}
    assert Objective(DistillConfig(alpha=0.9), has_teacher=True).wants_teacher
    assert not Objective(DistillConfig(alpha=0.9), has_teacher=False).wants_teacher
