"""Scoring results read back from a result folder: ``summary.json`` and ``stats.<keyword>.txt``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.dataset.vocabulary import keyword_id
from wekws.errors import DataError
from wekws.files import read_json


@dataclass(frozen=True, kw_only=True)
class Stats:
    """One keyword's error rates at ascending thresholds; an utterance fires at score >= threshold.

    thresholds, fa_per_hour (not increasing), frr (a share, not decreasing): (N,) float64.
    """

    thresholds: np.ndarray
    fa_per_hour: np.ndarray
    frr: np.ndarray

    def det_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the best FRR for every rate of false alarms reached: both (M,), rate ascending."""
        rates, group = np.unique(self.fa_per_hour, return_inverse=True)
        best = np.full(len(rates), np.inf)
        np.minimum.at(best, group, self.frr)
        return rates, np.minimum.accumulate(best)

    def positive_shares(self) -> np.ndarray:
        """Return the share of positives whose confidence lies at each threshold, (N,).

        What is missing to 1 was rejected without a confidence.
        """
        return np.diff(self.frr, append=1.0)

    def negative_rates(self) -> np.ndarray:
        """Return the events per hour of negatives whose confidence lies at each threshold, (N,)."""
        return -np.diff(self.fa_per_hour, append=0.0)

    def positive_quantile(self, share: float) -> float:
        """Return the confidence that ``share`` of all positives do not exceed."""
        index = np.searchsorted(self.frr[1:], share - 1e-12)
        return float(self.thresholds[min(index, len(self.thresholds) - 1)])

    def negative_quantile(self, share: float) -> float | None:
        """Return the confidence that ``share`` of the events on negatives do not exceed."""
        rates = self.negative_rates()
        if rates.sum() <= 0:
            return None
        index = np.searchsorted(np.cumsum(rates), share * rates.sum() * (1 - 1e-12))
        return float(self.thresholds[min(index, len(self.thresholds) - 1)])


@dataclass(frozen=True, kw_only=True)
class Result:
    """One model's scores on one dataset. Without a ``summary.json`` the summary is empty."""

    name: str
    result_dir: Path
    summary: dict[str, Any]
    stats: dict[str, Stats]

    @property
    def keywords(self) -> list[str]:
        """Keywords in the order of the summary."""
        return list(self.stats)

    def entry(self, keyword: str) -> dict[str, Any]:
        """Return the keyword's part of the summary, empty if there is none."""
        entries = self.summary.get("keywords", [])
        return next((entry for entry in entries if entry.get("keyword") == keyword), {})

    def operating_point(self, keyword: str, budget: str) -> dict[str, Any] | None:
        """Return the operating point at a budget such as ``1/h``, None if there is none."""
        points = self.entry(keyword).get("operating_points") or []
        return next((point for point in points if point.get("budget") == budget), None)


def read_stats(path: str | os.PathLike[str]) -> Stats:
    """Read ``stats.<keyword>.txt``: threshold, false alarms per hour, FRR on each line.

    Raises: DataError naming the line that is no such triple, or thresholds out of order.
    """
    rows = []
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                threshold, fa_per_hour, frr = (float(field) for field in line.split())
            except ValueError:
                raise DataError(
                    f"{path}:{number}: {line.strip()!r}; expected `threshold fa_per_hour frr`"
                ) from None
            rows.append((threshold, fa_per_hour, frr))
    if not rows:
        raise DataError(f"{path}: no thresholds in it; compute the error rates of this set again")
    table = np.array(rows, dtype=np.float64)
    if not np.isfinite(table).all() or (np.diff(table[:, 0]) < 0).any():
        raise DataError(f"{path}: expected finite numbers with thresholds in ascending order")
    return Stats(thresholds=table[:, 0], fa_per_hour=table[:, 1], frr=table[:, 2])


def read_result(name: str, result_dir: str | os.PathLike[str]) -> Result:
    """Read a result folder; ``summary.json`` may be missing, the stats files may not.

    Raises: DataError that names what is missing or unreadable.
    """
    result_dir = Path(result_dir)
    if not result_dir.is_dir():
        raise DataError(f"{result_dir}: no such folder; expected results of {name}")
    summary_path = result_dir / "summary.json"
    summary = read_json(summary_path) if summary_path.exists() else {}
    keywords = [str(entry.get("keyword")) for entry in summary.get("keywords", [])]
    paths = {word: result_dir / f"stats.{keyword_id(word)}.txt" for word in keywords}
    if not paths:
        found = sorted(result_dir.glob("stats.*.txt"))
        paths = {path.name[len("stats.") : -len(".txt")].replace("_", " "): path for path in found}
    problems = [str(entry.get("problem")) for entry in summary.get("not_evaluated") or []]
    if problems and not paths:
        raise DataError(f"{summary_path}: no keyword could be evaluated: {'; '.join(problems)}")
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing or not paths:
        what = ", ".join(missing) or f"{result_dir}/stats.<keyword>.txt"
        raise DataError(f"{name}: {what} is missing; run compute_det_ctc on this folder first")
    stats = {keyword: read_stats(path) for keyword, path in paths.items()}
    return Result(name=name, result_dir=result_dir, summary=summary, stats=stats)


def all_keywords(results: list[Result]) -> list[str]:
    """Return the keywords of all results, each once, in the order of the first that has it."""
    return list(dict.fromkeys(keyword for result in results for keyword in result.keywords))


def parse_named_dirs(arguments: list[str]) -> dict[str, Path]:
    """Read ``name=DIR`` arguments; without a name it is the folder's own.

    Raises: DataError for a name given twice.
    """
    named: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.rpartition("=")
        if not equals or "/" in name:
            name, path = Path(argument).resolve().name, argument
        if name in named:
            raise DataError(f"two folders are called {name!r}; name them apart: name=DIR")
        named[name] = Path(path)
    return named
