"""Logging set-up, and exit status and messages of every command."""

import logging
import os
import sys
from collections.abc import Callable

from wekws.errors import ConfigError, DataError


def configure(level: str = "INFO") -> None:
    """Send log lines to standard error; processes other than rank 0 log warnings only."""
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=level if is_first else "WARNING",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )


def run(main: Callable[[], int | None]) -> int:
    """Run a command: a user's mistake ends in one message and status 2, not in a traceback."""
    configure(os.environ.get("WEKWS_LOG", "INFO"))
    try:
        return main() or 0
    except (ConfigError, DataError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
