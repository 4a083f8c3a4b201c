"""Operating points of a scored data set, with intervals; see `wekws.score.summary_file`."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import keyword_id
from wekws.errors import ConfigError, DataError
from wekws.model.identity import MODEL_IDENTITY
from wekws.score.det import Budget, budget_from_label, det_points, write_stats
from wekws.score.intervals import poisson_exact, wilson
from wekws.score.scores import SCORE_INFO_NAME, SCORES_NAME, read_score_info, read_scores
from wekws.score.sets import KeywordSet, ScoredSet, split_by_keyword
from wekws.score.summary_file import write_summary
from wekws.score.thresholds import (
    ThresholdOptions,
    choose_threshold,
    choose_thresholds,
    keeps_budget,
    pooled_negatives,
)

logger = logging.getLogger(__name__)

DEFAULT_BUDGETS = (Budget(0.5), Budget(1.0))
DEFAULT_OPTIONS = ThresholdOptions()


@dataclass(frozen=True)
class ScoredFolder:
    """A result folder that `score_ctc` wrote."""

    info: Mapping[str, Any]
    """Content of `score.json`."""
    scores: ScoredSet
    """Its scores by keyword."""


def summarise(
    result_dir: str | os.PathLike[str],
    *,
    dev_result_dir: str | os.PathLike[str] | None = None,
    data_list: str | os.PathLike[str] | None = None,
    keywords: Sequence[str] | None = None,
    budgets: Sequence[Budget] = DEFAULT_BUDGETS,
    options: ThresholdOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """Compute the error rates of a scored folder and write them into it.

    Writes `summary.json`, `summary.md` and, for each keyword, `stats.<keyword>.txt`.
    result_dir: folder that `score_list` wrote.
    dev_result_dir: scores of dev, on which thresholds are chosen; None: on the set itself.
    data_list: None: the list that was scored. keywords: None: all that were scored.
    budgets: false alarms per hour; one false alarm in all is always added.
    options: how thresholds are chosen on dev.
    Returns: the content of `summary.json`.
    Raises: ConfigError if a keyword was not scored, or dev was scored with another model,
    decoder, refractory time or longest durations; DataError if no keyword can be evaluated.
    """
    result_dir = Path(result_dir)
    test = read_scored_folder(result_dir, data_list=data_list, keywords=keywords)
    if not {"checkpoint", "decoder"} <= test.info.keys():
        raise DataError(
            f"{result_dir / SCORE_INFO_NAME}: no checkpoint or decoder in it; score the set again"
        )
    dev = None
    if dev_result_dir is not None:
        names = [keyword.keyword for keyword in test.scores.keywords]
        dev = read_scored_folder(dev_result_dir, keywords=names)
        _require_same_system(test.info, dev.info)
    summary = build_summary(test, dev, budgets, options)
    sets = {keyword.keyword: keyword for keyword in test.scores.keywords}
    for entry in summary["keywords"]:
        scores = sets[entry["keyword"]]
        chosen = [point["threshold"] for point in entry["operating_points"]]
        points = det_points(scores.positives, scores.negatives, scores.negative_hours, chosen)
        write_stats(_stats_path(result_dir, scores.keyword), points)
    write_summary(result_dir, summary)
    for item in summary["not_evaluated"]:
        logger.warning("%s: %s", item["keyword"], item["problem"])
        _stats_path(result_dir, item["keyword"]).unlink(missing_ok=True)
    return summary


def _stats_path(result_dir: Path, keyword: str) -> Path:
    return result_dir / f"stats.{keyword_id(keyword)}.txt"


def read_scored_folder(
    result_dir: str | os.PathLike[str],
    *,
    data_list: str | os.PathLike[str] | None = None,
    keywords: Sequence[str] | None = None,
) -> ScoredFolder:
    """Read the scores of a folder and sort them by what the utterances contain.

    data_list: None: the list that was scored. keywords: None: all that were scored.
    Raises: ConfigError if a keyword was not scored; DataError if a file is missing or damaged.
    """
    info = read_score_info(result_dir)
    if data_list is not None:
        info["data_list"] = str(data_list)
    chosen = info["keywords"] if keywords is None else keywords
    missing = [keyword for keyword in chosen if keyword not in info["keywords"]]
    if missing:
        raise ConfigError(
            f"{result_dir}: keyword {missing[0]} was not scored, only "
            f"{', '.join(info['keywords'])}; score the set again with this keyword"
        )
    table = read_scores(Path(result_dir) / SCORES_NAME)
    if info.get("utterances", len(table.keys)) != len(table.keys):
        raise DataError(
            f"{Path(result_dir) / SCORES_NAME}: {len(table.keys)} utterances, but "
            f"{info['utterances']} were scored; the file is cut off or changed: score the set again"
        )
    scores = split_by_keyword(table, read_data_list(info["data_list"]), chosen)
    if scores.not_scored:
        logger.warning("%s: %d utterances have no score", info["data_list"], scores.not_scored)
    return ScoredFolder(info, scores)


def _require_same_system(info: Mapping[str, Any], dev_info: Mapping[str, Any]) -> None:
    """Refuse thresholds of another model, decoder or search: they are not comparable."""
    # Older scores have no temperature and no durations, which are null where there is no limit.
    for name in (*MODEL_IDENTITY, "decoder", "refractory_s", "keyword_durations_s"):
        found, expected = (x.get(name, MODEL_IDENTITY.get(name)) for x in (dev_info, info))
        if isinstance(found, dict) and isinstance(expected, dict):
            shared = found.keys() & expected.keys()
            found, expected = ({k: d[k] for k in sorted(shared)} for d in (found, expected))
        if found != expected:
            raise ConfigError(
                f"dev_result_dir: {name} is {found}, in result_dir {expected}; score dev with the "
                "same checkpoint, decoder and options"
            )


def own_curve_threshold(test: KeywordSet, budget: Budget) -> float:
    """Return the threshold of the set's own DET curve for a budget.

    It goes by the count, and promises nothing for other audio.
    """
    return choose_threshold(pooled_negatives(test), budget, "count").threshold


def chosen_thresholds(
    tests: Sequence[KeywordSet],
    devs: Sequence[KeywordSet] | None,
    budgets: Sequence[Budget],
    options: ThresholdOptions,
) -> list[list[dict[str, Any]]]:
    """Choose thresholds on dev if it has negatives, else on the test set's own curve.

    devs: the same keywords as tests, in the same order.
    Returns: by keyword, then budget, the first entries of an operating point of `summary.json`.
    """
    if devs is not None and all(dev.negative_hours > 0 for dev in devs):
        negatives = [pooled_negatives(dev, options.category_hours) for dev in devs]
        name = "dev"
    else:
        negatives, name = [pooled_negatives(test) for test in tests], "itself"
        options = ThresholdOptions(rule="count", shared="false")
    by_budget = [
        [
            {
                "budget": budget.label,
                "threshold": chosen.threshold,
                "chosen_on": name,
                "rule": chosen.rule,
                "shared_by": chosen.num_keywords,
                "budget_false_alarms": chosen.allowed,
                "dev_false_alarms": chosen.false_alarms,
                "dev_upper_per_hour": chosen.upper_per_hour,
            }
            for chosen in choose_thresholds(negatives, budget, options)
        ]
        for budget in budgets
    ]
    return [list(points) for points in zip(*by_budget, strict=True)]


def is_unsupported(point: Mapping[str, Any]) -> bool:
    """Return whether dev is too small for the budget of an operating point (rule `upper`)."""
    if "rule" not in point:  # summaries of earlier versions
        return False
    budget = budget_from_label(point["budget"])
    return not keeps_budget(budget, point["rule"], point["dev_upper_per_hour"])


def keyword_summary(
    test: KeywordSet,
    dev: KeywordSet | None,
    points: Sequence[Mapping[str, Any]],
    category_hours: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the keyword's part of the summary: chosen thresholds applied to the test set.

    points: what `chosen_thresholds` returns for the keyword.
    """
    notes = test.notes
    notes += [
        f"{point['budget']}: dev has {dev.negative_hours:.2f} h of negatives and supports "
        f"{point['dev_upper_per_hour']:.2f}/h{_per_keyword(point)} at best; the threshold is the "
        f"strictest that it supports, not one for {point['budget']}"
        for point in points
        if dev is not None and is_unsupported(point)
    ]
    if dev is not None and dev.negative_hours <= 0:
        notes.append("dev has no negatives: thresholds were chosen on the set itself")
    notes += [
        f"{point['budget']}: at threshold 0 the budget is not used up (chosen on "
        f"{point['chosen_on']})"
        for point in points
        if point["threshold"] == 0
    ]
    measured = [{**point, **errors_at(test, point["threshold"])} for point in points]
    notes += [
        f"{point['budget']}: the threshold from dev gives {point['false_alarms']['per_hour']:.2f} "
        f"false alarms per hour here ({point['false_alarms']['low']:.2f} to "
        f"{point['false_alarms']['high']:.2f}); its FRR is not one at {point['budget']}"
        for point in measured
        if misses_budget(point)
    ]
    return {
        "keyword": test.keyword,
        "positives": len(test.positives),
        "negatives": test.num_negatives,
        "negative_hours": test.negative_hours,
        "confusions": {"utterances": test.num_confusions, "hours": test.confusion_hours},
        **_categories(test),
        "notes": notes,
        "operating_points": [
            {
                **point,
                **_by_category(test, point["threshold"]),
                **_in_use(test, point["threshold"], category_hours),
            }
            for point in measured
        ],
    }


def _per_keyword(point: Mapping[str, Any]) -> str:
    num_keywords = point.get("shared_by", 1)
    return f" per keyword (one threshold for all {num_keywords})" if num_keywords > 1 else ""


def misses_budget(point: Mapping[str, Any]) -> bool:
    """Return whether a threshold from dev gives more false alarms here than its budget allows.

    That is so if the whole 95 % interval of their rate is above the budget.
    """
    per_hour = budget_from_label(point["budget"]).per_hour
    if per_hour is None or point.get("chosen_on") != "dev" or not point.get("false_alarms"):
        return False
    return bool(point["false_alarms"]["low"] > per_hour)


def _categories(test: KeywordSet) -> dict[str, Any]:
    if not test.categories:
        return {}
    sizes = [
        {"category": c.category, "utterances": c.num_utterances, "hours": c.hours}
        for c in test.categories
    ]
    return {"categories": sizes}


def _by_category(test: KeywordSet, threshold: float) -> dict[str, Any]:
    if not test.categories:
        return {}
    rows = []
    for category in test.categories:
        count = int(np.count_nonzero(category.scores >= threshold))
        low, high = poisson_exact(count, category.hours)
        rate = count / category.hours
        rows.append(
            {
                "category": category.category,
                "count": count,
                "per_hour": rate,
                "low": low,
                "high": high,
            }
        )
    return {"by_category": rows}


def _in_use(
    test: KeywordSet, threshold: float, category_hours: Mapping[str, float] | None
) -> dict[str, Any]:
    if category_hours is None:
        return {}
    if not category_hours.keys() <= {category.category for category in test.categories}:
        return {"in_use": None}
    negatives = pooled_negatives(test, category_hours)
    is_alarm = negatives.scores >= threshold
    rate = float(negatives.weights[is_alarm].sum())
    return {"in_use": {"per_hour": rate, "upper": negatives.upper_limit(is_alarm)}}


def errors_at(test: KeywordSet, threshold: float) -> dict[str, Any]:
    """Return false alarms, misses and confusions at a threshold, with their 95 % intervals.

    Returns: the last three entries of an operating point of `summary.json`.
    """
    false_alarms = int(np.count_nonzero(test.negatives >= threshold))
    misses = int(np.count_nonzero(test.positives < threshold))
    confusions = int(np.count_nonzero(test.confusions >= threshold))
    alarms_low, alarms_high = poisson_exact(false_alarms, test.negative_hours)
    misses_low, misses_high = wilson(misses, len(test.positives))
    return {
        "false_alarms": {
            "count": false_alarms,
            "per_hour": false_alarms / test.negative_hours,
            "low": alarms_low,
            "high": alarms_high,
        },
        "misses": {
            "count": misses,
            "rate": misses / len(test.positives),
            "low": misses_low,
            "high": misses_high,
        },
        "confusions": {
            "count": confusions,
            "per_hour": confusions / test.confusion_hours if test.confusion_hours else None,
        },
    }


def build_summary(
    test: ScoredFolder,
    dev: ScoredFolder | None,
    budgets: Sequence[Budget],
    options: ThresholdOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """Return the content of `summary.json`; the budget of one false alarm in all is added.

    options: see `summarise`.
    Raises: ConfigError if dev has no audio of a category of use; DataError if no keyword at all
    can be evaluated, with every reason.
    """
    budgets = list(dict.fromkeys([*budgets, Budget(None)]))
    good = [keyword for keyword in test.scores.keywords if keyword.problem is None]
    bad = [keyword for keyword in test.scores.keywords if keyword.problem is not None]
    if not good:
        reasons = "\n".join(f"{keyword.keyword}: {keyword.problem}" for keyword in bad)
        raise DataError(f"{test.info['data_list']}: no error rates can be computed\n{reasons}")
    by_keyword = {keyword.keyword: keyword for keyword in dev.scores.keywords} if dev else {}
    devs = [by_keyword[keyword.keyword] for keyword in good] if dev else None
    points = chosen_thresholds(good, devs, budgets, options)
    return {
        "checkpoint": test.info["checkpoint"],
        "params": test.info.get("params"),
        "decoder": test.info["decoder"],
        "score_temperature": test.info.get("score_temperature", 1.0),
        "dataset": test.info["data_list"],
        "utterances": test.scores.num_utterances,
        "hours": test.scores.hours,
        "not_scored": test.scores.not_scored,
        "refractory_s": test.info.get("refractory_s"),
        "dev": {"dataset": dev.info["data_list"], "hours": dev.scores.hours} if dev else None,
        "threshold_rule": options.rule,
        "shared_threshold": options.shared,
        "category_hours": [
            {"category": category, "hours": hours}
            for category, hours in (options.category_hours or {}).items()
        ],
        "keywords": [
            keyword_summary(
                keyword, by_keyword.get(keyword.keyword), own_points, options.category_hours
            )
            for keyword, own_points in zip(good, points, strict=True)
        ],
        "not_evaluated": [
            {
                "keyword": keyword.keyword,
                "positives": len(keyword.positives),
                "negative_hours": keyword.negative_hours,
                "problem": keyword.problem,
            }
            for keyword in bad
        ],
    }
