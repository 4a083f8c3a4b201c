"""YAML files: reading with an error that names file and line, and writing.

Apart from `wekws.files`, so that a detector of an exported model needs no PyYAML.
"""

import os
import re
from typing import Any

import yaml

from wekws.errors import ConfigError
from wekws.files import atomic_path

# A line of YAML can take milliseconds to read; this is far above any configuration.
_MAX_YAML_CHARACTERS = 1 << 19
_MERGE_TAG = "tag:yaml.org,2002:merge"


class _DuplicateKeyError(yaml.MarkedYAMLError):
    """A mapping holds the same key twice, of which YAML would keep the last in silence."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as a number and refuses a key that occurs twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE_TAG:
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in first:
                raise _DuplicateKeyError(
                    problem=f"key '{key}' occurs twice, first on line {first[key]}; remove one",
                    problem_mark=key_node.start_mark,
                )
            first[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read one YAML document.

    Raises: ConfigError naming the file and line if it is missing, is not YAML, or if a mapping
    holds a key twice.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_MAX_YAML_CHARACTERS + 1)
        if len(text) > _MAX_YAML_CHARACTERS:
            raise ConfigError(
                f"{path}: longer than {_MAX_YAML_CHARACTERS} characters; expected a configuration"
            )
        return yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; expected a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; expected a YAML file") from None
    except RecursionError:
        raise ConfigError(f"{path}: sections are nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{line}: {_problem(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error


def parse_yaml_value(text: str) -> Any:
    """Read a value given on the command line the way a YAML file would.

    Raises: ConfigError if the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_problem(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not readable as YAML: {error}") from error


def _problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _DuplicateKeyError):
        return str(error.problem)
    return "not readable as YAML: " + ", ".join(filter(None, (error.context, error.problem)))


def write_yaml(path: str | os.PathLike[str], value: Any) -> None:
    """Write one YAML document, keys in their order, Chinese as it is."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        yaml.safe_dump(value, stream, sort_keys=False, allow_unicode=True)
