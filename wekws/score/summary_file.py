"""Format of `summary.json`, and the same as Markdown, `summary.md`.

summary.json (every rate with its 95 % interval `low`, `high`):

    checkpoint, params      the model file and its trainable parameters (null if unknown)
    decoder                 keyword | prefix_beam
    score_temperature *     temperature of the posteriors
    dataset                 the data list
    utterances, hours       what was scored
    not_scored              utterances of the list without a score
    refractory_s            seconds between two events
    dev                     {dataset, hours} of the set for choosing thresholds, or null
    threshold_rule *        upper | count: rule for thresholds chosen on dev
    shared_threshold *      auto | true | false: whether keywords share a threshold
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
        shared_by *         number of keywords with this threshold, whose false alarms in that set
                            were counted together; 1: the keyword has its own
        budget_false_alarms false alarms that the budget allows in that set
        dev_false_alarms *  false alarms in that set at this threshold
        dev_upper_per_hour * upper limit (95 %) of their rate per hour of use and keyword; above the
                            budget if the set is too small: then the threshold is the strictest
                            it supports
        false_alarms        {count, per_hour, low, high} on negatives; Poisson, exact
        misses              {count, rate, low, high} of positives; Wilson
        by_category *       [{category, count, per_hour, low, high}] on negatives
        in_use *            {per_hour, upper} of the false alarms by the hours of use; null if the
                            set lacks a category of use
        confusions          {count, per_hour} on utterances of other keywords (null: no such audio)
    not_evaluated           [{keyword, positives, negative_hours, problem}]

Entries with * are missing from files of earlier versions, and where they do not apply.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wekws.errors import DataError
from wekws.files import atomic_path, write_json

_RATE = {"low": float, "high": float}
_POINT = {
    "budget": str,
    "threshold": float,
    "chosen_on": str,
    "rule": str,
    "shared_by": int,
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
    "score_temperature": float,
    "dataset": str,
    "utterances": int,
    "hours": float,
    "not_scored": int,
    "refractory_s": (float, type(None)),
    "dev": ({"dataset": str, "hours": float}, type(None)),
    "threshold_rule": str,
    "shared_threshold": str,
    "category_hours": [{"category": str, "hours": float}],
    "keywords": [_KEYWORD],
    "not_evaluated": [{"keyword": str, "positives": int, "negative_hours": float, "problem": str}],
}


# Missing from files of earlier versions, or where they do not apply.
OPTIONAL = {
    "score_temperature", "threshold_rule", "shared_threshold", "category_hours", "categories",
    "by_category", "in_use", "rule", "shared_by", "dev_false_alarms", "dev_upper_per_hour",
}  # fmt: skip


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
    temperature = summary.get("score_temperature", 1.0)
    softened = "" if temperature == 1.0 else f", posteriors at temperature {temperature:g}"
    lines = [
        f"# {summary['dataset']}",
        "",
        f"Checkpoint {summary['checkpoint']} ({params} parameters), decoder {summary['decoder']}"
        f"{softened}.",
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
