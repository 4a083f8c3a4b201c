"""A run's ``metrics.jsonl`` read back."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wekws.errors import DataError

METRICS_NAME = "metrics.jsonl"
BEFORE_FIRST_STEP = -1


def read_metrics(model_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return all rows of a run as they were written; none if it has not begun.

    A last line that was cut off in the middle (the run was killed or is still going) is left out.
    Raises: DataError for any other line that is no JSON object.
    """
    path = Path(model_dir) / METRICS_NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}:{number}: not readable as JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: found {line}; expected a JSON object")
        rows.append(row)
    return rows


def read_cv_rows(model_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the cv rows in order of epoch; epoch -1 stands for the state before the first step.

    An epoch that was run again after a resume counts as it ended last.
    Raises: DataError if there is no cv row at all, and as ``read_metrics`` does.
    """
    rows = {int(row["epoch"]): row for row in read_metrics(model_dir) if row.get("kind") == "cv"}
    if not rows:
        path = Path(model_dir) / METRICS_NAME
        found = "no cv row yet" if path.exists() else "no such file"
        raise DataError(f"{path}: {found}; expected a run that has finished its first cv pass")
    return [rows[epoch] for epoch in sorted(rows)]


@dataclass(frozen=True)
class StageSpan:
    """A stage as it ran. last_epoch: of those finished; before first_epoch if none is.

    settings: its row in the log: weights, temperature, lr, lr_scales, frozen.
    """

    name: str
    first_epoch: int
    last_epoch: int
    settings: dict[str, Any]


def read_stages(model_dir: str | os.PathLike[str]) -> list[StageSpan]:
    """Return a run's stages in order of time; none for a run without stages.

    Raises: DataError as ``read_metrics`` does.
    """
    rows = read_metrics(model_dir)
    begun = {int(row["epoch"]): row for row in rows if row.get("kind") == "stage"}
    finished = [int(row["epoch"]) for row in rows if row.get("kind") == "cv"]
    firsts = sorted(begun)
    ends = [first - 1 for first in firsts[1:]] + [max(finished, default=BEFORE_FIRST_STEP)]
    left_out = ("kind", "step", "epoch", "name")
    return [
        StageSpan(
            begun[first]["name"],
            first,
            max(end, first - 1),
            {key: value for key, value in begun[first].items() if key not in left_out},
        )
        for first, end in zip(firsts, ends, strict=False)
    ]


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Return epochs and values of one quantity, without rows that lack it or hold no number."""
    points = [(row["epoch"], row[key]) for row in rows if _is_number(row.get(key))]
    return [int(epoch) for epoch, _ in points], [float(value) for _, value in points]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) != float("inf") and value == value
