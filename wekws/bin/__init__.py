"""Commands: one thin file each, run as ``python -m wekws.bin.NAME``."""

import sys
from types import TracebackType


def _say_why(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a line instead of a traceback for what ends a command while it is still imported."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("wekws"):
        print(
            f"error: {error.name} is not installed, and this command needs it: pip install -e .",
            file=sys.stderr,
        )
    elif isinstance(error, OSError):
        print(
            f"error: {error}; a package cannot be loaded, install it again: pip install -e .",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say_why
