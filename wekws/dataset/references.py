"""Reference events of recordings: which keyword is where.

The file is tab-separated, with one line per event and these column names in the first line:

    recording   audio file, absolute or relative to the folder of this file
    keyword     the keyword; empty for a recording without any
    start       start of the keyword, in seconds from the start of the recording
    end         its end, in seconds
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.audio import probe
from wekws.dataset.vocabulary import normalise_keywords
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path

COLUMNS = ("recording", "keyword", "start", "end")
_LATE_S = 0.1  # so much after the end of its recording an event may end: times are rounded


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

    A byte order mark at the start of the file is ignored.
    Raises: DataError naming file and line of anything that is not as described above, of an event
    that overlaps another of the same keyword, or if there is no recording at all.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; expected a tab-separated text file") from None
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise DataError(
            f"{path}:1: found {''.join(lines[:1])[:60]!r}; expected the column names "
            f"{', '.join(COLUMNS)}, tab-separated"
        )
    found: dict[Path, list[tuple[Reference, int]]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != len(COLUMNS) or not fields[0]:
            raise DataError(f"{path}:{number}: {line!r}; expected {', '.join(COLUMNS)}")
        events = found.setdefault(path.parent / fields[0], [])
        if any(fields[1:]):
            try:
                events.append((_reference(*fields[1:]), number))
            except ValueError as error:  # a ConfigError too
                raise DataError(f"{path}:{number}: {error}") from None
    if not found:
        raise DataError(f"{path}: no recording in it")
    for events in found.values():
        events.sort(key=lambda event: event[0].start_s)
        _require_apart(path, events)
    return {name: [reference for reference, _ in events] for name, events in found.items()}


def require_in_recording(
    path: str | os.PathLike[str], recording: Path, events: Iterable[Reference]
) -> None:
    """Check that a recording can be read and that its events are within it.

    path: reference file, for messages.
    Raises: AudioError if the recording cannot be used; DataError naming an event that ends after
    it.
    """
    duration_s = probe(recording).duration_s
    for event in events:
        if event.end_s > duration_s + _LATE_S:
            raise DataError(
                f"{path}: {event.keyword} from {event.start_s:g} to {event.end_s:g} s, but "
                f"{recording} has {duration_s:.2f} s; correct the times (in seconds) or the "
                "recording"
            )


def _require_apart(path: Path, events: Sequence[tuple[Reference, int]]) -> None:
    """Refuse events of one keyword that overlap: a detection would count for one of them only."""
    last: dict[str, tuple[Reference, int]] = {}
    for event, number in events:
        before, first = last.get(event.keyword, (None, 0))
        if before is not None and event.start_s < before.end_s:
            raise DataError(
                f"{path}:{number}: {event.keyword} from {event.start_s:g} to {event.end_s:g} s "
                f"overlaps that of line {first}, {before.start_s:g} to {before.end_s:g} s; "
                "expected one line per occurrence"
            )
        last[event.keyword] = event, number


def _reference(keyword: str, start: str, end: str) -> Reference:
    (normalised,) = normalise_keywords([keyword])
    start_s, end_s = float(start), float(end)
    if not 0 <= start_s < end_s < math.inf:
        raise ConfigError(f"start {start}, end {end}; expected 0 <= start < end, in seconds")
    return Reference(keyword=normalised, start_s=start_s, end_s=end_s)
