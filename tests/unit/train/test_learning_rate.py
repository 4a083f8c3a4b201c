import pytest
import torch

from wekws.errors import ConfigError
from wekws.train.learning_rate import LearningRate
from wekws.train.train_config import SchedulerConfig


def make(max_epoch=10, lr=1.0, **values):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    return LearningRate(optimizer, SchedulerConfig(**values), max_epoch=max_epoch, lr=lr), optimizer


def test_cosine_with_warm_up_rises_falls_and_ends_at_the_floor():
    rate, optimizer = make(type="cosine", warmup_epochs=2, min_lr=0.1)
    assert rate.before_step(0.5) == pytest.approx(0.25)
    assert rate.before_step(2.0) == pytest.approx(1.0)
    assert rate.before_step(6.0) == pytest.approx(0.55)  # half way between 1 and 0.1
    assert rate.before_step(10.0) == pytest.approx(0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_plateau_halves_after_patience_and_resumes_in_the_middle():
    losses = [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    rate, _ = make(type="plateau", patience=2, factor=0.5)
    rates = []
    for loss in losses:
        rates.append(rate.before_step(1.0))
        rate.after_epoch(loss)
    # 4.0 is best after epoch 1; epochs 2, 3, 4 are bad: the third exceeds patience 2.
    assert rates == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]

    first, _ = make(type="plateau", patience=2, factor=0.5)
    for loss in losses[:4]:
        first.before_step(1.0)
        first.after_epoch(loss)
    second, _ = make(type="plateau", patience=2, factor=0.5)
    second.load_state_dict(first.state_dict())
    for loss, expected in zip(losses[4:], rates[4:], strict=True):
        assert second.before_step(1.0) == expected
        second.after_epoch(loss)


def test_warm_up_of_a_plateau_schedule_does_not_become_its_rate():
    rate, _ = make(type="plateau", warmup_epochs=1)
    assert rate.before_step(0.5) == pytest.approx(0.5)
    rate.after_epoch(3.0)
    assert rate.before_step(1.5) == pytest.approx(1.0)


def test_constant():
    rate, _ = make(type="constant")
    assert [rate.before_step(e) for e in (0.1, 5.0, 10.0)] == [1.0, 1.0, 1.0]


def test_a_factor_that_does_not_fall_is_refused():
    with pytest.raises(ConfigError):
        SchedulerConfig(factor=1.0)
