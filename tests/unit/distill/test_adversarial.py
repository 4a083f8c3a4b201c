import copy
import math

import pytest
import torch
from small_models import inputs_of_pairs

from wekws.distill.adversarial import AdversarialConfig, Discriminators
from wekws.distill.layer_pairs import AlignedPair
from wekws.errors import ConfigError


def discriminators(widths=(3,), hidden_dim=4, **values):
    torch.manual_seed(0)
    config = AdversarialConfig(weight=1.0, hidden_dim=hidden_dim, **values)
    return Discriminators(config, widths)


def set_scores(network, *, on_first_channel):
    """Make a network's score relu(first channel) x on_first_channel, of the normalised frame."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[0].weight[0, 0] = 1.0
        network[2].weight[0, 0] = on_first_channel


def figures_of(method, counts):
    return method.figures({name: value.item() for name, value in counts.items()})


def train_step(method, *pairs_by_part, num_utterances=1):
    parts = [inputs_of_pairs(pairs) for pairs in pairs_by_part]
    return method.train_opponent(parts, num_utterances, lambda parameters: None)


# Normalised to mean 0 and deviation 1: (sqrt 3/2 x (1, 0, -1)) and its mirror image.
HIGH, LOW = torch.tensor([[5.0, 3.0, 1.0]]), torch.tensor([[1.0, 3.0, 5.0]])
SCORE = 2.0 * math.sqrt(1.5)


def softplus(x):
    return math.log1p(math.exp(x))


def test_the_two_losses_by_hand():
    method = discriminators()
    set_scores(method.networks[0], on_first_channel=2.0)
    pair = [AlignedPair(1.0, LOW, HIGH)]
    # Teacher's score 2.45, student's 0: -log D is softplus(-score), -log(1 - D) softplus(score).
    loss, counts = method.discriminator_loss(pair)
    assert loss.item() == pytest.approx(softplus(-SCORE) + softplus(0.0), rel=1e-4)
    figures = figures_of(method, counts)
    assert figures["adversarial_accuracy"] == 0.5  # A score of 0 counts as wrong.
    assert figures["discriminator_loss"] == pytest.approx(loss.item() / 2)
    assert method.student_loss(pair).item() == pytest.approx(math.log(2.0))
    # A student that is taken for the teacher has a small loss; both decisions are wrong.
    swapped = [AlignedPair(1.0, HIGH, LOW)]
    assert method.student_loss(swapped).item() == pytest.approx(softplus(-SCORE), rel=1e-4)
    counts = method.discriminator_loss(swapped)[1]
    assert figures_of(method, counts)["adversarial_accuracy"] == 0.0


def test_pairs_are_weighed_and_frames_summed():
    method = discriminators(widths=(3, 3))
    set_scores(method.networks[0], on_first_channel=2.0)
    set_scores(method.networks[1], on_first_channel=-2.0)
    two = HIGH.expand(2, 3)
    pairs = [AlignedPair(1.0, two, two), AlignedPair(3.0, two, two)]
    expected = (1 * 2 * softplus(-SCORE) + 3 * 2 * softplus(SCORE)) / 4
    assert method.student_loss(pairs).item() == pytest.approx(expected, rel=1e-4)
    values = method.values(inputs_of_pairs(pairs), ("adversarial",))
    assert {name: value.item() for name, value in values.items()} == {
        "adversarial": pytest.approx(expected, rel=1e-4)
    }
    assert method.values(inputs_of_pairs(pairs), ("hidden",)) == {}


def test_equal_features_cannot_be_told_apart():
    frames = torch.randn(50, 3)
    method = discriminators()
    _, counts = method.discriminator_loss([AlignedPair(1.0, frames, frames)])
    assert figures_of(method, counts)["adversarial_accuracy"] == 0.5
    assert figures_of(method, counts)["discriminator_loss"] >= math.log(2.0)


def test_a_stage_without_the_term_has_no_figures():
    assert discriminators().figures({"num_classified": 0.0}) == {}


def test_each_loss_gives_a_gradient_to_its_own_side_alone():
    method = discriminators()
    student = torch.randn(4, 3, requires_grad=True)
    pair = [AlignedPair(1.0, student, torch.randn(4, 3))]
    method.student_loss(pair).backward()
    assert student.grad.abs().max() > 0
    assert all(p.grad is None for p in method.parameters())
    student.grad = None
    method.requires_grad_(True)
    method.discriminator_loss(pair)[0].backward()
    assert student.grad is None
    assert all(p.grad is not None for p in method.parameters())


def test_a_step_trains_the_discriminators_alone_and_its_parts_add_up():
    student, teacher = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    results = []
    for rows in ([slice(0, 6)], [slice(0, 4), slice(4, 6)]):
        method = discriminators(lr=0.1)
        before = [p.clone() for p in method.parameters()]
        parts = [[AlignedPair(1.0, student[part], teacher[part])] for part in rows]
        counts = train_step(method, *parts, num_utterances=6)
        assert counts["num_classified"].item() == 12
        after = [p.clone() for p in method.parameters()]
        assert any((a - b).abs().max() > 0.05 for a, b in zip(after, before, strict=True))
        assert student.grad is None
        # Frozen again, without gradients left over, for the student's turn.
        assert all(p.grad is None and not p.requires_grad for p in method.parameters())
        results.append(([value.item() for value in counts.values()], after))
    assert results[0][0] == pytest.approx(results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_resume_continues_with_the_state_of_the_optimiser():
    pairs = [AlignedPair(1.0, torch.randn(6, 3), torch.randn(6, 3))]
    whole = discriminators(lr=0.1)
    train_step(whole, pairs)
    resumed = discriminators(lr=0.1)
    # A checkpoint is a copy; the optimisers of one process would share their tensors.
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (whole, resumed):
        train_step(method, pairs)
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def test_by_turns_the_student_comes_to_look_like_the_teacher():
    torch.manual_seed(1)
    method = discriminators(hidden_dim=16, lr=0.02)
    teacher = torch.randn(256, 3) + torch.tensor([2.0, 0.0, 0.0])
    bias = torch.nn.Parameter(torch.zeros(3))
    noise = torch.randn(256, 3)
    optimizer = torch.optim.Adam([bias], lr=0.02)
    accuracies = []
    for _ in range(400):
        pairs = [AlignedPair(1.0, noise + bias, teacher)]
        counts = train_step(method, pairs, num_utterances=256)
        optimizer.zero_grad()
        (method.student_loss(pairs) / 256).backward()
        optimizer.step()
        accuracies.append(figures_of(method, counts)["adversarial_accuracy"])
    # Told apart at first, later no better than by a coin; the student has moved to the teacher.
    assert max(accuracies[:100]) > 0.7
    assert sum(accuracies[-50:]) / 50 < 0.6
    assert bias[0].item() - bias[1:].mean().item() > 1.0


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="hidden_dim 0"):
        AdversarialConfig(hidden_dim=0)
    with pytest.raises(ConfigError, match="weight"):
        AdversarialConfig(weight=-1.0)
