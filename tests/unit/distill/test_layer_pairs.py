from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import tiny_model

from wekws.distill.hidden import HiddenConfig
from wekws.distill.layer_pairs import HiddenPair, LayerPairs, choose_blocks, pair_blocks
from wekws.distill.taps import forward_tapped
from wekws.errors import ConfigError
from wekws.train.train_config import load_train_config


@pytest.mark.parametrize(
    ("rule", "expected_3_of_4", "expected_2_of_6"),
    [
        ("ends", [(0,), (1,), (3,)], [(0,), (5,)]),
        ("even", [(0,), (2,), (3,)], [(0,), (5,)]),
        ("spread", [(0,), (2,), (3,)], [(0,), (5,)]),
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


def test_four_blocks_over_twelve():
    assert pair_blocks("spread", 4, 12) == [(0,), (4,), (8,), (11,)]
    assert pair_blocks("even", 4, 12) == [(0,), (4,), (7,), (11,)]


def test_blocks_and_pairs_by_number():
    assert choose_blocks((3, 1), 4) == [1, 3]
    with pytest.raises(ConfigError, match="distinct numbers from 0 to 2"):
        choose_blocks((1, 3), 3)
    student = Path(__file__).parents[3] / "conf/fsmn_ctc_student_mini.yaml"
    one = "distill_conf.hidden={weight: 1.0, blocks: [0, 2]}"
    config = load_train_config(student, [one]).distill_conf.hidden
    assert [str(pair) for pair in config.pairs_for(3, 4)] == [
        "backbone.fsmn.0.2 - backbone.fsmn.0.2", "backbone.fsmn.2.2 - backbone.fsmn.3.2",
    ]  # fmt: skip
    named = "distill_conf.hidden={weight: 1.0, pairs: [{student: 1, teacher: 2}]}"
    (pair,) = load_train_config(student, [named]).distill_conf.hidden.pairs_for(3, 4)
    assert str(pair) == "backbone.fsmn.1.2 - backbone.fsmn.2.2"
    with pytest.raises(ConfigError, match="numbered from 0"):
        HiddenPair(student=0, teacher=-1)


def test_which_blocks_take_part():
    chosen = {name: choose_blocks(name, 3) for name in ("all", "first_half", "second_half")}
    assert chosen == {"all": [0, 1, 2], "first_half": [0, 1], "second_half": [2]}
    assert (choose_blocks("odd", 4), choose_blocks("even", 4)) == ([0, 2], [1, 3])


def test_features_of_a_pair_are_aligned_and_several_layers_of_the_teacher_averaged():
    student, teacher = tiny_model(num_layers=2), tiny_model(1, num_layers=4)
    pairs = (
        HiddenPair(student="backbone.fsmn.0.2", teacher="backbone.in_linear2", weight=3.0),
        HiddenPair(student="backbone.fsmn.1.2", teacher=("backbone.fsmn.2.2", "backbone.fsmn.3.2")),
    )
    layer_pairs = LayerPairs(pairs, student, teacher)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    student_features, teacher_features = (
        forward_tapped(network, x, lengths, paths).features
        for network, paths in (
            (student, layer_pairs.student_paths),
            (teacher, layer_pairs.teacher_paths),
        )
    )
    first, second = layer_pairs.align(student_features, teacher_features)
    assert (first.weight, second.weight) == (3.0, 1.0)
    assert torch.equal(first.student, student_features["backbone.fsmn.0.2"])
    assert torch.equal(first.teacher, teacher_features["backbone.in_linear2"])
    mean = (teacher_features["backbone.fsmn.2.2"] + teacher_features["backbone.fsmn.3.2"]) / 2
    torch.testing.assert_close(second.teacher, mean)


def test_adapters_start_as_the_identity_and_use_no_random_number():
    student = tiny_model(num_layers=3, linear_dim=6)
    teacher = tiny_model(num_layers=4)
    pairs = HiddenConfig().pairs_for(3, 4)
    state = torch.get_rng_state()
    layer_pairs = LayerPairs(pairs, student, teacher)
    assert torch.equal(torch.get_rng_state(), state)
    assert [tuple(p.shape) for p in layer_pairs.parameters()] == [(10, 6), (10,)] * 3
    rows = torch.randn(3, 6)
    torch.testing.assert_close(layer_pairs.adapters[0](rows), F.pad(rows, (0, 4)))


def test_equal_widths_need_no_adapter():
    pairs = HiddenConfig().pairs_for(2, 2)
    assert not list(LayerPairs(pairs, tiny_model(), tiny_model(1)).parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ("fsmn.9", "x", "student: no module fsmn.9"),
        ("backbone.fsmn.0", "backbone.fsmn.0.2", "student: backbone.fsmn.0 is no layer"),
        ("backbone.fsmn.0.2", "backbone.fsmn.7.2", "teacher: no module backbone.fsmn.7.2"),
        (
            "backbone.fsmn.0.2",
            ("backbone.fsmn.0.2", "backbone.fsmn.0.1"),
            r"\[6, 10\] channels; expected one width",
        ),
    ],
)
def test_layers_that_cannot_be_paired_are_named(student, teacher, message):
    with pytest.raises(ConfigError, match=message):
        LayerPairs([HiddenPair(student=student, teacher=teacher)], tiny_model(), tiny_model())


@pytest.mark.parametrize("values", [{"weight": 0.0}, {"teacher": ()}])
def test_pairs_without_weight_or_target_are_refused(values):
    with pytest.raises(ConfigError, match="a weight above 0 and at least one teacher module"):
        HiddenPair(**{"student": "a", "teacher": "b", **values})
