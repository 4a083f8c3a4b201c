"""Reference events of recordings: which keyword is where.

The file is tab-separated, with one line per event and these column names in the first line:

    recording   audio file, absolute or relative to the folder of this file
    keyword     the keyword; empty for a recording without any
    start       start of the keyword, in seconds from the start of the recording
    end         its end, in seconds
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.vocabulary import normalise_keywords
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path

COLUMNS = ("recording", "keyword", "start", "end")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A keyword in a recording."""

    keyword: str
    """The keyword in normalised form."""
    start_s: float
    """Its start in seconds from the start of the recording."""
    end_s: float
    """Its end in seconds, above the start."""


def write_references(
    path: str | os.PathLike[str], recording: str, references: Iterable[Reference]
) -> None:
    """Write the events of one recording; recording: its path as the file shall have it."""
    rows = [(recording, r.keyword, f"{r.start_s:.3f}", f"{r.end_s:.3f}") for r in references]
    with atomic_path(Path(path)) as temporary:
        lines = ["\t".join(row) for row in [COLUMNS, *(rows or [(recording, "", "", "")])]]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_references(path: str | os.PathLike[str]) -> dict[Path, list[Reference]]:
    """Return the events of each recording by its path, in order of time.

    Raises: DataError naming file and line of anything that is not as described above, or if there
    is no recording at all.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; expected a tab-separated text file") from None
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise DataError(f"{path}:1: expected the column names {', '.join(COLUMNS)}, tab-separated")
    found: dict[Path, list[Reference]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != len(COLUMNS) or not fields[0]:
            raise DataError(f"{path}:{number}: {line!r}; expected {', '.join(COLUMNS)}")
        events = found.setdefault(path.parent / fields[0], [])
        if any(fields[1:]):
            try:
                events.append(_reference(*fields[1:]))
            except ValueError as error:  # a ConfigError too
                raise DataError(f"{path}:{number}: {error}") from None
    if not found:
        raise DataError(f"{path}: no recording in it")
    return {name: sorted(events, key=lambda r: r.start_s) for name, events in found.items()}


def _reference(keyword: str, start: str, end: str) -> Reference:
    (normalised,) = normalise_keywords([keyword])
    start_s, end_s = float(start), float(end)
    if not 0 <= start_s < end_s < math.inf:
        raise ConfigError(f"start {start}, end {end}; expected 0 <= start < end, in seconds")
    return Reference(keyword=normalised, start_s=start_s, end_s=end_s)
