import math

import pytest
import yaml

from wekws.config import parse_section, to_mapping
from wekws.distill.methods import DistillConfig
from wekws.distill.schedule import Schedule, as_schedule, share_out
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


def test_temperature_from_6_to_3():
    linear = Schedule(shape="linear", start=6.0, end=3.0)
    cosine = Schedule(shape="cosine_descent", start=6.0, end=3.0)
    assert [linear.at(p) for p in (0, 0.25, 1)] == [6.0, 5.25, 3.0]
    assert cosine.at(0.25) == pytest.approx(3 + 3 * (1 + math.cos(math.pi / 4)) / 2)
    assert (cosine.at(-1), cosine.at(2)) == (6.0, 3.0)


def test_knots_are_held_or_joined_by_lines():
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
def test_schedules_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**values)


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [
        ([10, 15, 10], 35, [10, 15, 10]),
        ([5, 10], 30, [10, 20]),
        # 2, 3 and 2 of 7 times 3: 0.86, 1.29, 0.86; there is one for each.
        ([10, 15, 10], 3, [1, 1, 1]),
        # 3.43, 5.14, 3.43: the first of the largest remainders gets the epoch left over.
        ([10, 15, 10], 12, [4, 5, 3]),
        # 0.05, 9.95: raised to 1, which the other pays for.
        ([1, 199], 10, [1, 9]),
        ([1, 1, 198], 10, [1, 1, 8]),
    ],
)
def test_whole_numbers_in_proportion_to_shares(shares, total, expected):
    assert share_out(shares, total) == expected


def test_more_shares_than_there_is_to_give_are_refused():
    with pytest.raises(ConfigError, match="3 stages .* in 2 epochs"):
        share_out([1, 1, 1], 2)


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
        ("temperature: cosine_descent", "found cosine_descent, that is 0 to 1; expected 0.01 to"),
        ("kd: {weight: -1}", "weight: found -1; expected at least 0"),
        ("alpha: linear", "linear: expected start and end"),
    ],
)
def test_mistakes_in_yaml_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        distill_conf(text)
