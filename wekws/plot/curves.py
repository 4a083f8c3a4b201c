"""Figure of training curves by epoch, runs overlaid.

Losses, accuracies and every term of the loss; learning rate, alpha and temperature; gradient norms
by layer; the methods' own figures; borders of stages and growth as vertical lines.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from wekws.errors import DataError
from wekws.plot import style
from wekws.runlog.fields import BEFORE_FIRST_STEP, Row
from wekws.runlog.metrics_reader import read_cv_rows, read_metrics, series

Points = tuple[list[int], list[float]]
"""Epochs and values."""


@dataclass(frozen=True)
class _Log:
    """Rows of one run that the figure shows."""

    cv: list[Row]
    """One row per epoch, with the alpha and temperature of its last logged step."""
    layers: list[Row]
    """Gradient norms by layer, one row per epoch."""
    probes: dict[int, list[Row]]
    """Gradients of the terms, measured one by one, by epoch."""
    borders: dict[int, str]
    """Names of the stages and depths that begin, by epoch."""


@dataclass(frozen=True)
class _Panel:
    """One panel of the figure: one field of all runs, or several lines of one run."""

    title: str
    """Title."""
    solid: str = ""
    """Field of the cv rows that is drawn as a solid line."""
    dashed: str = ""
    """Field that is drawn dashed; empty for none."""
    note: str = ""
    """Explanation under the title."""
    is_percent: bool = False
    """Whether the fields are shares, shown in percent."""
    least_top: float = 0.0
    """Axis from 0 up to this value at least; 0: by the values."""
    lines: Mapping[str, Points] = field(default_factory=dict)
    """Instead of fields: lines of one run by name, with a legend in the panel."""
    may_be_log: bool = True
    """Whether values of very different size may make the axis logarithmic."""


_PANELS = (
    _Panel("cv loss", "cv_loss", "", "CTC on the cv set; start: before the first step"),
    _Panel(
        "Token accuracy (%)", "cv_accuracy", "cv_keyword_accuracy",
        "solid: all cv utterances; dashed: those with a keyword", True,
    ),
    _Panel("CTC", "train_ctc", "cv_loss", "solid: training, mean of the epoch; dashed: cv"),
    _Panel("Distillation (KD)", "train_kd", "cv_kd", "solid: training; dashed: cv"),
    _Panel(
        "Missed keywords (%)", "cv_miss_rate", "", "cv set, at 0.5 false alarms per hour", True,
    ),
)  # fmt: skip
_SETTINGS = (
    _Panel("Learning rate", "lr", "", "at the end of each epoch"),
    _Panel("alpha", "alpha", "", "weight of the labels; distillation has 1 - alpha", False, 1.05),
    _Panel(
        "Temperature",
        "temperature",
        "",
        "divides both models' logits in distillation",
        False,
        4.0,
    ),
)
# Fields of cv rows that have a panel above, or are no curve of their own.
_OTHERS = {
    *("step", "epoch", "seconds", "num_layers", "train_loss", "lr", "alpha", "temperature"),
    *("cv_loss", "cv_accuracy", "cv_keyword_accuracy", "train_ctc", "cv_ctc", "train_kd", "cv_kd"),
    *("cv_blank_share", "cv_filler_share", "cv_same_output_share"),
}
_MAX_LINES = 12
# Width of a panel that a legend may fill, in inches, and its share of the height for each row.
_LEGEND_IN, _LEGEND_ROW = 3.3, 0.07


def plot_curves(
    model_dirs: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    mark_ends: bool = False,
) -> None:
    """Draw ``metrics.jsonl`` of the runs (name -> folder); a field that no run has is left out.

    mark_ends: draw a dotted line in the first panel at each run's last cv loss.
    Raises: DataError if a run has no metrics.
    """
    runs = {name: _read(folder) for name, folder in model_dirs.items()}
    panels = [panel for panel in _shared_panels(runs) if _has_values(panel, runs)]
    if not panels:
        raise DataError(f"{', '.join(runs)}: no cv row has a figure to draw")
    panels += _panels_of_runs(runs)
    last_epoch = max(int(log.cv[-1]["epoch"]) for log in runs.values())
    num_columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    width = (5.3 if num_columns < 3 else 4.4) * num_columns
    with style.saved_figure(path, width, 3.5 * num_rows + 0.6) as figure:
        axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel, runs, last_epoch)
            _mark_borders(axis, runs, has_names=axis is axes[0])
            if mark_ends and panel.solid == "cv_loss":
                _mark_ends(axis, runs)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        style.legend_below(figure, _legend(list(runs)), width)


def _read(folder: str | os.PathLike[str]) -> _Log:
    rows = read_metrics(folder)
    settings: dict[int, Row] = {}
    for row in rows:
        if row.get("kind") == "step" and "epoch" in row:
            found = {name: row[name] for name in row if name in ("alpha", "temperature")}
            settings[int(row["epoch"])] = found
    cv = [{**settings.get(int(row["epoch"]), {}), **row} for row in read_cv_rows(folder)]
    borders: dict[int, str] = {}
    probes: dict[int, list[Row]] = {}
    for row in rows:
        if row.get("kind") == "gradient" and "epoch" in row:
            probes.setdefault(int(row["epoch"]), []).append(row)
        if row.get("kind") in ("stage", "growth") and row.get("epoch", 0) > 0:
            is_stage = row["kind"] == "stage"
            name = str(row.get("name")) if is_stage else f"{row.get('num_layers')} blocks"
            epoch = int(row["epoch"])
            if name not in borders.get(epoch, ""):
                borders[epoch] = f"{borders[epoch]}, {name}" if epoch in borders else name
    return _Log(cv, [row for row in rows if row.get("kind") == "layers"], probes, borders)


def _shared_panels(runs: Mapping[str, _Log]) -> Iterator[_Panel]:
    """Yield the panels that show one field of all runs: losses, terms, settings."""
    yield from _PANELS
    names = dict.fromkeys(name for log in runs.values() for row in log.cv for name in row)
    for name in names:
        term = name.removeprefix("train_")
        if name != term and name not in _OTHERS:
            yield _Panel(f"Term {term}", name, f"cv_{term}", "solid: training; dashed: cv")
    yield from _SETTINGS


def _panels_of_runs(runs: Mapping[str, _Log]) -> list[_Panel]:
    """Return the panels that show several lines of one run each."""
    panels = []
    for name, log in runs.items():
        of_run = f": {name}" if len(runs) > 1 else ""
        for kind, title in (("gradient", "Gradient norm"), ("adapter_gradient", "Adapters' norm")):
            layers = dict.fromkeys(layer for row in log.layers for layer in row.get(kind, {}))
            found = {
                layer: ([int(row["epoch"]) for row in rows], [row[kind][layer] for row in rows])
                for layer in layers
                if (rows := [row for row in log.layers if layer in row.get(kind, {})])
            }
            note = "mean of the epoch's measured steps, before clipping"
            panels += _lines_panel(f"{title} by layer{of_run}", note, found)
        cosines, shares = _probed(log, "grad_cos_"), _probed(log, "grad_share_")
        panels += _lines_panel(f"Cosine to CTC's gradient{of_run}", "below 0: against CTC", cosines)
        panels += _lines_panel(f"Share of the gradient{of_run}", "of each term, 0 to 1", shares)
        fields = dict.fromkeys(name for row in log.cv for name in row if _is_figure(name))
        groups: dict[str, dict[str, Points]] = {}
        for figure_name in fields:
            if points := series(log.cv, figure_name)[0]:
                group, _, rest = figure_name.partition("_")
                values = series(log.cv, figure_name)[1]
                groups.setdefault(group, {})[rest or group] = (points, values)
        for group, lines in groups.items():
            title = f"Figures of {group}{of_run}"
            panels += _lines_panel(title, "mean of the epoch", lines, may_be_log=False)
    return panels


def _probed(log: _Log, prefix: str) -> dict[str, Points]:
    """Return the means over each epoch's probes of the fields that begin with ``prefix``."""
    names = dict.fromkeys(
        name for rows in log.probes.values() for row in rows for name in row if prefix in name
    )
    found: dict[str, Points] = {}
    for name in names:
        means = {
            epoch: fmean(values)
            for epoch, rows in log.probes.items()
            if (values := series(rows, name)[1])
        }
        found[name.removeprefix(prefix)] = (list(means), list(means.values()))
    return found


def _is_figure(name: str) -> bool:
    """Say whether a field of cv rows is a figure of a method, such as gate_mean_blank."""
    return name not in _OTHERS and not name.startswith(("train_", "cv_")) and name != "kind"


def _lines_panel(
    title: str, note: str, lines: Mapping[str, Points], *, may_be_log: bool = True
) -> list[_Panel]:
    shown = dict(list(lines.items())[:_MAX_LINES])
    if len(lines) > len(shown):
        note += f"; the first {len(shown)} of {len(lines)}"
    return [_Panel(title, note=note, lines=shown, may_be_log=may_be_log)] if shown else []


def _has_values(panel: _Panel, runs: Mapping[str, _Log]) -> bool:
    """Say whether any run has the field; a term that is 0 throughout was not in use."""
    return any(any(series(log.cv, panel.solid)[1]) for log in runs.values())


def _draw_panel(axis: Axes, panel: _Panel, runs: Mapping[str, _Log], last_epoch: int) -> None:
    drawn = _draw_lines(axis, panel) if panel.lines else _draw_fields(axis, panel, runs)
    axis.set_title(style.readable(panel.title), loc="left", pad=20)
    style.note_above(axis, panel.note)
    _format_axes(axis, drawn, last_epoch, panel)
    if panel.least_top:
        axis.set_ylim(0.0, max(panel.least_top, *(1.05 * value for value in drawn)))
    if panel.lines:
        _add_legend(axis)
    if axis.get_yscale() == "log":
        _set_log_ticks(axis)


def _draw_fields(axis: Axes, panel: _Panel, runs: Mapping[str, _Log]) -> list[float]:
    """Draw one field of all runs; return all values."""
    shown: list[float] = []
    for index, log in enumerate(runs.values()):
        colour = style.PALETTE[index % len(style.PALETTE)]
        for key, dash in ((panel.solid, "-"), (panel.dashed, (0, (4, 2)))):
            epochs, values = series(log.cv, key)
            if not any(values):
                continue
            values = [100 * value for value in values] if panel.is_percent else values
            marker = "o" if len(values) <= 25 and dash == "-" else ""
            axis.plot(epochs, values, color=colour, linestyle=dash, marker=marker, markersize=4)
            if len(values) == 1:
                axis.plot(epochs, values, color=colour, marker="o", markerfacecolor="white")
            shown += values
    return shown


def _draw_lines(axis: Axes, panel: _Panel) -> list[float]:
    """Draw several lines of one run; return all values."""
    shown: list[float] = []
    for index, (name, (epochs, values)) in enumerate(panel.lines.items()):
        colour = style.PALETTE[index % len(style.PALETTE)]
        dash = "-" if index < len(style.PALETTE) else "--"
        marker = "o" if len(values) <= 25 else ""
        axis.plot(
            epochs, values, color=colour, linestyle=dash, marker=marker, markersize=3, label=name
        )
        shown += values
    return shown


def _add_legend(axis: Axes) -> None:
    """Add a legend that stays in the panel, and raise the upper end so that it covers no line."""
    names = axis.get_legend_handles_labels()[1]
    num_columns = max(1, min(3, int(_LEGEND_IN / (0.45 + 0.065 * max(map(len, names))))))
    axis.legend(
        fontsize=7.5, ncols=num_columns, loc="upper right", columnspacing=1.0, handlelength=1.4
    ).set_in_layout(False)
    share = 0.05 + _LEGEND_ROW * -(-len(names) // num_columns)
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log":
        axis.set_ylim(low, high * (high / low) ** (share / (1 - share)))
    else:
        axis.set_ylim(low, high + (high - low) * share / (1 - share))


def _set_log_ticks(axis: Axes) -> None:
    """Put ticks on a logarithmic axis, fewer in each decade the more decades there are."""
    low, high = axis.get_ylim()
    decades = math.log10(high / low)
    subs = (1, 2, 3, 5) if decades < 2 else (1, 2, 5) if decades < 3 else (1,)
    axis.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=9))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _mark_borders(axis: Axes, runs: Mapping[str, _Log], has_names: bool) -> None:
    """Draw a line between two epochs where a stage or a depth of a run begins."""
    for index, log in enumerate(runs.values()):
        colour = style.PALETTE[index % len(style.PALETTE)] if len(runs) > 1 else style.GUIDE
        for epoch, name in log.borders.items():
            axis.axvline(epoch - 0.5, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
            if has_names:
                axis.annotate(
                    style.readable(name), (epoch - 0.5, 1), xycoords=("data", "axes fraction"),
                    xytext=(3, -3), textcoords="offset points", rotation=90, va="top", ha="left",
                    fontsize=7.5, color=style.NOTE,
                )  # fmt: skip


def _mark_ends(axis: Axes, runs: Mapping[str, _Log]) -> None:
    for index, log in enumerate(runs.values()):
        _, losses = series(log.cv, "cv_loss")
        colour = style.PALETTE[index % len(style.PALETTE)]
        if losses:
            axis.axhline(losses[-1], color=colour, linestyle=":", linewidth=1.0)


def _format_axes(axis: Axes, shown: Sequence[float], last_epoch: int, panel: _Panel) -> None:
    axis.set_xlim(BEFORE_FIRST_STEP - 0.4, max(last_epoch, 1) + 0.6)
    inner = MaxNLocator(integer=True, nbins=7, min_n_ticks=1).tick_values(0, max(last_epoch, 1))
    ticks = [tick for tick in inner if 0 <= tick <= max(last_epoch, 1)]
    crowded = last_epoch > 12
    axis.set_xticks([BEFORE_FIRST_STEP, *(ticks[1:] if crowded else ticks)])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "start" if x < 0 else f"{x:g}"))
    axis.set_xlabel("Epoch")
    if panel.is_percent:
        axis.set_ylim(min(0.0, *shown) if min(shown) > -20 else -20, 102)
    elif panel.may_be_log and min(shown) > 0 and max(shown) / min(shown) > 8:
        axis.set_yscale("log")
    elif min(shown) < 0.5 * max(shown):
        axis.set_ylim(bottom=min(0.0, 1.1 * min(shown)))


def _legend(names: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=style.PALETTE[i % len(style.PALETTE)], linewidth=2.4, label=label)
        for i, label in enumerate(style.readable(name, 40) for name in names)
    ]
