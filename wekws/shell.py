"""Seam between the shell scripts and Python: paths that users typed, variables for ``eval``."""

import difflib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wekws.errors import ConfigError


@dataclass(frozen=True)
class UserPaths:
    """Places of paths that a user gave to a script, which itself runs in the project's folder."""

    caller_dir: Path
    """Folder in which the user started the script."""

    def find(self, path: str, flag: str) -> Path:
        """Return an existing file or folder: seen from the caller's folder, else the project's.

        A path stays as it was typed where it means the same in the project's folder.
        Raises: ConfigError, naming the flag, if there is neither.
        """
        found = self.place(path)
        if not found.exists():
            raise ConfigError(
                f"{flag} {path}: no such file or folder, seen from {self._seen_from}"
                f"{self._suggestion(path)}"
            )
        return found

    def _suggestion(self, path: str) -> str:
        """Return a file of the same folder with a similar name, as a question; empty: none."""
        for folder in ((self.caller_dir / path).parent, Path(path).parent):
            names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
            if close := difflib.get_close_matches(Path(path).name, names, 1):
                return f"; did you mean '{Path(path).with_name(close[0])}'?"
        return ""

    def find_all(self, paths: Iterable[str], flag: str) -> tuple[Path, ...]:
        """Return several existing files or folders, see ``find``.

        Raises: ConfigError also for one that is given twice.
        """
        found: dict[Path, Path] = {}
        for path in paths:
            place = self.find(path, flag)
            if place.resolve() in found:
                raise ConfigError(f"{flag} {path}: given twice; give it once")
            found[place.resolve()] = place
        return tuple(found.values())

    def find_given(self, path: str, flag: str, default: Path) -> Path:
        """Return an existing file or folder, or the default if the user gave none."""
        return self.find(path, flag) if path else default

    def place(self, path: str) -> Path:
        """Return where a path lies; one that is nowhere yet counts from the caller's folder."""
        typed, of_caller = Path(path), self.caller_dir / path
        if typed.is_absolute() or self._is_project:
            return typed
        return typed if typed.exists() and not of_caller.exists() else of_caller

    @property
    def _is_project(self) -> bool:
        return self.caller_dir.resolve() == Path.cwd()

    @property
    def _seen_from(self) -> str:
        folders = [str(self.caller_dir), *([] if self._is_project else [str(Path.cwd())])]
        return " or ".join(folders)


def assignments(variables: Mapping[str, object]) -> str:
    """Return bash assignments, one per line, that are safe to evaluate whatever the values hold.

    A list or tuple becomes an array, a bool ``true`` or ``false``, None the empty string.
    """
    return "\n".join(f"{name}={_quoted(value)}" for name, value in variables.items())


def _quoted(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"({' '.join(map(_quoted, value))})"
    if isinstance(value, bool):
        return str(value).lower()
    return shlex.quote("" if value is None else str(value))
