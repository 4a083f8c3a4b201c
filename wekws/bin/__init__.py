"""Commands: one thin file each, run as ``python -m wekws.bin.NAME``."""

import sys
from types import TracebackType


def _say_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a line instead of a traceback where Ctrl-C comes while a command is still imported."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say_interrupted
