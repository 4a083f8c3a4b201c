"""Summary of a scored dataset: operating points with intervals, `summary.json`, `summary.md`.

summary.json (every rate with its 95 % interval `low`, `high`):

    checkpoint, params      the model file and its trainable parameters (null if unknown)
    decoder                 keyword | prefix_beam
    dataset                 the data list
    utterances, hours       what was scored
    not_scored              utterances of the list without a score
    refractory_s            seconds between two events
    dev                     {dataset, hours} of the set for choosing thresholds, or null
    threshold_rule *        upper | count: rule for thresholds chosen on dev
    category_hours *        [{category, hours}]: hours of use that weight the categories of dev
    keywords                a list, each with
      keyword, positives    the keyword; utterances with it
      negatives, negative_hours   utterances without any keyword, and their audio
      confusions            {utterances, hours} of other keywords
      categories *          [{category, utterances, hours}] of the negatives
      notes                 remarks for readers
      operating_points      a list, each with
        budget              0.5/h | 1/h | ... | 1 in all
        threshold           a detection is a confidence >= threshold
        chosen_on           dev | itself: the set that the threshold was chosen on
        rule *              upper | count: what had to be within the budget in that set, the
                            upper limit of the rate (95 %) or the count
        budget_false_alarms false alarms that the budget allows in that set
        dev_false_alarms *  false alarms in that set at this threshold
        dev_upper_per_hour * upper limit (95 %) of their rate per hour of use; above the budget
                            if the set is too small: then the threshold is the strictest it supports
        false_alarms        {count, per_hour, low, high} on negatives; Poisson, exact
        misses              {count, rate, low, high} of positives; Wilson
        by_category *       [{category, count, per_hour, low, high}] on negatives
        in_use *            {per_hour, upper} of the false alarms by the hours of use; null if the
                            set lacks a category of use
        confusions          {count, per_hour} on utterances of other keywords (null: no such audio)
    not_evaluated           [{keyword, positives, negative_hours, problem}]

Entries with * are missing from files of earlier versions, and where they do not apply.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import keyword_id
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, write_json
from wekws.score.det import Budget, budget_from_label, det_points, write_stats
from wekws.score.intervals import poisson_exact, wilson
from wekws.score.scores import SCORE_INFO_NAME, SCORES_NAME, read_score_info, read_scores
from wekws.score.sets import KeywordSet, ScoredSet, split_by_keyword
from wekws.score.thresholds import ThresholdRule, choose_threshold, pooled_negatives

logger = logging.getLogger(__name__)

DEFAULT_BUDGETS = (Budget(0.5), Budget(1.0))

_RATE = {"low": float, "high": float}
_POINT = {
    "budget": str,
    "threshold": float,
    "chosen_on": str,
    "rule": str,
    "budget_false_alarms": int,
    "dev_false_alarms": int,
    "dev_upper_per_hour": float,
    "false_alarms": {"count": int, "per_hour": float, **_RATE},
    "by_category": [{"category": str, "count": int, "per_hour": float, **_RATE}],
    "in_use": ({"per_hour": float, "upper": float}, type(None)),
    "misses": {"count": int, "rate": float, **_RATE},
    "confusions": {"count": int, "per_hour": (float, type(None))},
}
_KEYWORD = {
    "keyword": str,
    "positives": int,
    "negatives": int,
    "negative_hours": float,
    "confusions": {"utterances": int, "hours": float},
    "categories": [{"category": str, "utterances": int, "hours": float}],
    "notes": [str],
    "operating_points": [_POINT],
}
SCHEMA = {
    "checkpoint": str,
    "params": (int, type(None)),
    "decoder": str,
    "dataset": str,
    "utterances": int,
    "hours": float,
    "not_scored": int,
    "refractory_s": (float, type(None)),
    "dev": ({"dataset": str, "hours": float}, type(None)),
    "threshold_rule": str,
    "category_hours": [{"category": str, "hours": float}],
    "keywords": [_KEYWORD],
    "not_evaluated": [{"keyword": str, "positives": int, "negative_hours": float, "problem": str}],
}


# Missing from files of earlier versions, or where they do not apply.
OPTIONAL = {
    "threshold_rule", "category_hours", "categories", "by_category", "in_use", "rule",
    "dev_false_alarms", "dev_upper_per_hour",
}  # fmt: skip


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
    threshold_rule: ThresholdRule = "upper",
    category_hours: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Compute the error rates of a scored folder and write them into it.

    Writes `summary.json`, `summary.md` and, for each keyword, `stats.<keyword>.txt`.
    result_dir: folder that `score_list` wrote.
    dev_result_dir: scores of dev, on which thresholds are chosen; None: on the set itself.
    data_list: None: the list that was scored. keywords: None: all that were scored.
    budgets: false alarms per hour; one false alarm in all is always added.
    threshold_rule: figure of dev that must be within the budget, see `wekws.score.thresholds`.
    category_hours: hours of use of each category of negatives, for thresholds chosen on dev; None:
    the hours of dev as they are.
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
    summary = build_summary(
        test, dev, budgets, threshold_rule=threshold_rule, category_hours=category_hours
    )
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
    # keyword_durations_s is missing from older scores, and null where there is no limit
    for name in ("checkpoint_sha256", "decoder", "refractory_s", "keyword_durations_s"):
        found, expected = dev_info.get(name), info.get(name)
        if isinstance(found, dict) and isinstance(expected, dict):
            shared = found.keys() & expected.keys()
            found, expected = ({k: d[k] for k in sorted(shared)} for d in (found, expected))
        if found != expected:
            raise ConfigError(
                f"dev_result_dir: {name} is {found}, in result_dir {expected}; score dev with the "
                "same checkpoint, decoder and options"
            )


def choose_thresholds(
    test: KeywordSet,
    dev: KeywordSet | None,
    budgets: Sequence[Budget],
    *,
    threshold_rule: ThresholdRule = "upper",
    category_hours: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Choose a threshold for each budget, on dev if it has negatives, else on the test set.

    Thresholds of the test set's own curve go by the count: they promise nothing for other audio.
    """
    if dev is not None and dev.negative_hours > 0:
        negatives, name = pooled_negatives(dev, category_hours), "dev"
    else:
        negatives, name, threshold_rule = pooled_negatives(test), "itself", "count"
    points = []
    for budget in budgets:
        chosen = choose_threshold(negatives, budget, threshold_rule)
        points.append(
            {
                "budget": budget.label,
                "threshold": chosen.threshold,
                "chosen_on": name,
                "rule": chosen.rule,
                "budget_false_alarms": chosen.allowed,
                "dev_false_alarms": chosen.false_alarms,
                "dev_upper_per_hour": chosen.upper_per_hour,
            }
        )
    return points


def is_unsupported(point: Mapping[str, Any]) -> bool:
    """Return whether dev is too small for the budget of an operating point (rule `upper`)."""
    per_hour = budget_from_label(point["budget"]).per_hour
    if point.get("rule") != "upper" or per_hour is None:
        return False
    return bool(point["dev_upper_per_hour"] > per_hour * (1 + 1e-9))


def keyword_summary(
    test: KeywordSet,
    dev: KeywordSet | None,
    budgets: Sequence[Budget],
    *,
    threshold_rule: ThresholdRule = "upper",
    category_hours: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the keyword's part of the summary: chosen thresholds applied to the test set."""
    points = choose_thresholds(
        test, dev, budgets, threshold_rule=threshold_rule, category_hours=category_hours
    )
    notes = test.notes
    notes += [
        f"{point['budget']}: dev has {dev.negative_hours:.2f} h of negatives and supports "
        f"{point['dev_upper_per_hour']:.2f}/h at best; the threshold is the strictest that it "
        f"supports, not one for {point['budget']}"
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
    *,
    threshold_rule: ThresholdRule = "upper",
    category_hours: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the content of `summary.json`; the budget of one false alarm in all is added.

    threshold_rule, category_hours: see `summarise`.
    Raises: ConfigError if dev has no audio of a category of use; DataError if no keyword at all
    can be evaluated, with every reason.
    """
    budgets = list(dict.fromkeys([*budgets, Budget(None)]))
    dev_sets = {keyword.keyword: keyword for keyword in dev.scores.keywords} if dev else {}
    good = [keyword for keyword in test.scores.keywords if keyword.problem is None]
    bad = [keyword for keyword in test.scores.keywords if keyword.problem is not None]
    if not good:
        reasons = "\n".join(f"{keyword.keyword}: {keyword.problem}" for keyword in bad)
        raise DataError(f"{test.info['data_list']}: no error rates can be computed\n{reasons}")
    return {
        "checkpoint": test.info["checkpoint"],
        "params": test.info.get("params"),
        "decoder": test.info["decoder"],
        "dataset": test.info["data_list"],
        "utterances": test.scores.num_utterances,
        "hours": test.scores.hours,
        "not_scored": test.scores.not_scored,
        "refractory_s": test.info.get("refractory_s"),
        "dev": {"dataset": dev.info["data_list"], "hours": dev.scores.hours} if dev else None,
        "threshold_rule": threshold_rule,
        "category_hours": [
            {"category": category, "hours": hours}
            for category, hours in (category_hours or {}).items()
        ],
        "keywords": [
            keyword_summary(
                keyword,
                dev_sets.get(keyword.keyword),
                budgets,
                threshold_rule=threshold_rule,
                category_hours=category_hours,
            )
            for keyword in good
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


def write_summary(result_dir: str | os.PathLike[str], summary: Mapping[str, Any]) -> None:
    """Check the summary and write it as `summary.json` and `summary.md`."""
    validate_summary(summary)
    write_json(Path(result_dir) / "summary.json", summary)
    with atomic_path(Path(result_dir) / "summary.md") as temporary:
        temporary.write_text(summary_to_markdown(summary), encoding="utf-8")


def summary_to_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as a Markdown table."""
    params = "?" if summary["params"] is None else f"{summary['params']:,}"
    dev = summary["dev"]
    chosen = f"chosen on {dev['dataset']} ({dev['hours']:.2f} h)" if dev else "chosen on this set"
    lines = [
        f"# {summary['dataset']}",
        "",
        f"Checkpoint {summary['checkpoint']} ({params} parameters), decoder {summary['decoder']}.",
        f"{summary['utterances']:,} utterances, {summary['hours']:.2f} h scored, "
        f"{summary['not_scored']} not scored. Thresholds {chosen}. Intervals are 95 %.",
        "",
        "| keyword | budget | threshold | chosen on | FRR | misses | false alarms per hour "
        "| false alarms | hours | confusions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        _markdown_row(keyword, point)
        for keyword in summary["keywords"]
        for point in keyword["operating_points"]
    ]
    lines += _category_table(summary)
    notes = [
        f"- {keyword['keyword']}: {note}"
        for keyword in summary["keywords"]
        for note in keyword["notes"]
    ]
    notes += [f"- {item['keyword']}: {item['problem']}" for item in summary["not_evaluated"]]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _category_table(summary: Mapping[str, Any]) -> list[str]:
    """Return a table of the false alarms per category, if the set has categories."""
    rows = [
        f"| {keyword['keyword']} | {point['budget']} | {row['category']} | {row['count']} "
        f"| {size['hours']:.2f} | {row['per_hour']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |"
        for keyword in summary["keywords"]
        for point in keyword["operating_points"]
        for row, size in zip(
            point.get("by_category") or [], keyword.get("categories") or [], strict=True
        )
    ]
    header = "| keyword | budget | negatives | false alarms | hours | false alarms per hour |"
    return ["", header, "|---|---|---|---|---|---|", *rows] if rows else []


def _markdown_row(keyword: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    misses, alarms = point["misses"], point["false_alarms"]
    percent = [f"{100 * misses[name]:.2f}" for name in ("rate", "low", "high")]
    rates = [f"{alarms[name]:.2f}" for name in ("per_hour", "low", "high")]
    cells = [
        keyword["keyword"],
        point["budget"],
        f"{point['threshold']:.6g}",
        point["chosen_on"],
        f"{percent[0]} % ({percent[1]} to {percent[2]})",
        f"{misses['count']} of {keyword['positives']}",
        f"{rates[0]} ({rates[1]} to {rates[2]})",
        str(alarms["count"]),
        f"{keyword['negative_hours']:.2f}",
        f"{point['confusions']['count']} in {keyword['confusions']['utterances']}",
    ]
    return f"| {' | '.join(cells)} |"


def validate_summary(summary: Any, *, is_partial: bool = False) -> None:
    """Check a summary against the schema: all keys, no other keys, right types, no NaN.

    is_partial: keys may be missing, and there may be others, as in a file of another version.
    Raises: DataError listing every problem with its place.
    """
    problems: list[str] = []
    _validate(summary, SCHEMA, "summary", problems, is_partial)
    if problems:
        raise DataError("\n".join(problems))


def _validate(value: Any, schema: Any, where: str, problems: list[str], is_partial: bool) -> None:
    if isinstance(schema, tuple):
        schema = type(None) if value is None else schema[0]
    if isinstance(schema, dict) and isinstance(value, Mapping):
        for key in [*schema, *(key for key in value if key not in schema)]:
            if key in value and key in schema:
                _validate(value[key], schema[key], f"{where}.{key}", problems, is_partial)
            elif not is_partial and not (key in OPTIONAL and key not in value):
                problems.append(f"{where}.{key}: {'missing' if key in schema else 'unknown key'}")
    elif isinstance(schema, list) and isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            _validate(item, schema[0], f"{where}[{i}]", problems, is_partial)
    elif not _is(value, schema):
        expected = getattr(
            schema, "__name__", "a mapping" if isinstance(schema, dict) else "a list"
        )
        problems.append(f"{where}: found {value!r}; expected {expected}")


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type) or isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, float | int) and math.isfinite(value)
    return isinstance(value, kind)
