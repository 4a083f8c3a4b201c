"""Style of all figures: colours, fonts that can show Chinese names, size, saving."""

import functools
import logging
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style as mpl_style
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from wekws.errors import DataError
from wekws.files import atomic_path
from wekws.score.pinyin import has_cjk, pinyin

# Most Chinese fonts have no bold face; falling back to the regular one needs no warning.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

# Okabe and Ito, Color Universal Design (2008): distinguishable with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#222222"
GUIDE = "#8a8a8a"
FAINT = "#e4e4e4"
NOTE = "#666666"

_CJK_FONT = re.compile(
    r"cjk|han ?sans|han ?serif|wqy|wenquanyi|simhei|simsun|yahei|pingfang|heiti|songti|hiragino"
    r"|fallback|uming|ukai|arphic|msyh|noto ?sans ?sc|lxgw|sarasa",
    re.IGNORECASE,
)
_CJK_PROBE = "嗨小问你好"


@functools.cache
def cjk_font() -> str | None:
    """Return the family name of an installed font with Chinese characters, None without one.

    Font files are searched too: matplotlib's cached list lacks fonts that were installed later.
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
    """Return the text such that the fonts of this machine can show it, wrapped to a width.

    Chinese becomes pinyin unless there is a font for it.
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
def saved_figure(
    path: str | os.PathLike[str],
    width_in: float,
    height_in: float,
    *,
    h_pad: float = 0.08,
    hspace: float = 0.04,
) -> Iterator[Figure]:
    """Yield an empty figure and save it at the end, as png, pdf or svg by the path's suffix.

    h_pad: space around panels, in inches. hspace: space between rows, as a share of the panels.
    """
    file_format = Path(path).suffix[1:].lower()
    if file_format not in ("png", "pdf", "svg"):
        raise DataError(f"{path}: expected a file name that ends in .png, .pdf or .svg")
    with mpl_style.context(_settings()):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=h_pad, hspace=hspace, wspace=0.04)
        figure = Figure(figsize=(width_in, height_in), dpi=150, layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=file_format)


def panel_grid(num_panels: int) -> tuple[int, int]:
    """Return rows and columns for a number of panels: at most three side by side."""
    num_columns = {1: 1, 2: 2, 4: 2}.get(num_panels, 3)
    return -(-num_panels // num_columns), num_columns


def legend_below(figure: Figure, handles: Sequence[Artist], width_in: float) -> None:
    """Put a legend under all panels, in as many columns as the longest label leaves room for."""
    longest = max(len(line) for handle in handles for line in str(handle.get_label()).split("\n"))
    num_columns = max(1, min(len(handles), int(width_in / (0.6 + 0.085 * longest))))
    figure.legend(handles=handles, loc="outside lower center", ncols=num_columns, fontsize=9)


def note_above(axes: Axes, text: str) -> None:
    """Write a small explanation between a panel and its title."""
    axes.annotate(
        text, (0, 1), xytext=(0, 6), xycoords="axes fraction", textcoords="offset points",
        fontsize=8.5, color=NOTE,
    )  # fmt: skip


def empty_panel(axes: Axes, message: str) -> None:
    """Write the reason into a panel without data."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, message, ha="center", va="center", color=GUIDE, transform=axes.transAxes)
