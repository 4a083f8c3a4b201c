"""A run's ``metrics.jsonl`` read back: the cv rows, one an epoch."""

import json
import os
from pathlib import Path
from typing import Any

from wekws.errors import DataError

BEFORE_FIRST_STEP = -1


def read_cv_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the cv rows in order of epoch; epoch -1 stands for the state before the first step.

    An epoch that was run again after a resume counts as it ended last. A last line that was cut
    off in the middle (the run was killed or is still going) is left out.
    Raises: DataError for a missing file, any other broken line, or no cv row at all.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; expected the metrics of a training run")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}:{number}: not readable as JSON: {error}") from error
        if row.get("kind") == "cv":
            rows[int(row["epoch"])] = row
    if not rows:
        raise DataError(f"{path}: no cv row yet; the run has not finished its first cv pass")
    return [rows[epoch] for epoch in sorted(rows)]


def series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Return epochs and values of one quantity, without rows that lack it or hold no number."""
    points = [(row["epoch"], row[key]) for row in rows if _is_number(row.get(key))]
    return [int(epoch) for epoch, _ in points], [float(value) for _, value in points]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) != float("inf") and value == value
