"""Reader of a result folder: ``summary.json`` and ``stats.<keyword>.txt``."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.dataset.vocabulary import keyword_id
from wekws.errors import DataError
from wekws.files import named_if_no_text, read_json
from wekws.model.identity import is_of_model
from wekws.score.det import budget_from_label
from wekws.score.intervals import wilson
from wekws.score.summary_file import validate_summary

DEFAULT_BUDGET = "1/h"
# stats.<keyword>.txt has six decimals.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Stats:
    """One keyword's error rates at every threshold; a detection is a confidence >= threshold."""

    thresholds: np.ndarray
    """(N,) ascending confidences."""
    fa_per_hour: np.ndarray
    """(N,) false alarms per hour, not increasing."""
    frr: np.ndarray
    """(N,) share of positives missed, not decreasing."""

    def det_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rates of false alarms that occur (M,), ascending, and the best FRR at each."""
        rates, group = np.unique(self.fa_per_hour, return_inverse=True)
        best = np.full(len(rates), np.inf)
        np.minimum.at(best, group, self.frr)
        return rates, np.minimum.accumulate(best)

    def positive_shares(self) -> np.ndarray:
        """Return the share of positives whose confidence lies at each threshold, (N,).

        The rest, up to 1, was rejected without a confidence.
        """
        return np.diff(self.frr, append=1.0)

    def negative_rates(self) -> np.ndarray:
        """Return the events per hour of negatives whose confidence lies at each threshold, (N,)."""
        return -np.diff(self.fa_per_hour, append=0.0)

    def positive_quantile(self, share: float) -> float:
        """Return the confidence at or below which ``share`` of all positives lie."""
        index = int(np.searchsorted(self.frr[1:], share - 1e-12))
        return float(self.thresholds[min(index, len(self.thresholds) - 1)])

    def negative_quantile(self, share: float) -> float | None:
        """Return the confidence at or below which ``share`` of the events on negatives lie."""
        rates = self.negative_rates()
        if rates.sum() <= 0:
            return None
        index = int(np.searchsorted(np.cumsum(rates), share * rates.sum() * (1 - 1e-12)))
        return float(self.thresholds[min(index, len(self.thresholds) - 1)])


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Lowest FRR on a set's own DET curve within a budget of false alarms."""

    frr: float
    """Share of positives missed."""
    low: float
    """Lower end of its 95 % interval (Wilson)."""
    high: float
    """Upper end of its 95 % interval."""
    fa_per_hour: float
    """False alarms per hour at this point, within the budget."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One model's results on one dataset."""

    name: str
    """Name of the model in tables and legends."""
    result_dir: Path
    """Folder that the results were read from."""
    summary: dict[str, Any]
    """Content of ``summary.json``; empty if there is none."""
    stats: dict[str, Stats]
    """Error rates by keyword."""

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

    def own_curve(self, keyword: str, budget: str) -> CurvePoint | None:
        """Return the best point of the set's own curve within a budget such as ``1/h``.

        Two models are compared there: at the same rate of false alarms. None if the keyword was
        not scored, or the numbers of positives and hours are unknown.
        """
        stats, entry = self.stats.get(keyword), self.entry(keyword)
        positives, hours = entry.get("positives"), entry.get("negative_hours")
        if stats is None or not positives or not hours:
            return None
        per_hour = budget_from_label(budget).per_hour
        allowed = 1 / hours if per_hour is None else per_hour
        rates, best = stats.det_curve()
        within = np.flatnonzero(rates <= allowed + _ROUNDING)
        if not len(within):
            return None
        frr = float(best[within[-1]])
        low, high = wilson(round(frr * positives), positives)
        rate = float(rates[within[-1]])
        return CurvePoint(frr=frr, low=float(low), high=float(high), fa_per_hour=rate)


@dataclass(frozen=True, kw_only=True)
class ScoredThresholds:
    """Thresholds of a checkpoint from the results of scoring it."""

    by_keyword: dict[str, float]
    """Threshold of each keyword that has one."""
    budget: str
    """Budget that they were chosen for, such as ``1/h``."""
    chosen_on: str
    """dev, or itself: the test set, which promises nothing for other audio."""
    result_dir: Path
    """Folder of the results."""


def thresholds_beside(checkpoint: str | os.PathLike[str]) -> ScoredThresholds | None:
    """Return the thresholds in ``test_avg_30/summary.json`` beside ``avg_30.pt``.

    None if there are no results, or they are of another checkpoint or another decoder.
    """
    checkpoint = Path(checkpoint)
    result_dir = checkpoint.parent / f"test_{checkpoint.stem}"
    if not (result_dir / "summary.json").is_file() or not (result_dir / "score.json").is_file():
        return None
    info = read_json(result_dir / "score.json")
    if not is_of_model(info, checkpoint) or info.get("decoder") != "keyword":
        return None
    result = read_result(checkpoint.stem, result_dir)
    budget = headline_budget([result])
    points = {keyword: result.operating_point(keyword, budget) for keyword in result.keywords}
    chosen = {keyword: point for keyword, point in points.items() if point}
    return ScoredThresholds(
        by_keyword={keyword: float(point["threshold"]) for keyword, point in chosen.items()},
        budget=budget,
        chosen_on=next((str(point.get("chosen_on")) for point in chosen.values()), "itself"),
        result_dir=result_dir,
    )


def headline_budget(results: Iterable[Result]) -> str:
    """Return the budget that reports lead with, such as ``1/h``.

    That is 1/h where the summaries have it, otherwise the closest to it among the budgets per
    hour (of the budgets that all results share, if there are any), otherwise ``1 in all``.
    """
    labels = [_budgets(result) for result in results]
    labels = [found for found in labels if found]
    if not labels:
        return DEFAULT_BUDGET
    shared = set.intersection(*labels) or set.union(*labels)
    rates = {float(label.removesuffix("/h")): label for label in shared if label.endswith("/h")}
    if not rates:
        return min(shared)
    return rates[min(rates, key=lambda rate: (abs(rate - 1.0), -rate))]


def _budgets(result: Result) -> set[str]:
    entries = [result.entry(keyword) for keyword in result.keywords]
    points = [point for entry in entries for point in entry.get("operating_points") or []]
    return {str(point["budget"]) for point in points if "budget" in point}


def read_stats(path: str | os.PathLike[str]) -> Stats:
    """Read ``stats.<keyword>.txt``: threshold, false alarms per hour, FRR on each line.

    Raises: DataError naming a line that is not such a triple, or if thresholds do not ascend.
    """
    rows = []
    with named_if_no_text(path), open(path, encoding="utf-8") as stream:
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
        raise DataError(
            f"{path}: no thresholds in it; run wekws.bin.compute_det_ctc on this folder again"
        )
    table = np.array(rows, dtype=np.float64)
    if not np.isfinite(table).all() or (np.diff(table[:, 0]) < 0).any():
        raise DataError(f"{path}: expected finite numbers with thresholds in ascending order")
    return Stats(thresholds=table[:, 0], fa_per_hour=table[:, 1], frr=table[:, 2])


def read_result(name: str, result_dir: str | os.PathLike[str]) -> Result:
    """Read a result folder; ``summary.json`` may be missing, the stats files may not.

    Raises: DataError naming the file that is missing or unreadable.
    """
    result_dir = Path(result_dir)
    if not result_dir.is_dir():
        raise DataError(f"{result_dir}: no such folder; expected results of {name}")
    summary_path = result_dir / "summary.json"
    summary = read_json(summary_path) if summary_path.exists() else {}
    try:
        validate_summary(summary, is_partial=True)
    except DataError as error:
        first = str(error).partition("\n")[0]
        raise DataError(
            f"{summary_path}: {first}; run wekws.bin.compute_det_ctc on this folder again"
        ) from None
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


def all_keywords(results: Iterable[Result]) -> list[str]:
    """Return the keywords of all results, each once, in the order of the first that has it."""
    return list(dict.fromkeys(keyword for result in results for keyword in result.keywords))
