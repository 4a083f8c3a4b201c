import math

import pytest
import torch
from small_models import tiny_model
from torch import nn

from wekws.distill.ensemble import (
    TeacherEnsemble,
    TeachersConfig,
    weights_by_score,
)
from wekws.distill.hidden import HiddenConfig
from wekws.distill.kd import kd_loss
from wekws.distill.layer_pairs import LayerPairs
from wekws.distill.taps import forward_tapped
from wekws.errors import ConfigError


class ConstantTeacher(nn.Module):
    """A teacher with the same output for every frame."""

    config = global_cmvn = backbone = None

    def __init__(self, probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log() + 7.0  # Any constant.

    def forward(self, feats, lengths=None):
        return self.logits.expand(*feats.shape[:2], -1)


def test_the_mean_of_log_probabilities_by_hand():
    ensemble = TeacherEnsemble([ConstantTeacher([0.9, 0.1]), ConstantTeacher([0.5, 0.5])])
    feats = torch.zeros(1, 2, 4)
    # sqrt(0.9 x 0.5) : sqrt(0.1 x 0.5) is 3 : 1.
    probabilities = ensemble(feats).exp()
    torch.testing.assert_close(probabilities, torch.tensor([[[0.75, 0.25]] * 2]))
    # 0.9^(1/4) 0.5^(3/4) : 0.1^(1/4) 0.5^(3/4) is 9^(1/4) : 1.
    ensemble.weights = [0.25, 0.75]
    odds = math.sqrt(3.0)
    expected = torch.tensor([[[odds / (1 + odds), 1 / (1 + odds)]]])
    torch.testing.assert_close(ensemble(feats, torch.tensor([1]))[:, :1].exp(), expected)
    assert ensemble(feats, torch.tensor([1]))[0, 1].tolist() == [0.0, 0.0]


def test_weights_by_score_by_hand():
    # e^-2 : e^-3 : e^-4 at scale 1; at scale 2 the square roots of these ratios.
    whole = 1 + math.exp(-1) + math.exp(-2)
    expected = [1 / whole, math.exp(-1) / whole, math.exp(-2) / whole]
    assert weights_by_score([2.0, 3.0, 4.0], 1.0) == pytest.approx(expected)
    assert weights_by_score([2.0, 4.0, 6.0], 2.0) == pytest.approx(expected)
    assert weights_by_score([3.0, 3.0], 1.0) == [0.5, 0.5]
    with pytest.raises(ConfigError, match="scale: found 0"):
        TeachersConfig(scale=0.0)


def test_two_equal_teachers_are_one():
    teacher, student = tiny_model(), tiny_model(3)
    ensemble = TeacherEnsemble([teacher, tiny_model()])
    x, lengths = torch.randn(2, 6, 4), torch.tensor([6, 3])
    one, two = teacher(x, lengths), ensemble(x, lengths)
    torch.testing.assert_close(two, one.log_softmax(-1) * (one != 0).any(-1, keepdim=True))
    values = [kd_loss(student(x, lengths), t, lengths, temperature=2.0).item() for t in (one, two)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_teachers_may_differ_in_size_and_inner_features_are_the_first_ones():
    first, second = tiny_model(), tiny_model(1, linear_dim=12, num_layers=3)
    ensemble = TeacherEnsemble([first, second])
    student = tiny_model(2, linear_dim=6)
    layer_pairs = LayerPairs(HiddenConfig().pairs_for(2, 2), student, ensemble)
    assert layer_pairs.widths == (10, 10)
    x, lengths = torch.randn(2, 6, 4), torch.tensor([6, 3])
    mixed = forward_tapped(ensemble, x, lengths, layer_pairs.teacher_paths)
    alone = forward_tapped(first, x, lengths, layer_pairs.teacher_paths)
    for path in layer_pairs.teacher_paths:
        assert torch.equal(mixed.features[path], alone.features[path])
    log_probs = (first(x, lengths).log_softmax(-1) + second(x, lengths).log_softmax(-1)) / 2
    expected = log_probs.softmax(-1)[0]
    torch.testing.assert_close(mixed.logits[0].exp(), expected)


def test_a_token_that_one_teacher_rules_out_leaves_the_loss_finite():
    ensemble = TeacherEnsemble([ConstantTeacher([1.0, 0.0]), ConstantTeacher([0.5, 0.5])])
    student = torch.zeros(1, 2, 2, requires_grad=True)
    lengths = torch.tensor([2])
    value = kd_loss(student, ensemble(torch.zeros(1, 2, 4), lengths), lengths, temperature=2.0)
    value.backward()
    # All on token 0: KL of (1, 0) from (1/2, 1/2) is log 2, times T^2, two frames.
    assert value.item() == pytest.approx(8 * math.log(2.0), rel=1e-5)
    assert torch.isfinite(student.grad).all()
