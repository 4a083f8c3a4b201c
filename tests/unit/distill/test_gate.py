import math

import pytest
import torch
from small_models import (
    inputs_of_pairs,
    objective_of,
    outputs_of,
    tiny_model,
    two_utterances,
)

from wekws.distill.gate import Gate, GateConfig, GateCounts
from wekws.distill.hidden import HiddenConfig, HiddenDistance
from wekws.distill.layer_pairs import AlignedPair, HiddenPair, pair_names
from wekws.distill.methods import DistillConfig
from wekws.errors import ConfigError

OPENNESS = 0.2
# Two kinds of teacher's frames, and the distance of the student from each.
FRAMES = torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])
DISTANCES = torch.tensor([[0.1], [2.0]])


def descend(gate, loss_of):
    optimizer = torch.optim.SGD(gate.parameters(), lr=0.5)
    for _ in range(3000):
        optimizer.zero_grad()
        loss_of(*gate(FRAMES)).backward()
        optimizer.step()
    return gate(FRAMES)[0].flatten().tolist()


def test_a_gate_without_a_cost_closes_and_ours_does_not():
    config = GateConfig(openness=OPENNESS)
    plain = descend(Gate(4, config), lambda weights, _: (weights * DISTANCES).sum())
    assert max(plain) < 0.02
    normalised = descend(Gate(4, config), lambda w, _: (w * DISTANCES).sum() / w.mean())
    # Only the ratio of the weights counts: that of the hard frame goes to 0.
    assert normalised[1] / normalised[0] < 0.01
    near, far = descend(
        Gate(4, config), lambda weights, costs: (weights * DISTANCES + OPENNESS * costs).sum()
    )
    # openness / distance: 0.2 / 2 for the far frame; the near one approaches 1.
    assert far == pytest.approx(0.1, abs=1e-3)
    assert near > 0.95


def test_weights_and_costs_of_a_new_gate_by_hand():
    state = torch.get_rng_state()
    gate = Gate(4, GateConfig(openness=1.0, per="channel"))
    assert torch.equal(torch.get_rng_state(), state)
    weights, costs = gate(FRAMES)
    assert weights.shape == (2, 4) and (weights == 0.5).all()
    torch.testing.assert_close(costs, torch.full((2, 4), math.log(2.0)))
    with torch.no_grad():
        gate.linear.bias.fill_(-200.0)
    weights, costs = gate(FRAMES)  # e**-200 is 0 in float32; its cost is finite.
    assert weights.max() == 0.0 and costs.min() == 200.0


def test_mean_and_spread_by_hand():
    # 0, 1/2, 1, 1/2: mean 1/2, squares 3/2, variance 3/8 - 1/4.
    # The first frame's best token is blank, the second's is token 3; the third is padding.
    logits = torch.eye(4)[[0, 3, 2]][None]
    weights = torch.tensor([[0.0, 0.5], [1.0, 0.5]])
    counts = GateCounts(["fsmn.0"], [3]).of([weights], logits, torch.tensor([2]))
    found = {name: value.item() for name, value in counts.items()}
    assert GateCounts(["fsmn.0"], [3]).figures(found) == {
        "gate_mean": 0.5,
        "gate_spread": pytest.approx(math.sqrt(1 / 8)),
        "gate_mean_fsmn.0": 0.5,
        "gate_mean_blank": 0.25,
        "gate_mean_keyword": 0.75,
    }


def test_gates_by_pair_and_kind_of_frame_by_hand():
    # Frames: blank, blank, filler, a token. Without keywords every token from 2 on is one.
    logits = torch.eye(3)[[0, 0, 1, 2]][None]
    first = torch.tensor([[0.1], [0.3], [0.5], [0.9]])
    counts = GateCounts(["a", "b"], ())
    sums = counts.of([first, torch.ones(4, 1)], logits, torch.tensor([4]))
    assert set(sums) == set(counts.names)
    figures = counts.figures({name: value.item() for name, value in sums.items()})
    assert figures["gate_mean_a"] == pytest.approx(0.45) and figures["gate_mean_b"] == 1.0
    assert figures["gate_mean_blank"] == pytest.approx((0.1 + 0.3 + 1 + 1) / 4)
    assert figures["gate_mean_keyword"] == pytest.approx((0.9 + 1) / 2)
    # No frame of a keyword: no figure of it.
    sums = counts.of([first[:1], torch.ones(1, 1)], logits, torch.tensor([1]))
    figures = counts.figures({name: value.item() for name, value in sums.items()})
    assert "gate_mean_keyword" not in figures


def test_pairs_are_named_for_the_layers_of_the_student():
    pairs = [
        HiddenPair(student=0, teacher=1),
        HiddenPair(student="backbone.out_linear1", teacher=3),
    ]
    assert pair_names(pairs) == ("fsmn.0", "out_linear1")
    assert pair_names([pairs[0], pairs[0]]) == ("fsmn.0-0", "fsmn.0-1")


def gated_distance(per="frame"):
    gate = GateConfig(openness=0.3, per=per)
    return HiddenDistance(HiddenConfig(weight=1.0, gate=gate), (10, 10), ("a", "b"))


def values_of(distance, pairs):
    return distance.values(inputs_of_pairs(pairs), ("hidden", "gate"))


@pytest.mark.parametrize("per", ["frame", "channel"])
def test_the_gated_distance_by_hand(per):
    distance = gated_distance(per)
    pairs = [
        AlignedPair(1.0, torch.zeros(1, 10), torch.full((1, 10), 2.0)),  # distance 4
        AlignedPair(3.0, torch.ones(1, 10), torch.zeros(1, 10)),  # distance 1
    ]
    with torch.no_grad():
        distance.gates[1].linear.bias.fill_(math.log(0.25 / 0.75))  # weight 1/4
    values = values_of(distance, pairs)
    assert values["hidden"].item() == pytest.approx((1 * 0.5 * 4 + 3 * 0.25 * 1) / 4)
    cost = (1 * math.log(2) + 3 * math.log(4)) / 4
    assert values["gate"].item() == pytest.approx(cost, rel=1e-6)
    num_weights = 10 if per == "channel" else 1
    assert values["gate_num"].item() == 2 * num_weights
    assert values["gate_sum"].item() == pytest.approx(0.75 * num_weights)
    # A cv pass uses the plain distance: a gate that closes must not look like progress.
    distance.eval()
    values = values_of(distance, pairs)
    assert {name: value.item() for name, value in values.items()} == {"hidden": 7 / 4}


def test_equal_features_get_no_gradient_and_leave_the_cost_of_the_gates():
    features = torch.randn(5, 10, requires_grad=True)
    pair = AlignedPair(1.0, features, features.detach().clone())
    values = values_of(gated_distance(), [pair, pair])
    assert values["hidden"].item() == 0.0
    # Weights of 1/2 in 5 frames.
    assert values["gate"].item() == pytest.approx(5 * math.log(2.0))
    (values["hidden"] + values["gate"]).backward()
    assert features.grad.abs().max() == 0.0


def test_the_cost_has_the_weight_of_the_distance_and_padding_changes_nothing():
    student, teacher = tiny_model(linear_dim=6), tiny_model(1)
    hidden = HiddenConfig(weight=0.8, gate=GateConfig(openness=0.25))
    objective = objective_of(DistillConfig(hidden=hidden), student=student, teacher=teacher)
    # gate: 0.25 x 0.4.
    expected = {"ctc": 0.5, "kd": 0.5, "hidden": 0.4, "gate": 0.1}
    assert objective.weights(0.0) == pytest.approx(expected)
    x, targets = two_utterances()
    losses = []
    for padding in (0.0, 9.0):
        x[1, 4:] = padding
        outputs = outputs_of(objective, student, teacher, x, targets.lengths)
        losses.append(objective(outputs, targets, 2, 0.0))
    torch.testing.assert_close(losses[0].terms, losses[1].terms)
    counts = {name: value.item() for name, value in losses[0].counts.items()}
    assert counts["gate_num"] == 2 * (6 + 4)
    figures = objective.figures(counts)
    assert figures["gate_mean"] == figures["gate_mean_fsmn.0"] == 0.5
    assert figures["gate_spread"] == 0.0
    losses[0].total.backward()
    assert all(g.linear.bias.grad.abs().max() > 0 for g in objective.methods["hidden"].gates)


def test_without_a_weight_of_the_distance_there_is_no_gate():
    off = DistillConfig(hidden=HiddenConfig(gate=GateConfig(openness=0.25)))
    assert not list(objective_of(off).parameters())


def test_gates_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="openness: found -1"):
        GateConfig(openness=-1.0)
    with pytest.raises(ConfigError, match="a single channel has no cosine"):
        HiddenConfig(distance="cosine", gate=GateConfig(openness=1.0, per="channel"))
