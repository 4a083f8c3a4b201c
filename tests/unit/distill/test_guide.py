import pytest
import torch
from small_models import peaked_logits

from wekws.distill.guide import guide_loss


def test_guide_counts_what_is_missing_at_the_teachers_peaks():
    teacher = peaked_logits([0, 2, 1])
    # 0.25 at token 2 of frame 1, 0.7 at token 1 of frame 2; frame 0 does not count.
    probs = torch.tensor([[[0.1, 0.7, 0.1, 0.1], [0.25] * 4, [0.1, 0.7, 0.1, 0.1]]])
    value = guide_loss(probs.log(), teacher, torch.tensor([3]))
    assert value.item() == pytest.approx(0.75 + 0.3, abs=1e-6)


def test_the_loss_is_0_with_gradient_0_where_all_of_the_teachers_frames_are_blank():
    student = torch.zeros(1, 2, 4, requires_grad=True)
    value = guide_loss(student, peaked_logits([0, 0]), torch.tensor([2]))
    value.backward()
    assert value.item() == 0.0 and student.grad.abs().max() == 0.0
