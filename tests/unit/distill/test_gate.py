import math

import pytest
import torch

from wekws.distill.distill_conf import DistillConfig
from wekws.distill.gate import Gate, GateConfig, count_weights, gate_figures
from wekws.distill.hidden import Aligned, HiddenConfig, HiddenTerm
from wekws.distill.loss import Targets
from wekws.distill.objective import Objective
from wekws.distill.taps import Outputs, forward_tapped
from wekws.distill.terms import CtcConfig
from wekws.errors import ConfigError
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig

OPENNESS = 0.2
# Two kinds of teacher's frames, and how far the student stays from each.
FRAMES = torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])
DISTANCES = torch.tensor([[0.1], [2.0]])


def model(linear_dim=10, seed=0):
    torch.manual_seed(seed)
    backbone = FSMNConfig(
        input_affine_dim=8,
        num_layers=2,
        linear_dim=linear_dim,
        proj_dim=6,
        left_order=3,
        right_order=1,
        output_affine_dim=8,
    )
    return KwsModel(ModelConfig(input_dim=4, output_dim=5, backbone=backbone))


def descend(gate, loss_of):
    optimizer = torch.optim.SGD(gate.parameters(), lr=0.5)
    for _ in range(3000):
        optimizer.zero_grad()
        loss_of(*gate(FRAMES)).backward()
        optimizer.step()
    return gate(FRAMES)[0].flatten().tolist()


def test_a_gate_without_a_price_closes_and_ours_does_not():
    config = GateConfig(openness=OPENNESS)
    plain = descend(Gate(4, config), lambda weights, _: (weights * DISTANCES).sum())
    assert max(plain) < 0.02
    normalised = descend(Gate(4, config), lambda w, _: (w * DISTANCES).sum() / w.mean())
    # Only ratios count for it: against the easy frame the hard one is all but shut.
    assert normalised[1] / normalised[0] < 0.01
    near, far = descend(
        Gate(4, config), lambda weights, prices: (weights * DISTANCES + OPENNESS * prices).sum()
    )
    # openness / distance: 0.2 / 2 for the far frame; 1 for the near one, which sigmoid nears.
    assert far == pytest.approx(0.1, abs=1e-3)
    assert near > 0.95


def test_weights_and_prices_of_a_new_gate_by_hand():
    state = torch.get_rng_state()
    gate = Gate(4, GateConfig(openness=1.0, per="channel"))
    assert torch.equal(torch.get_rng_state(), state)
    weights, prices = gate(FRAMES)
    assert weights.shape == (2, 4) and (weights == 0.5).all()
    torch.testing.assert_close(prices, torch.full((2, 4), math.log(2.0)))
    with torch.no_grad():
        gate.linear.bias.fill_(-200.0)
    weights, prices = gate(FRAMES)  # e**-200 is 0 in float32, its price is finite.
    assert weights.max() == 0.0 and prices.min() == 200.0


def test_mean_and_spread_by_hand():
    # 0, 1/2, 1, 1/2: mean 1/2, squares 3/2, variance 3/8 - 1/4.
    counts = count_weights(torch.tensor([[0.0, 0.5], [1.0, 0.5]]))
    figures = gate_figures({name: value.item() for name, value in counts.items()})
    assert figures == {"gate_mean": 0.5, "gate_spread": pytest.approx(math.sqrt(1 / 8))}


def gated_term(per="frame", distance="mse"):
    gate = GateConfig(openness=0.3, per=per)
    config = HiddenConfig(weight=1.0, distance=distance, gate=gate)
    return HiddenTerm(config, model(6, seed=0), model(10, seed=1))


@pytest.mark.parametrize("per", ["frame", "channel"])
def test_the_gated_distance_by_hand(per):
    term = gated_term(per)
    aligned = [
        Aligned(1.0, torch.zeros(1, 10), torch.full((1, 10), 2.0)),  # distance 4
        Aligned(3.0, torch.ones(1, 10), torch.zeros(1, 10)),  # distance 1
    ]
    with torch.no_grad():
        term.gates[1].linear.bias.fill_(math.log(0.25 / 0.75))  # weight 1/4
    values = term(aligned)
    assert values["hidden"].item() == pytest.approx((1 * 0.5 * 4 + 3 * 0.25 * 1) / 4)
    price = (1 * math.log(2) + 3 * math.log(4)) / 4
    assert values["gate"].item() == pytest.approx(price, rel=1e-6)
    weights_each = 10 if per == "channel" else 1
    assert values["gate_num"].item() == 2 * weights_each
    assert values["gate_sum"].item() == pytest.approx(0.75 * weights_each)
    # A cv pass sees the plain distance: a gate that closes must not look like progress.
    term.eval()
    assert {name: value.item() for name, value in term(aligned).items()} == {"hidden": 7 / 4}


def test_equal_features_pay_for_the_gate_alone_and_pull_at_nothing():
    term = gated_term()
    features = torch.randn(5, 10, requires_grad=True)
    pair = Aligned(1.0, features, features.detach().clone())
    values = term([pair, pair])
    assert values["hidden"].item() == 0.0
    (values["hidden"] + values["gate"]).backward()
    assert features.grad.abs().max() == 0.0


def outputs_of(student, teacher, objective, x, lengths):
    return Outputs(
        forward_tapped(student, x, lengths, objective.student_paths),
        forward_tapped(teacher, x, lengths, objective.teacher_paths),
    )


def test_the_price_follows_the_weight_of_the_distance_and_padding_changes_nothing():
    student, teacher = model(6), model(10, seed=1)
    hidden = HiddenConfig(weight=0.8, gate=GateConfig(openness=0.25))
    objective = Objective.between(DistillConfig(hidden=hidden), CtcConfig(), student, teacher)
    expected = {"ctc": 0.5, "kd": 0.5, "hidden": 0.4, "gate": 0.1}
    assert objective.weights(0.0) == pytest.approx(expected)
    lengths = torch.tensor([6, 4])
    targets = Targets(lengths, torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    losses = []
    for padding in (0.0, 9.0):
        x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
        x[1, 4:] = padding
        outputs = outputs_of(student, teacher, objective, x, lengths)
        losses.append(objective(outputs, targets, 2, 0.0))
    torch.testing.assert_close(losses[0].terms, losses[1].terms)
    counts = {name: value.item() for name, value in losses[0].counts.items()}
    assert counts["gate_num"] == 2 * (6 + 4)
    assert objective.figures(counts) == {"gate_mean": 0.5, "gate_spread": 0.0}
    losses[0].total.backward()
    assert all(g.linear.bias.grad.abs().max() > 0 for g in objective.hidden.gates)
    # Without a weight there is no gate to train.
    off = DistillConfig(hidden=HiddenConfig(gate=GateConfig(openness=0.25)))
    assert not list(Objective.between(off, CtcConfig(), student, teacher).parameters())


def test_gates_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="openness: found -1"):
        GateConfig(openness=-1.0)
    with pytest.raises(ConfigError, match="no cosine of their own"):
        HiddenConfig(distance="cosine", gate=GateConfig(openness=1.0, per="channel"))
