"""YAML sections into frozen dataclasses, with every problem named at once."""

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from wekws.errors import ConfigError
from wekws.files import parse_yaml_value, read_yaml

T = TypeVar("T")


def load_yaml_with_base(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML mapping; a top key ``base: other.yaml`` is what it overlays.

    The base, or each of a list of them in turn, is looked up beside the overlay and may itself
    have a base. Mappings merge key by key, anything else replaces.
    Raises: ConfigError if a file is missing, is no mapping or is its own ancestor.
    """
    return _load_chain(Path(path), ())


def _load_chain(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"{path}: is its own base; remove one of the `base:` lines")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {_kind(content)}")
    bases = content.pop("base", [])
    result: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        result = merge(result, _load_chain(path.parent / base, (*above, path.resolve())))
    return merge(result, content)


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``overlay`` on top: mappings merge, everything else replaces."""
    result = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            value = merge(result[key], value)
        result[key] = value
    return result


def apply_overrides(content: Mapping[str, Any], overrides: typing.Iterable[str]) -> dict[str, Any]:
    """Return ``content`` with ``section.key=value`` assignments applied; values read as YAML.

    Raises: ConfigError for an assignment without ``=``.
    """
    result = dict(content)
    for item in overrides:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--override {item}: expected section.key=value")
        value = parse_yaml_value(text)
        for key in reversed(name.strip().split(".")):
            value = {key: value}
        result = merge(result, value)
    return result


def parse_section(cls: type[T], mapping: Any, where: str) -> T:
    """Build the frozen dataclass ``cls`` from a mapping.

    where: file and dotted path, for messages.
    Raises: ConfigError listing every unknown key (with a suggestion), missing key and wrong
    type under ``where``, and what the section's own checks refuse.
    """
    problems: list[str] = []
    value = _convert(cls, mapping, where, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return value


def to_mapping(section: Any) -> Any:
    """Return plain dicts and lists for a dataclass, ready for YAML."""
    if dataclasses.is_dataclass(section):
        return {f.name: to_mapping(getattr(section, f.name)) for f in dataclasses.fields(section)}
    if isinstance(section, tuple | list):
        return [to_mapping(item) for item in section]
    if isinstance(section, Mapping):
        return {key: to_mapping(item) for key, item in section.items()}
    return section


def non_defaults(section: Any) -> Any:
    """Return plain dicts and lists for a dataclass, without fields that are at their defaults."""
    if not dataclasses.is_dataclass(section):
        return to_mapping(section)
    values = {f: getattr(section, f.name) for f in dataclasses.fields(section)}
    return {f.name: non_defaults(v) for f, v in values.items() if v != _default(f)}


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_section(kind, value, where, problems)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(kind, value, where, problems)
    if origin is Literal:
        return _convert_choice(typing.get_args(kind), value, where, problems)
    if origin is tuple:
        return _convert_tuple(typing.get_args(kind), value, where, problems)
    if origin is dict:
        key_kind, item_kind = typing.get_args(kind)
        if not isinstance(value, Mapping):
            return _refuse(where, value, "a mapping", problems)
        return {
            _convert(key_kind, k, where, problems): _convert(item_kind, v, f"{where}.{k}", problems)
            for k, v in value.items()
        }
    return _convert_scalar(kind, value, where, problems)


def _convert_section(cls: Any, value: Any, where: str, problems: list[str]) -> Any:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        return _refuse(where, value, "a mapping", problems)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    before = len(problems)
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            advice = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(fields)}"
            problems.append(f"{where}.{key}: unknown key; {advice}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}.{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}.{name}: missing; expected {_describe(hints[name])}")
    if len(problems) > before:
        return None
    try:
        return cls(**arguments)
    except ConfigError as error:
        problems.append(f"{where}: {error}")
        return None


def _convert_union(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    members = typing.get_args(kind)
    if value is None and type(None) in members:
        return None
    trials: list[list[str]] = []
    for member in members:
        if member is type(None):
            continue
        trial: list[str] = []
        result = _convert(member, value, where, trial)
        if not trial:
            return result
        trials.append(trial)
    sections = [
        trial
        for member, trial in zip((m for m in members if m is not type(None)), trials, strict=True)
        if dataclasses.is_dataclass(member)
    ]
    # A mapping can only have been meant for a section: what is wrong inside it is of use.
    meant = sections if isinstance(value, Mapping) and len(sections) == 1 else trials
    if len(meant) == 1:
        problems.extend(meant[0])
        return None
    return _refuse(where, value, _describe(kind), problems)


def _convert_choice(choices: tuple, value: Any, where: str, problems: list[str]) -> Any:
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    advice = f"; did you mean '{close[0]}'?" if close else ""
    names = " | ".join(str(choice) for choice in choices)
    problems.append(f"{where}: found {value!r}; expected {names}{advice}")
    return None


def _convert_tuple(kinds: tuple, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        return _refuse(where, value, "a list", problems)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        problems.append(f"{where}: found {len(value)} items; expected {len(kinds)}")
        return None
    return tuple(
        _convert(kind, item, f"{where}[{i}]", problems)
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _convert_scalar(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    return _refuse(where, value, _describe(kind), problems)


def _refuse(where: str, value: Any, expected: str, problems: list[str]) -> None:
    problems.append(f"{where}: found {value!r} ({_kind(value)}); expected {expected}")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing", bool: "a truth"}
    return names.get(type(value), f"a {type(value).__name__}")


def _describe(kind: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    if kind in names:
        return names[kind]
    if typing.get_origin(kind) is Literal:
        return " | ".join(str(choice) for choice in typing.get_args(kind))
    if dataclasses.is_dataclass(kind):
        return "a mapping"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " | ".join(_describe(member) for member in typing.get_args(kind))
    if kind is type(None):
        return "nothing"
    return str(kind).replace("NoneType", "nothing")
