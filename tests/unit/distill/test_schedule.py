import math

import pytest
import yaml

from wekws.config import parse_section, to_mapping
from wekws.distill.distill_conf import DistillConfig
from wekws.distill.objective import Objective
from wekws.distill.schedule import Schedule, as_schedule
from wekws.errors import ConfigError


@pytest.mark.parametrize(
    ("shape", "at_0", "at_quarter", "at_half", "at_1"),
    [
        # cos(pi/4) = 0.70711: half a cosine has moved (1 - 0.70711) / 2 of its way at a quarter.
        ("cosine_descent", 1.0, 0.85355, 0.5, 0.0),
        ("cosine_growth", 0.0, 0.14645, 0.5, 1.0),
        ("cosine_vshape", 1.0, 0.5, 0.0, 1.0),
        ("cosine_^shape", 0.0, 0.5, 1.0, 0.0),
    ],
)
def test_cosine_shapes_by_name_alone(shape, at_0, at_quarter, at_half, at_1):
    schedule = as_schedule(shape)
    values = [schedule.at(p) for p in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx([at_0, at_quarter, at_half, at_1], abs=1e-5)


def test_descent_hears_the_labels_first_and_growth_the_teacher_first():
    for shape, weight_of_ctc_first in (("cosine_descent", True), ("cosine_growth", False)):
        objective = Objective(DistillConfig(alpha=shape), has_teacher=True)
        early, late = objective.weights(0.0), objective.weights(1.0)
        assert (early["ctc"] > late["ctc"]) == weight_of_ctc_first
        assert (early["kd"] < late["kd"]) == weight_of_ctc_first


def test_the_floor_keeps_ctc_on_and_the_weights_add_up():
    config = DistillConfig(alpha="cosine_vshape", alpha_floor=0.1)
    objective = Objective(config, has_teacher=True)
    for progress in (0.0, 0.3, 0.5, 0.7, 1.0):
        weights = objective.weights(progress)
        assert weights["ctc"] >= 0.1 and sum(weights.values()) == pytest.approx(1.0)
    assert objective.weights(0.5)["ctc"] == 0.1


def test_temperature_from_6_to_3():
    linear = Schedule(shape="linear", start=6.0, end=3.0)
    cosine = Schedule(shape="cosine_descent", start=6.0, end=3.0)
    assert [linear.at(p) for p in (0, 0.25, 1)] == [6.0, 5.25, 3.0]
    assert cosine.at(0.25) == pytest.approx(3 + 3 * (1 + math.cos(math.pi / 4)) / 2)
    assert (cosine.at(-1), cosine.at(2)) == (6.0, 3.0)


def test_knots_are_stages_or_lines():
    knots = ((0.0, 1.0), (0.5, 0.6), (1.0, 0.2))
    stages = Schedule(shape="constant", knots=knots)
    assert [stages.at(p) for p in (0, 0.49, 0.5, 0.99, 1)] == [1.0, 1.0, 0.6, 0.6, 0.2]
    lines = Schedule(shape="linear", knots=knots[:2])
    assert [lines.at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([1.0, 0.8, 0.6, 0.6])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shape": "linear"}, "start and end"),
        ({"shape": "constant"}, "start alone"),
        ({"shape": "cosine_descent", "start": 3.0, "end": 6.0}, "a start above the end"),
        ({"shape": "cosine_growth", "start": 6.0, "end": 3.0}, "a start below the end"),
        ({"shape": "linear", "knots": ((0.1, 1.0),)}, "expected 0 first"),
        ({"shape": "linear", "knots": ((0.0, 1.0), (0.0, 2.0))}, "rising"),
        ({"shape": "cosine_growth", "knots": ((0.0, 1.0),)}, "constant or linear"),
        ({"shape": "linear", "start": 1.0, "knots": ((0.0, 1.0),)}, "one or the other"),
    ],
)
def test_schedules_without_a_meaning_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**values)


def distill_conf(text):
    return parse_section(DistillConfig, yaml.safe_load(text), "a.yaml: distill_conf")


def test_numbers_names_and_sections_in_yaml():
    config = distill_conf(
        "{alpha: 1, temperature: {shape: linear, start: 6, end: 3}, kd: {weight: cosine_growth}}"
    )
    assert config.alpha == 1.0 and config.kd.weight == "cosine_growth"
    assert as_schedule(config.temperature).at(1.0) == 3.0
    again = parse_section(DistillConfig, to_mapping(config), "config.yaml")
    assert again == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: cosine_grow", "alpha: found 'cosine_grow'.*a number | constant | linear"),
        ("alpha: {shape: linear, strat: 1, end: 0}", "alpha.strat: unknown key.*'start'"),
        ("alpha: {shape: linear, start: 1.5, end: 0}", "alpha: found 0 to 1.5; expected 0 to 1"),
        ("alpha: 0.01", "below alpha_floor 0.05"),
        ("temperature: cosine_descent", "temperature: found cosine_descent; expected above 0"),
        ("kd: {weight: -1}", "weight: found -1; expected at least 0"),
        ("alpha: linear", "linear: expected start and end"),
    ],
)
def test_what_is_wrong_in_yaml_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        distill_conf(text)
