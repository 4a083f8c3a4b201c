import math

import pytest
import torch

from wekws.distill.adversarial import (
    AdversarialConfig,
    Discriminators,
    verdict_figures,
)
from wekws.distill.hidden import Aligned
from wekws.errors import ConfigError


def judges(widths=(3,), hidden_dim=4):
    torch.manual_seed(0)
    return Discriminators(AdversarialConfig(weight=1.0, hidden_dim=hidden_dim), widths)


def with_scores(network, *, on_first_channel):
    """Make a network's score relu(first channel) x on_first_channel, of the normalised frame."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[0].weight[0, 0] = 1.0
        network[2].weight[0, 0] = on_first_channel


def figures_of(counts):
    return verdict_figures({name: value.item() for name, value in counts.items()})


# Brought to mean 0 and deviation 1: (sqrt 3/2 x (1, 0, -1)) and its mirror image.
HIGH, LOW = torch.tensor([[5.0, 3.0, 1.0]]), torch.tensor([[1.0, 3.0, 5.0]])
SCORE = 2.0 * math.sqrt(1.5)


def softplus(x):
    return math.log1p(math.exp(x))


def test_the_two_losses_by_hand():
    rivals = judges()
    with_scores(rivals.networks[0], on_first_channel=2.0)
    pair = [Aligned(1.0, LOW, HIGH)]
    # Teacher's score 2.45, student's 0: -log D is softplus(-score), -log(1 - D) softplus(score).
    loss, counts = rivals.verdict(pair)
    assert loss.item() == pytest.approx(softplus(-SCORE) + softplus(0.0), rel=1e-4)
    figures = figures_of(counts)
    assert figures["adversarial_accuracy"] == 0.5  # A score of 0 is no judgement.
    assert figures["discriminator_loss"] == pytest.approx(loss.item() / 2)
    assert rivals(pair).item() == pytest.approx(math.log(2.0))
    # Mistaken for the teacher the student has little to learn, and the judge is wrong twice.
    swapped = [Aligned(1.0, HIGH, LOW)]
    assert rivals(swapped).item() == pytest.approx(softplus(-SCORE), rel=1e-4)
    assert figures_of(rivals.verdict(swapped)[1])["adversarial_accuracy"] == 0.0


def test_pairs_are_weighed_and_frames_summed():
    rivals = judges(widths=(3, 3))
    with_scores(rivals.networks[0], on_first_channel=2.0)
    with_scores(rivals.networks[1], on_first_channel=-2.0)
    two = HIGH.expand(2, 3)
    value = rivals([Aligned(1.0, two, two), Aligned(3.0, two, two)])
    expected = (1 * 2 * softplus(-SCORE) + 3 * 2 * softplus(SCORE)) / 4
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_nobody_can_tell_equal_features_apart():
    frames = torch.randn(50, 3)
    _, counts = judges().verdict([Aligned(1.0, frames, frames)])
    assert figures_of(counts)["adversarial_accuracy"] == 0.5
    assert figures_of(counts)["discriminator_loss"] >= math.log(2.0)


def test_the_students_term_moves_the_student_alone_and_the_verdict_the_judges_alone():
    rivals = judges()
    student = torch.randn(4, 3, requires_grad=True)
    pair = [Aligned(1.0, student, torch.randn(4, 3))]
    rivals(pair).backward()
    assert student.grad.abs().max() > 0
    assert all(p.grad is None for p in rivals.parameters())
    student.grad = None
    rivals.requires_grad_(True)
    rivals.verdict(pair)[0].backward()
    assert student.grad is None
    assert all(p.grad is not None for p in rivals.parameters())


def test_by_turns_the_student_comes_to_look_like_the_teacher():
    torch.manual_seed(1)
    rivals = judges(hidden_dim=16)
    teacher = torch.randn(256, 3) + torch.tensor([2.0, 0.0, 0.0])
    bias = torch.nn.Parameter(torch.zeros(3))
    noise = torch.randn(256, 3)
    own = torch.optim.Adam([bias], lr=0.02)
    theirs = torch.optim.Adam(rivals.parameters(), lr=0.02, betas=(0.5, 0.999))
    accuracies = []
    for _ in range(400):
        rivals.requires_grad_(True)
        theirs.zero_grad()
        loss, counts = rivals.verdict([Aligned(1.0, noise + bias, teacher)])
        (loss / 256).backward()
        theirs.step()
        rivals.requires_grad_(False)
        own.zero_grad()
        (rivals([Aligned(1.0, noise + bias, teacher)]) / 256).backward()
        own.step()
        accuracies.append(figures_of(counts)["adversarial_accuracy"])
    # Told apart at first, later no better than by a coin; the student has moved to the teacher.
    assert max(accuracies[:100]) > 0.7
    assert sum(accuracies[-50:]) / 50 < 0.6
    assert bias[0].item() - bias[1:].mean().item() > 1.0


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="hidden_dim 0"):
        AdversarialConfig(hidden_dim=0)
    with pytest.raises(ConfigError, match="weight"):
        AdversarialConfig(weight=-1.0)
