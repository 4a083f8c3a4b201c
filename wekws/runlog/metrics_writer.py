"""What a run says of itself: log lines, ``metrics.jsonl`` and TensorBoard, the same fields."""

import json
import logging
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from wekws.files import atomic_path
from wekws.runlog.metrics_reader import METRICS_NAME, read_metrics

logger = logging.getLogger(__name__)

# Kinds that are no line of the log: too long for one, or said there in other words.
QUIET_KINDS = ("layers", "health", "teacher", "labels")


class Records:
    """Writes the rows of one run; silent on every process but the first.

    rows: all that the file holds, in order.
    """

    def __init__(self, model_dir: Path, *, last_epoch: int, is_first: bool) -> None:
        """Go on after ``last_epoch``: rows of an epoch that was interrupted are dropped.

        last_epoch: the last finished one; -2 for a run that starts afresh.
        """
        self._is_first = is_first
        self.rows: list[dict[str, Any]] = []
        if not is_first:
            return
        model_dir.mkdir(parents=True, exist_ok=True)
        path = model_dir / METRICS_NAME
        kept = [row for row in read_metrics(model_dir) if row.get("epoch", 0) <= last_epoch]
        self.rows += kept
        with atomic_path(path) as temporary:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in kept]
            temporary.write_text("".join(lines), encoding="utf-8")
        self._stream = open(path, "a", encoding="utf-8")
        purge_step = max((row["step"] for row in kept if "step" in row), default=-1) + 1
        self._board = SummaryWriter(str(model_dir / "tensorboard"), purge_step=purge_step)

    def write(self, kind: str, step: int, row: dict[str, Any]) -> None:
        """Write one row to every place.

        kind: ``step``, ``gradient``, ``cv``, ``start``, ``stage``, ``growth``, ``teachers``, and
        without a line of the log ``teacher``, ``labels``, ``layers`` and ``health``.
        step: optimiser steps done so far.
        """
        if not self._is_first:
            return
        self.rows.append({"kind": kind, "step": step, **row})
        self._stream.write(json.dumps(self.rows[-1], ensure_ascii=False) + "\n")
        self._stream.flush()
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        level = logging.DEBUG if kind in QUIET_KINDS else logging.INFO
        logger.log(level, "%s step=%d %s", kind, step, " ".join(map(_field, row, row.values())))

    def close(self) -> None:
        """Flush and close."""
        if self._is_first:
            self._stream.close()
            self._board.close()


def _field(name: str, value: Any) -> str:
    if name == "eta_s":
        return f"eta={int(value) // 3600}:{int(value) % 3600 // 60:02d}:{int(value) % 60:02d}"
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
