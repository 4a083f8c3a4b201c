import pytest
import torch
from small_models import objective_of

from wekws.distill.consistency import ConsistencyConfig, consistency_loss
from wekws.distill.kd import KdConfig
from wekws.distill.method import LossTargets
from wekws.distill.methods import DistillConfig
from wekws.distill.taps import ModelOutputs, StepOutputs


def test_two_views_are_pulled_towards_each_other():
    # Views (0.5, 0.5) and (0.8, 0.2): KL 0.22314 one way and, by 0.8 ln 1.6 + 0.2 ln 0.4, 0.19274
    # the other; their mean is 0.20794.
    one = torch.zeros(1, 1, 2, requires_grad=True)
    other = torch.tensor([[[0.8, 0.2]]]).log().requires_grad_()
    value = consistency_loss(one, other, torch.tensor([1]))
    assert value.item() == pytest.approx(0.20794, abs=1e-5)
    value.backward()
    # Half of p_one - p_other reaches the first view, and the opposite the second.
    assert one.grad.flatten().tolist() == pytest.approx([-0.15, 0.15], abs=1e-6)
    assert other.grad.flatten().tolist() == pytest.approx([0.15, -0.15], abs=1e-6)
    same = consistency_loss(one, one, torch.tensor([1]))
    assert same.item() == 0.0


def test_the_method_compares_the_two_views_and_needs_no_teacher():
    config = DistillConfig(
        kd=KdConfig(weight=0.0), consistency=ConsistencyConfig(weight=0.5), alpha=0.4
    )
    objective = objective_of(config)
    names = objective.active_terms(0.0)
    assert objective.needs_second_view(names) and not objective.needs_teacher(names)
    # Cv passes have no masks, and so no second view.
    assert objective.cv_terms == ()
    logits = torch.zeros(1, 2, 2)
    other = torch.tensor([[[0.8, 0.2]] * 2]).log()
    one = torch.tensor([1])
    outputs = StepOutputs(ModelOutputs(logits), second_view=ModelOutputs(other))
    loss = objective(outputs, LossTargets(torch.tensor([2]), one[None], one), 1, 0.0)
    assert loss.terms["consistency"].item() == pytest.approx(2 * 0.20794, abs=1e-4)
    assert loss.weighted["consistency"].item() == pytest.approx(0.3 * 2 * 0.20794, abs=1e-4)
