import math

import pytest
import torch
import torch.distributed as dist
from torch import nn

from wekws.train.distributed import Process, add_gradients
from wekws.train.gradient_probe import GradientProbe

ALONE = Process(0, 1, torch.device("cpu"))


def test_shares_and_cosines_by_hand():
    model = nn.Linear(2, 1, bias=False)
    probe = GradientProbe(model, ["ctc", "smoothing"])
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
    probe = GradientProbe(model, ["ctc", "smoothing"])
    probe.add({"ctc": model(torch.ones(1, 2)).sum(), "guide": model.weight[:0].sum()})
    figures = probe.figures(ALONE)
    assert figures["grad_share_guide"] == figures["grad_cos_guide"] == 0.0
    assert figures["grad_norm_ctc"] == pytest.approx(math.sqrt(2))


def test_several_processes_leave_a_parameter_without_gradient_as_one_does(monkeypatch):
    # The other process has the same gradients; neither has one for the second parameter.
    monkeypatch.setattr(dist, "all_reduce", lambda values: values.mul_(2.0))
    used, idle, last = (nn.Parameter(torch.ones(size)) for size in (2, 3, 1))
    used.grad, last.grad = torch.tensor([1.0, 2.0]), torch.tensor([5.0])
    process = Process(0, 2, torch.device("cpu"))
    add_gradients(process, [used, idle, last])
    assert used.grad.tolist() == [2.0, 4.0] and last.grad.tolist() == [10.0]
    assert idle.grad is None


def test_a_term_that_only_frozen_weights_make_has_no_share():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    probe = GradientProbe(model, ["ctc", "smoothing"])
    inner = model[0](torch.ones(1, 2))
    probe.add({"ctc": model[1](inner).sum(), "hidden": inner.sum()})
    figures = probe.figures(ALONE)
    assert figures["grad_share_hidden"] == 0.0 and figures["grad_share_ctc"] == 1.0
