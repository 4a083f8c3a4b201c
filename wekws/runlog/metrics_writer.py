"""The writer of ``metrics.jsonl``; log lines and trackers get the same fields."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from wekws.files import atomic_path, named_in_errors
from wekws.runlog.fields import METRICS_NAME, QUIET_KINDS, TOLD_KINDS, Kind, Row
from wekws.runlog.metrics_reader import read_metrics
from wekws.runlog.trackers import TrackerName, numbers_of, open_trackers

logger = logging.getLogger(__name__)


class MetricsWriter:
    """Writes the rows of one run; does nothing on every process but the first."""

    rows: list[Row]
    """All rows of the file, in order; empty on every process but the first."""

    def __init__(
        self,
        model_dir: Path,
        *,
        last_epoch: int,
        is_first: bool,
        trackers: Collection[TrackerName] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Continue after ``last_epoch``; rows of an epoch that was interrupted are dropped.

        last_epoch: the last finished epoch; -2 for a new run.
        is_first: whether this process has rank 0.
        trackers: services that get the numbers too. settings: the run's configuration, for them.
        """
        self._is_first = is_first
        self.rows = []
        if not is_first:
            return
        model_dir.mkdir(parents=True, exist_ok=True)
        path = model_dir / METRICS_NAME
        self.rows += [row for row in read_metrics(model_dir) if row.get("epoch", 0) <= last_epoch]
        with atomic_path(path) as temporary:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows]
            temporary.write_text("".join(lines), encoding="utf-8")
        self._stream = open(path, "a", encoding="utf-8")
        first_step = max((row["step"] for row in self.rows if "step" in row), default=-1) + 1
        self._trackers = open_trackers(trackers, model_dir, settings or {}, first_step)

    def write(self, kind: Kind, step: int, row: Row) -> None:
        """Write one row to the file, to the trackers and, unless its kind is quiet, to the log.

        step: optimiser steps done so far.
        """
        if not self._is_first:
            return
        self.rows.append({"kind": kind, "step": step, **row})
        with named_in_errors(self._stream.name):
            self._stream.write(json.dumps(self.rows[-1], ensure_ascii=False) + "\n")
            self._stream.flush()
        numbers = numbers_of(kind, row)
        texts = [str(value) for value in row.values() if isinstance(value, str)]
        for tracker in self._trackers:
            if numbers:
                tracker.log(numbers, step)
            if texts and kind in TOLD_KINDS:
                tracker.text(kind, f"epoch {row.get('epoch')}: {', '.join(texts)}", step)
        level = logging.DEBUG if kind in QUIET_KINDS else logging.INFO
        logger.log(level, "%s step=%d %s", kind, step, " ".join(map(_field, row, row.values())))

    def close(self) -> None:
        """Flush and close the file and the trackers."""
        if self._is_first:
            self._stream.close()
            for tracker in self._trackers:
                tracker.close()


def _field(name: str, value: Any) -> str:
    if name == "eta_s":
        return f"eta={int(value) // 3600}:{int(value) % 3600 // 60:02d}:{int(value) % 60:02d}"
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
