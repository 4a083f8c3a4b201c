import math

import pytest
import torch
from small_models import peaked_logits, random_logits

from wekws.distill.kd import KdConfig, decoupled_kl, kd_loss
from wekws.errors import ConfigError


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


def test_kd_on_non_blank_frames_is_the_kd_of_these_frames_alone():
    teacher = peaked_logits([0, 2, 0, 1])
    student = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(1))
    config = KdConfig(frames="non_blank")
    value = kd_loss(student, teacher, torch.tensor([4]), temperature=2.0, config=config)
    alone = kd_loss(student[:, [1, 3]], teacher[:, [1, 3]], torch.tensor([2]), temperature=2.0)
    assert value.item() == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("frames", ["non_blank", "widened"])
def test_kd_is_0_with_gradient_0_where_all_of_the_teachers_frames_are_blank(frames):
    student = torch.zeros(1, 2, 4, requires_grad=True)
    value = kd_loss(
        student,
        peaked_logits([0, 0]),
        torch.tensor([2]),
        temperature=1.0,
        config=KdConfig(frames=frames),
    )
    value.backward()
    assert value.item() == 0.0 and student.grad.abs().max() == 0.0


def test_decoupled_parts_add_up_to_the_full_kl():
    student, teacher = random_logits(0).log_softmax(-1)[0], random_logits(1).log_softmax(-1)[0]
    blank, tokens = decoupled_kl(student, teacher, "mass")
    full = (teacher.exp() * (teacher - student)).sum(-1)
    torch.testing.assert_close(blank + tokens, full)


def test_decoupled_kl_by_hand():
    # teacher (0.5, 0.25, 0.25), student (0.2, 0.6, 0.2): blank 0.5 ln(0.5/0.2) + 0.5 ln(0.5/0.8)
    # = 0.22314; among tokens (0.5, 0.5) against (0.75, 0.25): 0.5 ln(0.5/0.75) + 0.5 ln 2 = 0.14384
    student, teacher = (torch.tensor([p]).log() for p in ([0.2, 0.6, 0.2], [0.5, 0.25, 0.25]))
    blank, tokens = decoupled_kl(student, teacher, "one")
    assert (blank.item(), tokens.item()) == pytest.approx((0.22314, 0.14384), abs=1e-5)
    assert decoupled_kl(student, teacher, "mass")[1].item() == pytest.approx(0.07192, abs=1e-5)
    for scale, among_tokens in (("one", 0.14384), ("mass", 0.07192)):
        config = KdConfig(blank_weight=2.0, token_weight=3.0, token_scale=scale)
        value = kd_loss(
            student[None], teacher[None], torch.tensor([1]), temperature=1.0, config=config
        )
        assert value.item() == pytest.approx(2 * 0.22314 + 3 * among_tokens, abs=1e-4)


EVERY_KD = [
    KdConfig(),
    KdConfig(frames="non_blank"),
    KdConfig(frames="widened", num_neighbours=2),
    KdConfig(blank_weight=0.5, token_weight=2.0),
    KdConfig(frames="widened", blank_weight=0.0, token_scale="one"),
]


@pytest.mark.parametrize("config", EVERY_KD)
def test_every_kd_of_equal_models_is_zero_with_zero_gradient(config):
    student = random_logits().requires_grad_()
    lengths = torch.tensor([6, 3])
    value = kd_loss(student, student.detach(), lengths, temperature=3.0, config=config)
    value.backward()
    assert abs(value.item()) < 1e-5 and student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("config", EVERY_KD)
def test_every_kd_is_finite_where_teacher_probabilities_are_zero(config):
    teacher = torch.tensor([[[-math.inf, 0.0, 3.0, -1e5], [0.0, -math.inf, -math.inf, -math.inf]]])
    student = torch.zeros(1, 2, 4, requires_grad=True)
    value = kd_loss(student, teacher, torch.tensor([2]), temperature=1.0, config=config)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": -1.0}, "weight: found -1; expected at least 0"),
        ({"num_neighbours": 0}, "num_neighbours: found 0"),
        ({"blank_weight": -0.5}, "expected at least 0"),
        ({"blank_weight": 0.0, "token_weight": 0.0}, "set weight to 0 instead"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        KdConfig(**values)
