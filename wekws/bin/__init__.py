"""Commands: one thin file each, run as ``python -m wekws.bin.NAME``."""

import sys
from pathlib import Path
from types import TracebackType

from wekws.errors import missing_package

_EXAMPLES = Path(__file__).parents[2] / "examples"


def _say_why(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a line instead of a traceback for what ends a command while it is still imported."""
    text = None
    if _is_command():
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted"
        elif isinstance(error, ModuleNotFoundError):
            text = missing_package(error)
        elif isinstance(error, OSError):
            text = f"error: {error}; a package cannot be loaded, install it again: pip install -e ."
    if text is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(text, file=sys.stderr)


def _is_command() -> bool:
    """Return whether the process runs a module of this package, or a script of examples/."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return bool(spec.name.startswith(__name__))
    return file is not None and _EXAMPLES in Path(file).absolute().parents


sys.excepthook = _say_why
