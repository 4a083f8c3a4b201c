"""Figure of durations: a histogram per split."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from wekws.errors import DataError
from wekws.files import read_json
from wekws.plot import style

_NUM_BINS = 60


def plot_durations(validation_path: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Draw a histogram for every split of ``validation.json``, one below the other.

    Raises: DataError if the file has no splits.
    """
    splits = read_json(validation_path).get("splits")
    if not isinstance(splits, Mapping) or not splits:
        raise DataError(
            f"{validation_path}: no `splits` with durations; expected a validation.json as "
            "validate_data writes it"
        )
    durations = {name: _durations(split) for name, split in splits.items()}
    everything = np.concatenate(list(durations.values()))
    edges, is_log = _edges(everything)
    with style.saved_figure(path, 7.2, 1.75 * len(splits) + 0.7) as figure:
        axes = figure.subplots(len(splits), 1, squeeze=False, sharex=True)[:, 0]
        for axis, (name, split) in zip(axes, splits.items(), strict=True):
            _draw_split(axis, name, durations[name], split.get("hours"), edges, is_log)
        _format_axis(axes[-1], edges, is_log)


def _durations(split: Mapping[str, Any]) -> np.ndarray:
    values = np.asarray(split.get("durations") or [], dtype=np.float64)
    return values[np.isfinite(values) & (values > 0)]


def _edges(durations: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return bin edges in seconds, logarithmic if a few recordings are far longer than most."""
    if not len(durations):
        return np.linspace(0, 1, _NUM_BINS + 1), False
    longest = float(durations.max())
    if longest > 15 * float(np.median(durations)):
        shortest = max(float(durations.min()), 0.05)
        return np.geomspace(shortest * 0.95, longest * 1.05, _NUM_BINS + 1), True
    return np.linspace(0, longest * 1.02, _NUM_BINS + 1), False


def _draw_split(
    axis: Axes,
    name: str,
    durations: np.ndarray,
    hours: float | None,
    edges: np.ndarray,
    is_log: bool,
) -> None:
    total = durations.sum() / 3600 if hours is None else hours
    axis.set_title(style.readable(name, 50), loc="left")
    if not len(durations):
        axis.set_title("no utterances", loc="right", fontsize=9, fontweight="normal")
        axis.set_yticks([])
        return
    axis.hist(durations, bins=edges.tolist(), color=style.PALETTE[0], alpha=0.85)
    middle = float(np.median(durations))
    axis.axvline(middle, color=style.PALETTE[1], linewidth=1.6)
    if is_log:
        # A single long recording must be visible beside thousands of short ones.
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.6)
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.set_ylabel("utterances")
    axis.set_title(
        f"{len(durations):,} utterances, {total:.2f} h, {durations.min():.2f} to "
        f"{durations.max():.2f} s, median {middle:.2f} s",
        loc="right",
        fontsize=9,
        fontweight="normal",
    )


def _format_axis(axis: Axes, edges: np.ndarray, is_log: bool) -> None:
    axis.set_xlim(edges[0], edges[-1])
    axis.set_xlabel("Duration (s)   orange line: median")
    if is_log:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
