import math

import pytest
import torch
from torch import nn

from wekws.train.distributed import Process
from wekws.train.ema import WeightAverage
from wekws.train.gradients import GradientProbe

ALONE = Process(0, 1, torch.device("cpu"))


def test_the_average_follows_faster_at_first():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, decay=0.5)
    model.weight.data.fill_(1.0)
    average.update(model, step=1)  # decay (1 + 1) / (10 + 1)
    assert average.model.weight.item() == pytest.approx(9 / 11)
    average.update(model, step=1000)  # decay 0.5
    assert average.model.weight.item() == pytest.approx(10 / 11)
    assert model.weight.item() == 1.0 and not average.model.weight.requires_grad


def test_shares_and_cosines_by_hand():
    model = nn.Linear(2, 1, bias=False)
    probe = GradientProbe(model)
    for x, y in (([3.0, 0.0], [0.0, 2.0]), ([0.0, 4.0], [0.0, 1.0])):
        weighted = {"ctc": model(torch.tensor([x])).sum(), "kd": model(torch.tensor([y])).sum()}
        probe.add(weighted)
    # ctc (3, 4), norm 5; kd (0, 3), norm 3; cosine 12 / 15.
    figures = probe.figures(ALONE)
    assert figures == pytest.approx(
        {
            "grad_norm_ctc": 5.0,
            "grad_norm_kd": 3.0,
            "grad_share_ctc": 5 / 8,
            "grad_share_kd": 3 / 8,
            "grad_cos_kd": 0.8,
        }
    )
    assert model.weight.grad is None


def test_a_term_without_a_gradient_has_no_share_and_no_direction():
    model = nn.Linear(2, 1, bias=False)
    probe = GradientProbe(model)
    probe.add({"ctc": model(torch.ones(1, 2)).sum(), "guide": model.weight[:0].sum()})
    figures = probe.figures(ALONE)
    assert figures["grad_share_guide"] == figures["grad_cos_guide"] == 0.0
    assert figures["grad_norm_ctc"] == pytest.approx(math.sqrt(2))
