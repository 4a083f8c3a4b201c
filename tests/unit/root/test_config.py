from dataclasses import dataclass, field
from typing import Literal

import pytest

from wekws.config import (
    load_config,
    load_yaml_with_base,
    parse_config,
    parse_section,
    to_mapping,
)
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
    assert "x.yaml: size: missing; expected an integer" in message
    assert "x.yaml: kind: found 'wid'; expected plain | wide; did you mean 'wide'?" in message
    assert "x.yaml: inner.temprature: unknown key; did you mean 'temperature'?" in message
    assert "x.yaml: speeds[0]: found 'fast' (text); expected a number" in message
    assert "x.yaml: is_on: found 1 (an integer); expected true or false" in message


def test_a_sections_own_check_is_reported_under_its_path():
    with pytest.raises(ConfigError, match=r"x\.yaml: inner: temperature: found -1\.0"):
        parse_section(Outer, {"size": 1, "inner": {"temperature": -1}}, "x.yaml")


def test_a_bool_is_not_an_integer():
    with pytest.raises(ConfigError, match=r"x\.yaml: size: found True \(bool\); expected an"):
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


def test_overrides_reach_into_sections(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {b: 1, c: 2}\n")
    raw = load_config(tmp_path / "a.yaml", overrides=["a.b=1e-4", "a.d=[1, x]", "e=true"])
    assert raw.content == {"a": {"b": 1e-4, "c": 2, "d": [1, "x"]}, "e": True}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "--override a.b: expected section.key=value"),
        ("=3", "--override =3: expected section.key=value"),
        ("a..b=3", "--override a..b=3: expected section.key=value"),
        ("x=[", "--override x=[: not readable as YAML: while parsing a flow node, expected"),
        ("x={a: 1, a: 2}", "--override x={a: 1, a: 2}: key 'a' occurs twice"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(tmp_path, override, message):
    (tmp_path / "a.yaml").write_text("a: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml", overrides=[override])
    assert str(caught.value).startswith(message)


def test_an_error_names_the_file_that_set_the_value(tmp_path):
    write = {
        "base.yaml": "size: 1\nkind: wid\n",
        "main.yaml": "base: base.yaml\ninner: {temperature: 3}\n",
        "top.yaml": "inner: {temprature: 2}\nspeeds: [1, fast]\n",
    }
    for name, text in write.items():
        (tmp_path / name).write_text(text)
    main, top, base = (str(tmp_path / f"{name}.yaml") for name in ("main", "top", "base"))
    raw = load_config(main, [top], ["is_on=7"])
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, raw)
    assert str(caught.value).splitlines() == [
        f"{base}: kind: found 'wid'; expected plain | wide; did you mean 'wide'?",
        f"{top}: speeds[1]: found 'fast' (text); expected a number",
        "--override is_on=7: is_on: found 7 (an integer); expected true or false",
        f"{top}: inner.temprature: unknown key; did you mean 'temperature'?",
    ]
    assert raw.origin("inner") == f"{main} + {top}"
    assert raw.origin("path") is None


def test_a_value_that_is_replaced_has_a_new_origin(tmp_path):
    (tmp_path / "main.yaml").write_text("size: 1\ninner: {temperature: 3}\n")
    (tmp_path / "top.yaml").write_text("size: 2\ninner: 5\n")
    raw = load_config(tmp_path / "main.yaml", [tmp_path / "top.yaml"])
    assert raw.content == {"size": 2, "inner": 5}
    assert set(raw.origins.values()) == {str(tmp_path / "top.yaml")}


def test_a_key_that_no_file_sets_is_missing_in_all_of_them(tmp_path):
    (tmp_path / "main.yaml").write_text("kind: plain\n")
    (tmp_path / "top.yaml").write_text("kind: wide\n")
    raw = load_config(tmp_path / "main.yaml", [tmp_path / "top.yaml"])
    with pytest.raises(ConfigError) as caught:
        parse_config(Outer, raw)
    files = f"{tmp_path / 'main.yaml'} + {tmp_path / 'top.yaml'}"
    assert str(caught.value) == f"{files}: size: missing; expected an integer"


@pytest.mark.parametrize("base", ["3", "{a: b}", "[1]"])
def test_a_base_that_is_no_file_name_is_refused(tmp_path, base):
    (tmp_path / "a.yaml").write_text(f"base: {base}\n")
    with pytest.raises(ConfigError, match="a.yaml: base: found .*; expected a file name"):
        load_config(tmp_path / "a.yaml")
