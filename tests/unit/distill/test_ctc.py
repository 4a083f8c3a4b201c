import itertools
import math

import pytest
import torch
from small_models import objective_of

from wekws.distill.ctc import CtcConfig, ctc_loss, smoothing_loss
from wekws.distill.methods import DistillConfig
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


def test_smoothing_by_hand_over_all_outputs_and_over_tokens():
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


def test_smoothing_takes_its_share_of_the_tasks_weight():
    ctc = CtcConfig(label_smoothing=0.1)
    objective = objective_of(DistillConfig(alpha=0.4), ctc)
    assert objective.weights(0.5) == pytest.approx({"ctc": 0.36, "smoothing": 0.04, "kd": 0.6})
    alone = objective_of(DistillConfig(), ctc, has_teacher=False)
    assert alone.weights(0.5) == pytest.approx({"ctc": 0.9, "smoothing": 0.1})


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_smoothing_that_leaves_no_ctc_is_refused(share):
    with pytest.raises(ConfigError, match="expected 0 to below 1"):
        CtcConfig(label_smoothing=share)
