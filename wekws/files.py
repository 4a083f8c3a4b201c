"""Atomic writes, file locks, checksums, JSON files."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wekws.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block succeeds.

    A block that raises, or a process that is killed, leaves the old file (or none) behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        with named_in_errors(path):
            yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename2 is not None or str(error.filename) == name:
            error.filename, error.filename2 = str(path), None  # not the temporary file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def named_in_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in errors of the system that name none: those of writing to an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_not_input(
    output: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None
) -> None:
    """Refuse to write over a file that is read; None among the inputs is no file.

    Raises: ConfigError naming the file.
    """
    for path in inputs:
        if path is not None and os.path.realpath(path) == os.path.realpath(output):
            raise ConfigError(f"{output}: is an input too and would be lost; write to another file")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def hold_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if it is missing; leaves no file in it.

    The system releases the folder however the process ends.
    Raises: ConfigError if another process holds the folder.
    """
    is_new = not os.path.exists(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock_handle(handle, folder)
        yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # nothing came of it
        os.close(handle)


def lock_handle(handle: int, name: str | os.PathLike[str]) -> None:
    """Lock an open folder for as long as it is open, here or in a process that inherits it.

    Where the file system has no such locks (some network drives, Windows), a warning says so.
    name: the folder, for messages.
    Raises: ConfigError if another process holds the lock.
    """
    try:
        if fcntl is None:
            raise OSError("this system has no fcntl")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{name}: another process is writing into this folder; wait until it ends, or name "
            "another folder"
        ) from None
    except OSError as error:
        logger.warning("%s: cannot be locked (%s); run one process only", name, error)


@contextmanager
def file_lock(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file, which the system releases however the process ends.

    wait: wait for another process that holds the lock; False raises BlockingIOError instead.
    Where the system has no ``fcntl`` (Windows) nothing is locked, and a warning says so.
    """
    with open(path, "w", encoding="utf-8") as stream:
        if fcntl is None:
            logger.warning("%s: not locked, this system has no fcntl; run one process", path)
        else:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


_RESTORE = "restore the file, or make it again with the command that wrote it"


@contextmanager
def named_if_no_text(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise DataError naming a file that the block reads as text in UTF-8 and that is none."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason}); {_RESTORE}") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises: DataError if the file is missing or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}; {_RESTORE}") from error
    except RecursionError:
        raise DataError(f"{path}: not readable as JSON: nested too deeply; {_RESTORE}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a JSON object, keys in their order, Chinese as it is, no NaN."""
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
