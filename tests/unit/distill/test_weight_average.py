import pytest
from torch import nn

from wekws.distill.weight_average import WeightAverage


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
    assert average.kept_model() is average.model
