"""Logging set-up, and exit status and messages of every command."""

import errno
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable

from wekws.errors import PEER_LOST, ConfigError, DataError, PeerLost, missing_package


def configure(level: str = "INFO") -> None:
    """Send log lines to standard error; processes other than rank 0 log warnings only."""
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=level if is_first else "WARNING",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )


logger = logging.getLogger(__name__)

_DEFECT, _MISTAKE, _INTERRUPTED, _READER_GONE = 1, 2, 130, 141  # exit status

_ADVICE = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "expected a file",
    errno.ENOTDIR: "expected a folder",
    errno.EEXIST: "expected a folder, or nothing yet",
    errno.EACCES: "check its owner and permissions",
    errno.EPERM: "check its owner and permissions",
    errno.EROFS: "name a folder that can be written",
    errno.ENOSPC: "free some space and run the command again; what was finished is kept",
    errno.EDQUOT: "free some space and run the command again; what was finished is kept",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def describe_os_error(error: OSError) -> str:
    """Return one line for an error of the operating system: file, cause and what to do."""
    cause = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename is not None else ""
    advice = _ADVICE.get(error.errno or 0)
    return f"{where}{cause}" + (f"; {advice}" if advice else "")


def _describe_defect(error: Exception) -> str:
    """Return one line for an error that nobody foresaw, with the place it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f"{own[-1].filename}:{own[-1].lineno}" if own else "?"
    text = (str(error).strip().splitlines() or [""])[0]
    return (
        f"unexpected {type(error).__name__} at {place}: {text}. This is a defect of the program; "
        "with WEKWS_LOG=DEBUG in the environment the command prints how it came about"
    )


def _outcome(error: Exception | KeyboardInterrupt) -> tuple[str, int]:
    """Return message and exit status for the error that ended a command."""
    match error:
        case KeyboardInterrupt():
            return "interrupted", _INTERRUPTED
        case ConfigError() | DataError():
            return f"error: {error}", _MISTAKE
        case PeerLost():
            return f"error: {error}", PEER_LOST
        case OSError():
            return f"error: {describe_os_error(error)}", _MISTAKE
        case MemoryError():
            return f"error: out of memory: {error}", _MISTAKE
        case ModuleNotFoundError() if not str(error.name).startswith("wekws"):
            return missing_package(error), _MISTAKE
    return f"error: {_describe_defect(error)}", _DEFECT


def _log_thread_error(failed: threading.ExceptHookArgs) -> None:
    """Log an error that ended a thread of a library, such as TensorBoard's writer."""
    error, name = failed.exc_value, failed.thread.name if failed.thread else "?"
    if isinstance(error, OSError):
        text = describe_os_error(error)
    else:
        text = f"{failed.exc_type.__name__}: {error}"
    logger.warning("thread %s ended: %s", name, text)


def run(main: Callable[[], int | None]) -> int:
    """Run a command: whatever goes wrong ends in one message, not in a traceback.

    Returns: the exit status: 2 for a mistake of the user or the machine, 1 for a defect, 75 in a
    process of several of which another has failed.
    """
    level = os.environ.get("WEKWS_LOG", "INFO")
    configure(level)
    threading.excepthook = _log_thread_error
    try:
        return main() or 0
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    except (Exception, KeyboardInterrupt) as error:
        message, status = _outcome(error)
        if status == _DEFECT and level == "DEBUG":
            traceback.print_exc()
        print(message, file=sys.stderr)
        return status
