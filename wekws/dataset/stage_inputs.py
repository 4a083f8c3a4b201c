"""Fingerprint of all that a data stage depends on: its settings, tables, audio and folders."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from wekws.dataset.manifest import kaldi_rows
from wekws.errors import DataError

StrPath = str | os.PathLike[str]


def stage_fingerprint(
    settings: str,
    *,
    tables: Iterable[StrPath] = (),
    audio_tables: Iterable[StrPath] = (),
    folders: Iterable[StrPath] = (),
) -> str:
    """Return a hash that changes when anything that a stage depends on has changed.

    settings: options of the stage, as one text.
    tables: files whose content counts, whenever they were written.
    audio_tables: ``wav.scp`` files: their content, and name, size and time of each audio file.
    folders: name, size and time of every file below them.
    """
    digest = hashlib.sha256()
    for line in _lines(settings, tables, audio_tables, folders):
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def _lines(
    settings: str,
    tables: Iterable[StrPath],
    audio_tables: Iterable[StrPath],
    folders: Iterable[StrPath],
) -> Iterator[str]:
    yield settings
    for path in tables:
        yield _content(path)
    for path in audio_tables:
        yield _content(path)
        try:
            yield from (_status(row.value) for row in kaldi_rows(path))
        except (DataError, OSError):
            continue  # the stage itself says what is wrong
    for folder in folders:
        for parent, names, files in os.walk(folder, followlinks=True):
            names.sort()
            yield from (_status(os.path.join(parent, name)) for name in sorted(files))


def _content(path: StrPath) -> str:
    try:
        return f"{path}\0{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    except OSError:
        return f"{path}\0missing"


def _status(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return f"{path}\0missing"
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
