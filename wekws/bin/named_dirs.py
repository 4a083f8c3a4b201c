"""Arguments ``NAME=DIR`` of the report and plot commands."""

from collections.abc import Sequence
from pathlib import Path

from wekws.errors import ConfigError


def parse_named_dirs(arguments: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=DIR`` arguments; without a name the folder's own name is taken.

    Raises: ConfigError for a name given twice.
    """
    named: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.rpartition("=")
        if not equals or "/" in name:
            name, path = Path(argument).resolve().name, argument
        if name in named:
            raise ConfigError(
                f"two folders are called {name!r}: {named[name]} and {path}; give them different "
                "names: NAME=DIR"
            )
        named[name] = Path(path)
    return named
