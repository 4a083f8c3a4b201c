"""What all pictures share: colours, fonts that can show the names, size, saving."""

import functools
import logging
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wekws.errors import DataError
from wekws.files import atomic_path
from wekws.score.pinyin import has_cjk, pinyin

# Most fonts for Chinese have no bold; the plain one that is taken instead needs no warning.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

# Okabe and Ito, Color Universal Design (2008): told apart by readers with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#222222"
GUIDE = "#8a8a8a"
FAINT = "#e4e4e4"

_CJK_FONT = re.compile(
    r"cjk|han ?sans|han ?serif|wqy|wenquanyi|simhei|simsun|yahei|pingfang|heiti|songti|hiragino"
    r"|fallback|uming|ukai|arphic|msyh|noto ?sans ?sc|lxgw|sarasa",
    re.IGNORECASE,
)
_CJK_PROBE = "嗨小问你好"


@functools.cache
def cjk_font() -> str | None:
    """Return the family name of an installed font that can write Chinese, None without one.

    Looks at the files too, since matplotlib's list of fonts is older than a font installed today.
    """
    known = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist}
    candidates = [path for path, name in known.items() if _CJK_FONT.search(f"{name} {path}")]
    candidates += [p for p in font_manager.findSystemFonts() if _CJK_FONT.search(p)]
    for path in dict.fromkeys(sorted(candidates)):
        if _covers(path, _CJK_PROBE):
            if path not in known:
                font_manager.fontManager.addfont(path)
            return font_manager.FontProperties(fname=path).get_name()
    return None


def _covers(path: str, text: str) -> bool:
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return False
    return all(font.get_char_index(ord(character)) for character in text)


def readable(text: str, width: int | None = None) -> str:
    """Return the text so that the fonts of this machine can show it, wrapped to a width.

    With a font for Chinese that is the text itself, otherwise Chinese turns into pinyin.
    """
    if has_cjk(text) and cjk_font() is None:
        text = pinyin(text)
    return text if width is None else "\n".join(textwrap.wrap(text, width) or [""])


def _settings() -> dict[str, Any]:
    families = ["DejaVu Sans", *([cjk_font()] if cjk_font() else [])]
    return {
        "font.family": families,
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": GUIDE,
        "axes.labelcolor": INK,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "text.parse_math": False,
    }


@contextmanager
def saved_figure(path: str | os.PathLike[str], width_in: float, height_in: float) -> Iterator[Any]:
    """Yield an empty figure and write it to the path (png, pdf or svg by its name) at the end."""
    file_format = Path(path).suffix[1:].lower()
    if file_format not in ("png", "pdf", "svg"):
        raise DataError(f"{path}: expected a name that ends in .png, .pdf or .svg")
    with matplotlib.rc_context(_settings()):
        figure = Figure(figsize=(width_in, height_in), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, hspace=0.04, wspace=0.04)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=file_format)


def panel_grid(num_panels: int) -> tuple[int, int]:
    """Return rows and columns for a number of panels: at most three side by side."""
    num_columns = {1: 1, 2: 2, 4: 2}.get(num_panels, 3)
    return -(-num_panels // num_columns), num_columns


def legend_below(figure: Figure, handles: list[Any], width_in: float) -> None:
    """Put a legend under all panels, in as many columns as the longest label leaves room for."""
    longest = max(len(line) for handle in handles for line in handle.get_label().split("\n"))
    num_columns = max(1, min(len(handles), int(width_in / (0.6 + 0.085 * longest))))
    figure.legend(handles=handles, loc="outside lower center", ncols=num_columns, fontsize=9)


def empty_panel(axes: Any, message: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, message, ha="center", va="center", color=GUIDE, transform=axes.transAxes)
