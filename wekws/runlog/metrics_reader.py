"""The reader of ``metrics.jsonl``."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wekws.errors import DataError
from wekws.runlog.fields import METRICS_NAME, Row


def read_metrics(model_dir: str | os.PathLike[str]) -> list[Row]:
    """Return all rows of a run in the order of writing; none if training has not begun.

    An incomplete last line (the run was killed or is still going) is left out, and so is a field
    that is null.
    Raises: DataError for any other line that is not a JSON object, or whose epoch is no number.
    """
    path = Path(model_dir) / METRICS_NAME
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text: {error}; expected the log of a training run") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}:{number}: not readable as JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("epoch", -1), int):
            raise DataError(
                f"{path}:{number}: found {line[:60]}; expected a JSON object whose epoch is a "
                "whole number"
            )
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def read_cv_rows(model_dir: str | os.PathLike[str]) -> list[Row]:
    """Return the cv rows in order of epoch; epoch -1 is the state before the first step.

    Of an epoch that was run again after a resume the last row counts.
    Raises: DataError if there is no cv row at all, and as ``read_metrics`` does.
    """
    found_rows = [row for row in read_metrics(model_dir) if row.get("kind") == "cv"]
    rows = {int(row["epoch"]): row for row in found_rows if "epoch" in row}
    if not rows:
        path = Path(model_dir) / METRICS_NAME
        found = "no cv row yet" if path.exists() else "no such file"
        raise DataError(f"{path}: {found}; expected a run that has finished its first cv pass")
    return [rows[epoch] for epoch in sorted(rows)]


def series(rows: Sequence[Row], key: str) -> tuple[list[int], list[float]]:
    """Return epochs and values of one quantity, without rows where it is missing or not finite."""
    points = [(row["epoch"], row[key]) for row in rows if _is_number(row.get(key))]
    return [int(epoch) for epoch, _ in points], [float(value) for _, value in points]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) != float("inf") and value == value
