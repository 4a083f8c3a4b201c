import pytest
import torch
import torch.nn.functional as F

from wekws.distill.distill_conf import DistillConfig
from wekws.distill.hidden import (
    DISTANCES,
    HiddenConfig,
    HiddenPair,
    HiddenTerm,
    choose_blocks,
    pair_blocks,
)
from wekws.distill.objective import Objective
from wekws.distill.taps import forward_tapped
from wekws.distill.terms import CtcConfig
from wekws.errors import ConfigError
from wekws.model.fsmn import FSMNConfig
from wekws.model.model import KwsModel, ModelConfig


def model(num_layers=3, linear_dim=10, proj_dim=6, seed=0):
    torch.manual_seed(seed)
    backbone = FSMNConfig(
        input_affine_dim=8,
        num_layers=num_layers,
        linear_dim=linear_dim,
        proj_dim=proj_dim,
        left_order=3,
        right_order=1,
        output_affine_dim=8,
    )
    return KwsModel(ModelConfig(input_dim=4, output_dim=5, backbone=backbone))


def tapped(network, term, whose, x, lengths):
    return forward_tapped(network, x, lengths, getattr(term, f"{whose}_paths")).hidden


def value_of(term, student, teacher):
    return term(term.aligned(student, teacher))["hidden"]


@pytest.mark.parametrize(
    ("rule", "expected_3_of_4", "expected_2_of_6"),
    [
        ("ends", [(0,), (1,), (3,)], [(0,), (5,)]),
        ("even", [(0,), (2,), (3,)], [(0,), (5,)]),
        ("skip", [(0,), (1,), (3,)], [(2,), (5,)]),
        ("groups", [(0,), (1,), (2, 3)], [(0, 1, 2), (3, 4, 5)]),
    ],
)
def test_blocks_are_paired_by_rule(rule, expected_3_of_4, expected_2_of_6):
    assert pair_blocks(rule, 3, 4) == expected_3_of_4
    assert pair_blocks(rule, 2, 6) == expected_2_of_6
    assert pair_blocks(rule, 4, 4) == [(0,), (1,), (2,), (3,)]
    assert len(pair_blocks(rule, 1, 4)) == 1
    with pytest.raises(ConfigError, match="name pairs"):
        pair_blocks(rule, 4, 3)


def test_which_blocks_take_part():
    chosen = {name: choose_blocks(name, 3) for name in ("all", "first_half", "second_half")}
    assert chosen == {"all": [0, 1, 2], "first_half": [0, 1], "second_half": [2]}
    assert (choose_blocks("odd", 4), choose_blocks("even", 4)) == ([0, 2], [1, 3])


def test_a_blocks_tap_is_its_rectified_output_on_valid_frames_alone():
    network = model(num_layers=1)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    output = forward_tapped(network, x, lengths, ["backbone.fsmn.0.2"])
    rows = output.hidden["backbone.fsmn.0.2"]
    assert rows.shape == (7, 10) and rows.min() == 0.0 and rows.max() > 0.0
    logits = network.backbone.out_linear2(network.backbone.out_linear1(rows))
    torch.testing.assert_close(logits[5:], output.logits[1, :2])
    assert not network.backbone.fsmn[0][2]._forward_hooks


@pytest.mark.parametrize("distance", ["mse", "normalised_mse", "cosine"])
def test_equal_models_have_distance_zero_with_zero_gradient(distance):
    student, teacher = model(), model()
    term = HiddenTerm(HiddenConfig(weight=1.0, distance=distance), student, teacher)
    assert not list(term.parameters())  # equal widths: identity
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    value = value_of(
        term,
        *(tapped(m, term, w, x, lengths) for m, w in ((student, "student"), (teacher, "teacher"))),
    )
    value.backward()
    assert abs(value.item()) < 1e-4
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients and all(gradient.abs().max() < 1e-4 for gradient in gradients)


def test_distances_by_hand():
    student = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    teacher = torch.tensor([[4.0, 3.0], [2.0, 0.0]])
    # mse: (1 + 1) / 2, (4 + 0) / 2. cosine: 1 - 24/25, and 1 for the silent frame.
    # normalised: (-1, 1) against (1, -1) is 4; (0, 0) against (1, -1) is 1.
    expected = {"mse": [1.0, 2.0], "normalised_mse": [4.0, 1.0], "cosine": [0.04, 1.0]}
    for name, values in expected.items():
        assert DISTANCES[name](student, teacher).mean(dim=1).tolist() == pytest.approx(
            values, abs=1e-3
        )


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_have_finite_gradients_where_every_channel_is_silent(name):
    student = torch.zeros(2, 3, requires_grad=True)
    DISTANCES[name](student, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])).sum().backward()
    assert torch.isfinite(student.grad).all()


def test_several_teacher_layers_to_one_and_weights():
    student, teacher = model(num_layers=2), model(num_layers=4, seed=1)
    pairs = (
        HiddenPair(student="backbone.fsmn.0.2", teacher="backbone.in_linear2", weight=3.0),
        HiddenPair(student="backbone.fsmn.1.2", teacher=("backbone.fsmn.2.2", "backbone.fsmn.3.2")),
    )
    term = HiddenTerm(HiddenConfig(weight=1.0, pairs=pairs), student, teacher)
    x, lengths = torch.randn(1, 5, 4), torch.tensor([5])
    own, theirs = tapped(student, term, "student", x, lengths), None
    theirs = tapped(teacher, term, "teacher", x, lengths)
    mean = (theirs["backbone.fsmn.2.2"] + theirs["backbone.fsmn.3.2"]) / 2
    first = 5 * F.mse_loss(own["backbone.fsmn.0.2"], theirs["backbone.in_linear2"])
    second = 5 * F.mse_loss(own["backbone.fsmn.1.2"], mean)
    assert value_of(term, own, theirs).item() == pytest.approx(
        ((3 * first + second) / 4).item(), rel=1e-5
    )


def test_adapters_start_as_the_identity_and_learn_but_spend_no_random_number():
    student, teacher = model(linear_dim=6), model(linear_dim=10, num_layers=4)
    state = torch.get_rng_state()
    term = HiddenTerm(HiddenConfig(weight=1.0), student, teacher)
    assert torch.equal(torch.get_rng_state(), state)
    assert [tuple(p.shape) for p in term.parameters()] == [(10, 6), (10,)] * 3
    rows = torch.randn(3, 6)
    torch.testing.assert_close(term.adapters[0](rows), F.pad(rows, (0, 4)))
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    own = tapped(student, term, "student", x, lengths)
    value = value_of(term, own, tapped(teacher, term, "teacher", x, lengths))
    value.backward()
    assert all(p.grad.abs().max() > 0 for p in term.parameters())


def test_padding_changes_nothing():
    student, teacher = model(linear_dim=6), model(linear_dim=10)
    term = HiddenTerm(HiddenConfig(weight=1.0), student, teacher)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    values = []
    for padding in (0.0, 9.0):
        x[1, 2:] = padding
        own, theirs = (
            tapped(m, term, w, F.pad(x, (0, 0, 0, int(padding))), lengths)
            for m, w in ((student, "student"), (teacher, "teacher"))
        )
        values.append(value_of(term, own, theirs).item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pairs": (HiddenPair(student="fsmn.9", teacher="x"),)}, "student: no module fsmn.9"),
        (
            {"pairs": (HiddenPair(student="backbone.fsmn.0", teacher="backbone.fsmn.0.2"),)},
            "student: backbone.fsmn.0 has no output",
        ),
        (
            {
                "pairs": (
                    HiddenPair(
                        student="backbone.fsmn.0.2",
                        teacher=("backbone.fsmn.0.2", "backbone.fsmn.0.1"),
                    ),
                )
            },
            r"\[6, 10\] channels; expected one width",
        ),
        ({"block_weights": (1.0,)}, "block_weights 1; expected as many"),
    ],
)
def test_layers_that_do_not_exist_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        HiddenTerm(HiddenConfig(weight=1.0, **values), model(), model())


def test_two_ways_of_choosing_layers_are_refused():
    pair = HiddenPair(student="a", teacher="b")
    with pytest.raises(ConfigError, match="expected one way"):
        HiddenConfig(pairs=(pair,), rule="skip")


def test_the_objective_owns_the_adapters_and_leaves_the_term_out_at_weight_0():
    student, teacher = model(linear_dim=6), model(linear_dim=10)
    off = Objective.between(DistillConfig(), CtcConfig(), student, teacher)
    assert not list(off.parameters()) and off.taught == ("kd",)
    config = DistillConfig(hidden=HiddenConfig(weight=0.5))
    on = Objective.between(config, CtcConfig(), student, teacher)
    assert len(list(on.parameters())) == 6 and on.taught == ("kd", "hidden")
    assert on.weights(0.0) == {"ctc": 0.5, "kd": 0.5, "hidden": 0.25}
