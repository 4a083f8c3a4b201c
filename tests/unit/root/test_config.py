from dataclasses import dataclass, field
from typing import Literal

import pytest

from wekws.config import apply_overrides, load_yaml_with_base, parse_section, to_mapping
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    temperature: float = 2.0

    def __post_init__(self):
        if self.temperature <= 0:
            raise ConfigError(f"temperature: found {self.temperature}; expected above 0")


@dataclass(frozen=True, kw_only=True)
class Outer:
    size: int
    kind: Literal["plain", "wide"] = "plain"
    speeds: tuple[float, ...] = (1.0,)
    path: str | None = None
    is_on: bool = False
    inner: Inner = field(default_factory=Inner)


def test_a_section_becomes_a_dataclass_and_back():
    mapping = {"size": 3, "kind": "wide", "speeds": [0.9, 1], "inner": {"temperature": 1}}
    section = parse_section(Outer, mapping, "x.yaml")
    assert section == Outer(size=3, kind="wide", speeds=(0.9, 1.0), inner=Inner(temperature=1.0))
    assert parse_section(Outer, to_mapping(section), "x.yaml") == section


def test_every_problem_is_named_with_its_path_and_a_suggestion():
    mapping = {"kind": "wid", "inner": {"temprature": 3}, "speeds": ["fast"], "is_on": 1}
    with pytest.raises(ConfigError) as caught:
        parse_section(Outer, mapping, "x.yaml")
    message = str(caught.value)
    assert "x.yaml.size: missing; expected an integer" in message
    assert "x.yaml.kind: found 'wid'; expected plain | wide; did you mean 'wide'?" in message
    assert "x.yaml.inner.temprature: unknown key; did you mean 'temperature'?" in message
    assert "x.yaml.speeds[0]: found 'fast' (text); expected a number" in message
    assert "x.yaml.is_on: found 1" in message


def test_a_sections_own_check_is_reported_under_its_path():
    with pytest.raises(ConfigError, match=r"x\.yaml\.inner: temperature: found -1\.0"):
        parse_section(Outer, {"size": 1, "inner": {"temperature": -1}}, "x.yaml")


def test_a_truth_is_not_an_integer():
    with pytest.raises(ConfigError, match="size: found True"):
        parse_section(Outer, {"size": True}, "x.yaml")


def test_overlays_merge_and_scientific_notation_is_a_number(tmp_path):
    (tmp_path / "base.yaml").write_text("size: 1\ninner: {temperature: 1e-3}\nspeeds: [1, 2]\n")
    (tmp_path / "top.yaml").write_text("base: base.yaml\nsize: 2\nspeeds: [3]\n")
    content = load_yaml_with_base(tmp_path / "top.yaml")
    assert content == {"size": 2, "inner": {"temperature": 0.001}, "speeds": [3]}


def test_of_several_bases_the_later_wins(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\ny: 1\nz: 1\n")
    (tmp_path / "b.yaml").write_text("y: 2\nz: 2\n")
    (tmp_path / "top.yaml").write_text("base: [a.yaml, b.yaml]\nz: 3\n")
    assert load_yaml_with_base(tmp_path / "top.yaml") == {"x": 1, "y": 2, "z": 3}


def test_a_file_that_is_its_own_base_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="is its own base"):
        load_yaml_with_base(tmp_path / "a.yaml")


def test_overrides_reach_into_sections():
    content = apply_overrides({"a": {"b": 1, "c": 2}}, ["a.b=1e-4", "a.d=[1, x]", "e=true"])
    assert content == {"a": {"b": 1e-4, "c": 2, "d": [1, "x"]}, "e": True}
    with pytest.raises(ConfigError, match="expected section.key=value"):
        apply_overrides({}, ["a.b"])
