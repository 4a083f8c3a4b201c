import itertools
import math

import pytest
import torch

from wekws.distill.frames import choose_frames
from wekws.distill.terms import (
    KdConfig,
    consistency_loss,
    ctc_loss,
    decoupled_kl,
    guide_loss,
    kd_loss,
    smoothing_loss,
)


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


def posteriors(seed=0, num_frames=6, num_tokens=5):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, num_frames, num_tokens, generator=generator)


def peaked(tokens, num_tokens=4):
    """Logits whose best token is given, frame by frame."""
    return 5.0 * torch.nn.functional.one_hot(torch.tensor([tokens]), num_tokens).float()


def test_frames_are_chosen_where_the_teacher_speaks():
    logits = peaked([0, 0, 1, 0, 0, 0, 2, 3])
    lengths = torch.tensor([7])
    chosen = {
        (choice, k): choose_frames(logits, lengths, choice, k)[0].int().tolist()
        for choice, k in (("all", 1), ("non_blank", 1), ("widened", 1), ("widened", 2))
    }
    assert chosen == {
        ("all", 1): [1, 1, 1, 1, 1, 1, 1, 0],
        ("non_blank", 1): [0, 0, 1, 0, 0, 0, 1, 0],
        ("widened", 1): [0, 1, 1, 1, 0, 1, 1, 0],
        ("widened", 2): [1, 1, 1, 1, 1, 1, 1, 0],
    }


def test_kd_on_non_blank_frames_is_the_kd_of_these_frames_alone():
    teacher = peaked([0, 2, 0, 1])
    student = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(1))
    config = KdConfig(frames="non_blank")
    value = kd_loss(student, teacher, torch.tensor([4]), temperature=2.0, config=config)
    alone = kd_loss(student[:, [1, 3]], teacher[:, [1, 3]], torch.tensor([2]), temperature=2.0)
    assert value.item() == pytest.approx(alone.item(), rel=1e-6)


def test_where_the_teacher_says_nothing_the_selected_terms_are_0_with_gradient_0():
    teacher = peaked([0, 0])
    student = torch.zeros(1, 2, 4, requires_grad=True)
    lengths = torch.tensor([2])
    for name in ("non_blank", "widened"):
        kd = kd_loss(student, teacher, lengths, temperature=1.0, config=KdConfig(frames=name))
        (kd + guide_loss(student, teacher, lengths)).backward()
        assert kd.item() == 0.0 and student.grad.abs().max() == 0.0


def test_decoupled_parts_add_up_to_the_full_kl():
    student, teacher = posteriors(0).log_softmax(-1)[0], posteriors(1).log_softmax(-1)[0]
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
    config = KdConfig(blank_weight=2.0, token_weight=3.0, token_scale="one")
    value = kd_loss(student[None], teacher[None], torch.tensor([1]), temperature=1.0, config=config)
    assert value.item() == pytest.approx(2 * 0.22314 + 3 * 0.14384, abs=1e-4)


EVERY_KD = [
    KdConfig(),
    KdConfig(frames="non_blank"),
    KdConfig(frames="widened", num_neighbours=2),
    KdConfig(blank_weight=0.5, token_weight=2.0),
    KdConfig(frames="widened", blank_weight=0.0, token_scale="one"),
]


@pytest.mark.parametrize("config", EVERY_KD)
def test_every_kd_of_equal_models_is_zero_with_zero_gradient(config):
    student = posteriors().requires_grad_()
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


def every_term(student, teacher, lengths):
    kd = [kd_loss(student, teacher, lengths, temperature=2.0, config=c) for c in EVERY_KD]
    smoothing = [smoothing_loss(student, lengths, over) for over in ("all", "tokens")]
    both = [f(student, teacher, lengths) for f in (guide_loss, consistency_loss)]
    return torch.stack([*kd, *both, *smoothing])


def test_padding_changes_no_term():
    student, teacher, lengths = posteriors(0), posteriors(1), torch.tensor([6, 3])
    before = every_term(student, teacher, lengths)
    student[1, 3:], teacher[1, 3:] = 50.0, torch.tensor([0.0, 0.0, 90.0, 0.0, 0.0])
    wider = [torch.nn.functional.pad(x, (0, 0, 0, 4), value=7.0) for x in (student, teacher)]
    torch.testing.assert_close(every_term(student, teacher, lengths), before)
    torch.testing.assert_close(every_term(*wider, lengths), before)


def test_guide_counts_what_is_missing_at_the_teachers_peaks():
    teacher = peaked([0, 2, 1])
    # 0.25 at token 2 of frame 1, 0.7 at token 1 of frame 2; frame 0 is the student's own affair.
    probs = torch.tensor([[[0.1, 0.7, 0.1, 0.1], [0.25] * 4, [0.1, 0.7, 0.1, 0.1]]])
    value = guide_loss(probs.log(), teacher, torch.tensor([3]))
    assert value.item() == pytest.approx(0.75 + 0.3, abs=1e-6)


def test_smoothing_by_hand_and_blank_left_alone_over_tokens():
    probs = torch.tensor([[[0.5, 0.4, 0.1]]])
    lengths = torch.tensor([1])
    # KL(uniform || p) = -(ln(3 * 0.5) + ln(3 * 0.4) + ln(3 * 0.1)) / 3
    everything = -(math.log(1.5) + math.log(1.2) + math.log(0.3)) / 3
    assert smoothing_loss(probs.log(), lengths, "all").item() == pytest.approx(everything, abs=1e-6)
    # Tokens alone are 0.8 and 0.2: -(ln 1.6 + ln 0.4) / 2
    logits = probs.log().requires_grad_()
    value = smoothing_loss(logits, lengths, "tokens")
    value.backward()
    assert value.item() == pytest.approx(-(math.log(1.6) + math.log(0.4)) / 2, abs=1e-6)
    assert logits.grad[0, 0, 0] == 0.0


def test_two_views_teach_each_other():
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
