"""Lists on disk: Kaldi tables (``wav.scp``, ``text``, ...) and WeKWS's ``data.list``."""

import array
import contextlib
import filecmp
import gc
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wekws.errors import DataError
from wekws.files import atomic_path

SPLITS = ("train", "dev", "test")
"""Splits of a corpus, each a Kaldi folder with its own data list."""

_MAX_NAMED = 20
_DECODER = json.JSONDecoder()
# As write_data_list writes it, without an escaped character. JSON allows no control character.
_TEXT = r'"([^"\\\x00-\x1f]{})"'
_USUAL_LINE = re.compile(
    rf'\{{"key": {_TEXT.format("+")}, "txt": {_TEXT.format("*")}, '
    rf'"duration": (\d+\.\d+), "wav": {_TEXT.format("+")}\}}',
    re.ASCII,
)


class Utterance(NamedTuple):
    """One line of a data list, under WeKWS's names.

    A named tuple, which is quicker to make than a frozen dataclass: a list may have a million.
    """

    key: str
    """Utterance id."""
    wav: str
    """Path of the audio file."""
    txt: str | tuple[int, ...]
    """Transcript; WeKWS's older lists contain label ids instead."""
    duration: float
    """Length in seconds, > 0."""
    tok: tuple[str, ...] | None = None
    """Label tokens, if the list contains them."""
    category: str = ""
    """Kind of audio, such as music; false alarms are also counted per category. Empty: none."""


@dataclass(frozen=True, slots=True)
class KaldiRow:
    """One line of a Kaldi table."""

    line: int
    """Line number, from 1."""
    key: str
    """First word: the id."""
    value: str
    """Rest of the line; may be empty."""


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from searching a million new objects again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collector_paused()
def read_data_list(path: str | os.PathLike[str]) -> list[Utterance]:
    """Read JSON lines with ``key``, ``wav``, ``txt``, ``duration``; ``tok``, ``category`` if given.

    Raises: DataError with file and line of every bad line, of every duplicate key, or if the
    list is empty.
    """
    utterances: dict[str, Utterance] = {}
    lines = array.array("q")  # where the utterances are, in their order
    problems = []
    for number, line in _lines(path):
        try:
            utterance = _parse_utterance(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if utterance.key in utterances:
            first = lines[list(utterances).index(utterance.key)]
            problems.append(f"{path}:{number}: key '{utterance.key}' is already in line {first}")
            if len(problems) > _MAX_NAMED:
                break
            continue
        utterances[utterance.key] = utterance
        lines.append(number)
    _raise_all(problems)
    if not utterances:
        raise DataError(f"{path}: no utterances; make the list with wekws.bin.make_list")
    return list(utterances.values())


def write_data_list(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write JSON lines, sorted by key as ``LC_ALL=C sort`` would.

    A file that already has this content is not written, so that what was made from it stays newer.
    """
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8") as stream:
            for utterance in sorted(utterances, key=lambda utterance: utterance.key):
                stream.write(json.dumps(_to_json(utterance), ensure_ascii=False) + "\n")
        if os.path.isfile(path) and filecmp.cmp(temporary, path, shallow=False):
            shutil.copystat(path, temporary)


def audio_lines(utterances: Iterable[Utterance]) -> bytes:
    """Return a line per utterance with its key, path, and the size and time of its file."""
    return b"".join(file_line(utterance.wav, utterance.key) for utterance in utterances)


def file_line(path: str, key: str) -> bytes:
    """Return a line with a key, a path, and the size and time of the file."""
    try:
        status = os.stat(path)
    except OSError:
        return f"{key}\0{path}\0missing\n".encode()
    return f"{key}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()


def audio_status(utterances: Iterable[Utterance]) -> str:
    """Return a hash of the names, sizes and times of a list's audio files."""
    return hashlib.sha256(audio_lines(utterances)).hexdigest()[:16]


def kaldi_rows(path: str | os.PathLike[str]) -> Iterator[KaldiRow]:
    """Yield the rows of a Kaldi table in their order, duplicates included.

    Raises: DataError if the file is not UTF-8, FileNotFoundError.
    """
    for number, line in _lines(path):
        key, _, value = line.replace("\t", " ").partition(" ")
        yield KaldiRow(number, key, value.strip())


def read_kaldi_table(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a Kaldi table: the rest of each line (which may be empty) by id.

    Raises: DataError naming both lines of every duplicate id.
    """
    rows: dict[str, KaldiRow] = {}
    problems = []
    for row in kaldi_rows(path):
        first = rows.setdefault(row.key, row)
        if first is not row:
            problems.append(f"{path}:{row.line}: id '{row.key}' is already in line {first.line}")
    _raise_all(problems)
    return {key: row.value for key, row in rows.items()}


def write_kaldi_table(path: str | os.PathLike[str], rows: Iterable[tuple[str, str]]) -> None:
    """Write ``id value`` lines, sorted as ``LC_ALL=C sort`` would.

    A file that already has this content is not written, so that files made from it stay newer.
    """
    content = "".join(f"{key} {value}".rstrip() + "\n" for key, value in sorted(rows)).encode()
    path = Path(path)
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield number and content of each line that is not blank; any line ends, BOM or not."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if stripped := line.strip():
                    yield number, stripped
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); convert it with iconv") from None


def _parse_utterance(line: str) -> Utterance:
    if usual := _USUAL_LINE.fullmatch(line):  # a shortcut for nearly every line of a list
        key, txt, duration, wav = usual.groups()
        if 0 < (seconds := float(duration)) < math.inf:
            return Utterance(key=key, wav=wav, txt=txt, duration=seconds)
    try:
        record, end = _DECODER.raw_decode(line)  # a third of the time of json.loads
        if end != len(line):
            raise json.JSONDecodeError("Extra data", line, end)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error}); expected one JSON object per line") from None
    except RecursionError:
        raise ValueError("not JSON (nested too deeply)") from None
    if not isinstance(record, dict):
        raise ValueError(f"found {line[:40]}; expected a JSON object")
    missing = [name for name in ("key", "wav", "txt", "duration") if name not in record]
    if missing:
        raise ValueError(f"'{', '.join(missing)}' missing; expected key, wav, txt and duration")
    return Utterance(
        key=_name(record, "key"),
        wav=_name(record, "wav"),
        txt=_labels(record["txt"]),
        duration=_duration(record["duration"]),
        tok=_tokens(record.get("tok")),
        category=_name(record, "category") if record.get("category") else "",
    )


def _name(record: dict[str, Any], field: str) -> str:
    value = record[field]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{field} {value!r}; expected text")
    return value


def _labels(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    ids = value if isinstance(value, list) else [value]
    if all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
        return tuple(ids)
    raise ValueError(f"txt {value!r}; expected text or label ids")


def _duration(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"duration {value} s; expected > 0")
    return float(value)


def _tokens(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(f"tok {value!r}; expected a list of tokens")


def _to_json(utterance: Utterance) -> dict[str, Any]:
    record: dict[str, Any] = {"key": utterance.key}
    if utterance.tok is not None:
        record["tok"] = list(utterance.tok)
    record["txt"] = utterance.txt if isinstance(utterance.txt, str) else list(utterance.txt)
    record["duration"] = round(utterance.duration, 6)
    record["wav"] = utterance.wav
    if utterance.category:
        record["category"] = utterance.category
    return record


def _raise_all(problems: list[str]) -> None:
    if len(problems) > _MAX_NAMED:
        problems = [*problems[:_MAX_NAMED], f"... and {len(problems) - _MAX_NAMED} more"]
    if problems:
        raise DataError("\n".join(problems))
