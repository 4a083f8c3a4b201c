"""Commands: one thin file each, run as ``python -m wekws.bin.NAME``."""

import sys
from types import TracebackType


def _say_why(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a line instead of a traceback for what ends a command while it is still imported."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    text = None
    if spec is not None and spec.name.startswith(__name__):
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted"
        elif isinstance(error, ModuleNotFoundError):
            text = f"error: {error.name} is not installed, and this command needs it"
            text += ": pip install -e ."
        elif isinstance(error, OSError):
            text = f"error: {error}; a package cannot be loaded, install it again: pip install -e ."
    if text is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(text, file=sys.stderr)


sys.excepthook = _say_why
