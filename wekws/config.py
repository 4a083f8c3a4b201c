"""YAML configuration files: bases, overlays and overrides, parsed into frozen dataclasses.

Every error names the file (or the ``--override``) that set the value, then its dotted key:
``conf/student.yaml: distill_conf.temprature: unknown key; did you mean 'temperature'?``
"""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from wekws.errors import ConfigError, did_you_mean
from wekws.yaml_files import parse_yaml_value, read_yaml

T = TypeVar("T")
Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RawConfig:
    """A configuration before it is parsed: nested mappings, and where each value was set."""

    content: dict[str, Any] = field(default_factory=dict)
    """Nested mappings as YAML gives them."""
    origins: dict[Key, str] = field(default_factory=dict)
    """File or flag that set a value, by the keys that lead to it; a list counts as one value."""
    name: str = ""
    """Files that were read, without their bases: named for what no file sets."""

    @classmethod
    def of(cls, content: Mapping[str, Any], origin: str) -> "RawConfig":
        """Return a configuration that comes from one file or flag."""
        origins = {key: origin for key in _leaves(content, ())}
        return cls(content=dict(content), origins=origins, name=origin)

    def overlaid(self, top: "RawConfig") -> "RawConfig":
        """Return this configuration with another one on top, see ``merge``."""
        kept = {
            key: origin
            for key, origin in self.origins.items()
            if not any(_is_prefix(new, key) or _is_prefix(key, new) for new in top.origins)
        }
        return RawConfig(
            content=merge(self.content, top.content),
            origins=kept | top.origins,
            name=" + ".join(name for name in (self.name, top.name) if name),
        )

    def origin(self, *keys: str) -> str | None:
        """Return the file or flag that set a value, None if none did.

        A section that several files set gives all of them, joined by `` + ``.
        """
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.origins:
                return self.origins[keys[:length]]
        below = [origin for key, origin in self.origins.items() if keys and _is_prefix(keys, key)]
        return " + ".join(dict.fromkeys(below)) or None


def _leaves(content: Mapping[str, Any], above: Key) -> Iterator[Key]:
    for name, value in content.items():
        key = (*above, str(name))
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        else:
            yield key


def _is_prefix(start: Key, key: Key) -> bool:
    return key[: len(start)] == start


def load_config(
    path: str | os.PathLike[str],
    overlays: Iterable[str | os.PathLike[str]] = (),
    overrides: Iterable[str] = (),
) -> RawConfig:
    """Read a configuration file and its bases, then overlays, then ``section.key=value``.

    A top key ``base: other.yaml`` names the file that a file changes, or a list of them, each
    changing the ones before it; it is looked up beside the file and may itself have a base.
    Mappings merge key by key, anything else replaces.
    Raises: ConfigError if a file is missing, is not a mapping, holds a key twice or is its own
    ancestor, and for an override that cannot be read.
    """
    result = _load_chain(Path(path), ())
    for overlay in overlays:
        result = result.overlaid(_load_chain(Path(overlay), ()))
    name = result.name
    for item in overrides:
        result = result.overlaid(RawConfig.of(_read_override(item), f"--override {item}"))
    return dataclasses.replace(result, name=name)


def load_yaml_with_base(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a configuration file and its bases, see ``load_config``."""
    return load_config(path).content


def _load_chain(path: Path, above: tuple[Path, ...]) -> RawConfig:
    if path.resolve() in above:
        raise ConfigError(f"{path}: is its own base; remove one of the `base:` lines")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {_kind(content)}")
    bases = content.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base: found {bases!r}; expected a file name or a list of them")
    result = RawConfig()
    for base in bases:
        result = result.overlaid(_load_chain(path.parent / base, (*above, path.resolve())))
    result = result.overlaid(RawConfig.of(content, str(path)))
    return dataclasses.replace(result, name=str(path))


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``overlay`` on top: mappings merge, everything else replaces."""
    result = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            value = merge(result[key], value)
        result[key] = value
    return result


def _read_override(item: str) -> dict[str, Any]:
    name, equals, text = item.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--override {item}: expected section.key=value")
    try:
        value = parse_yaml_value(text)
    except ConfigError as error:
        raise ConfigError(f"--override {item}: {error}") from error
    for key in reversed(keys):
        value = {key: value}
    return value


def parse_config(cls: type[T], raw: RawConfig, section: str = "") -> T:
    """Build the frozen dataclass ``cls`` from a configuration, or from one section of it.

    section: dotted path; a section that is absent has its defaults.
    Raises: ConfigError listing every unknown key (with a suggestion), missing key and wrong
    type, and what the section's own checks refuse.
    """
    keys = tuple(section.split(".")) if section else ()
    value: Any = raw.content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return _parse(cls, value, _Where(raw, keys))


def parse_section(cls: type[T], mapping: Any, where: str) -> T:
    """Build the frozen dataclass ``cls`` from a mapping.

    where: file that the mapping comes from, for messages.
    Raises: ConfigError, see ``parse_config``.
    """
    return _parse(cls, mapping, _Where(RawConfig(name=where), ()))


def read_assignments(cls: type[T], assignments: Iterable[str]) -> T:
    """Read ``name=value`` texts of a script's options, the later of two for the same option counts.

    Raises: ConfigError listing every value that is of the wrong kind.
    """
    texts = dict(assignment.split("=", 1) for assignment in assignments)
    kinds = typing.get_type_hints(cls)
    values = {name: _read_option(texts.pop(name, ""), kinds[name]) for name in kinds}
    try:
        return parse_section(cls, {**values, **texts}, "--")
    except ConfigError as error:
        raise ConfigError(str(error).replace("--: ", "--")) from None


def _read_option(text: str, kind: object) -> object:
    """Return the value that a text stands for; a text that does not fit stays as it is."""
    is_optional = typing.get_origin(kind) is types.UnionType
    if is_optional and not text:
        return None
    if kind is bool:
        return {"true": True, "false": False}.get(text, text)
    if kind is int or is_optional:
        try:
            return int(text)
        except ValueError:
            return text
    if typing.get_origin(kind) is tuple:
        return tuple(part for part in text.split(",") if part)
    return text


def _parse(cls: type[T], mapping: Any, where: "_Where") -> T:
    problems: list[str] = []
    value = _convert(cls, mapping, where, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return value


@dataclass(frozen=True)
class _Where:
    """A place in a configuration; as text, the file that set it and its dotted key."""

    raw: RawConfig
    keys: Key
    index: str = ""

    def child(self, name: object) -> "_Where":
        if self.index:
            return dataclasses.replace(self, index=f"{self.index}.{name}")
        return dataclasses.replace(self, keys=(*self.keys, str(name)))

    def item(self, index: int) -> "_Where":
        return dataclasses.replace(self, index=f"{self.index}[{index}]")

    def __str__(self) -> str:
        origin = self.raw.origin(*self.keys) or self.raw.name
        dotted = ".".join(self.keys) + self.index
        return f"{origin}: {dotted}" if dotted else origin


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


def _convert(kind: Any, value: Any, where: _Where, problems: list[str]) -> Any:
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
            _convert(key_kind, k, where, problems): _convert(item_kind, v, where.child(k), problems)
            for k, v in value.items()
        }
    return _convert_scalar(kind, value, where, problems)


def _convert_section(cls: Any, value: Any, where: _Where, problems: list[str]) -> Any:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        return _refuse(where, value, _described_section(cls), problems)
    known = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    before = len(problems)
    for key in value:
        if key not in known:
            advice = did_you_mean(str(key), known) or f"; known: {', '.join(known)}"
            problems.append(f"{where.child(key)}: unknown key{advice}")
    arguments = {}
    for name, entry in known.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], where.child(name), problems)
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            problems.append(f"{where.child(name)}: missing; expected {_describe(hints[name])}")
    if len(problems) > before:
        return None
    try:
        return cls(**arguments)
    except ConfigError as error:
        problems.append(f"{where}: {error}")
        return None


def _convert_union(kind: Any, value: Any, where: _Where, problems: list[str]) -> Any:
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
    # A mapping is meant for the one section among the choices: report what is wrong inside it.
    meant = sections if isinstance(value, Mapping) and len(sections) == 1 else trials
    if len(meant) == 1:
        problems.extend(meant[0])
        return None
    expected = _describe(kind)
    if isinstance(value, str):
        literals = (member for member in members if typing.get_origin(member) is Literal)
        choices = [str(choice) for member in literals for choice in typing.get_args(member)]
        expected += did_you_mean(value, choices)
    return _refuse(where, value, expected, problems)


def _convert_choice(choices: tuple, value: Any, where: _Where, problems: list[str]) -> Any:
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    names = [str(choice) for choice in choices]
    advice = did_you_mean(str(value), names)
    problems.append(f"{where}: found {value!r}; expected {' | '.join(names)}{advice}")
    return None


def _convert_tuple(kinds: tuple, value: Any, where: _Where, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        return _refuse(where, value, "a list", problems)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        problems.append(f"{where}: found {len(value)} items; expected {len(kinds)}")
        return None
    return tuple(
        _convert(kind, item, where.item(i), problems)
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _convert_scalar(kind: Any, value: Any, where: _Where, problems: list[str]) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return _refuse(where, value, "a finite number", problems)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    return _refuse(where, value, _describe(kind), problems)


def _refuse(where: _Where, value: Any, expected: str, problems: list[str]) -> None:
    problems.append(f"{where}: found {value!r} ({_kind(value)}); expected {expected}")


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping", list: "a list", str: "text", type(None): "nothing", bool: "bool",
        int: "an integer", float: "a number",
    }  # fmt: skip
    return names.get(type(value), f"a {type(value).__name__}")


def _described_section(cls: Any) -> str:
    """Return what a section is, with the keys that it must have."""
    # Where neither is given, both are `dataclasses.MISSING`.
    needed = [f"{f.name}: ..." for f in dataclasses.fields(cls) if f.default is f.default_factory]
    return f"a mapping, {{{', '.join(needed)}}}" if needed else "a mapping"


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
