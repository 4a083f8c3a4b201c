"""Thresholds for a budget of false alarms, chosen on dev and written beside the model."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wekws.errors import ConfigError
from wekws.model.identity import is_of_model
from wekws.score.det import Budget
from wekws.score.intervals import UPPER_CONFIDENCE
from wekws.score.sets import KeywordSet
from wekws.score.summary import DEFAULT_OPTIONS, errors_at, read_scored_folder
from wekws.score.thresholds import (
    ChosenThreshold,
    ThresholdOptions,
    choose_thresholds,
    hours_needed,
    keeps_budget,
    pooled_negatives,
)
from wekws.stream.threshold_file import write_threshold_file

logger = logging.getLogger(__name__)

_TEST = "test"


@dataclass(frozen=True, kw_only=True)
class TunedThresholds:
    """Result of `tune_thresholds`."""

    path: Path
    """The file that was written."""
    keywords: list[dict[str, Any]]
    """Entries of the file, one per keyword, see `wekws.stream.threshold_file`."""
    set_name: str
    """``dev``; ``test`` where the scored list is of a test set."""


def tune_thresholds(
    dev_result_dir: str | os.PathLike[str],
    *,
    budget: Budget,
    options: ThresholdOptions = DEFAULT_OPTIONS,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TunedThresholds:
    """Choose thresholds on the scores of dev; write them beside the model.

    A list in a folder named ``test`` gives a warning.
    dev_result_dir: folder that `score_list` wrote for dev.
    budget, options: see `wekws.score.thresholds`.
    checkpoint: model file; None: that of the same name in the folder above the scores, as in a
    folder that was copied, if it is the same model; else the one that the scores name.
    Raises: ConfigError if the model file is not the one that was scored; DataError if dev has no
    negatives.
    """
    dev = read_scored_folder(dev_result_dir)
    model_path = Path(checkpoint or dev.info["checkpoint"])
    beside = Path(dev_result_dir).resolve().parent / model_path.name
    if not checkpoint and beside.is_file() and is_of_model(dev.info, beside):
        model_path = beside
    if not model_path.is_file():
        raise ConfigError(f"{model_path}: no such file; name the scored model with --checkpoint")
    if not is_of_model(dev.info, model_path):
        raise ConfigError(
            f"{model_path}: is not the model that {dev_result_dir} was scored with, or its "
            "score_temperature has changed; score dev again"
        )
    set_name = _TEST if Path(dev.info["data_list"]).parent.name == _TEST else "dev"
    if set_name == _TEST:
        logger.warning(
            "%s: scores of %s, a test set; with thresholds that were chosen on it, its error rates "
            "say too little about other audio: give the scores of dev",
            dev_result_dir, dev.info["data_list"],
        )  # fmt: skip
    durations_s = dev.info.get("keyword_durations_s") or {}
    keywords = dev.scores.keywords
    negatives = [pooled_negatives(keyword, options.category_hours) for keyword in keywords]
    entries = [
        _entry(
            keyword,
            chosen,
            budget,
            max_duration_s=durations_s.get(keyword.keyword, 0.0),
            set_name=set_name,
        )
        for keyword, chosen in zip(
            keywords, choose_thresholds(negatives, budget, options), strict=True
        )
    ]
    path = write_threshold_file(
        model_path,
        {
            "chosen_on": {"data_list": dev.info["data_list"], "hours": dev.scores.hours},
            "budget": budget.label,
            "rule": options.rule,
            "refractory_s": dev.info["refractory_s"],
            "keywords": entries,
        },
    )
    return TunedThresholds(path=path, keywords=entries, set_name=set_name)


def _entry(
    keyword: KeywordSet,
    chosen: ChosenThreshold,
    budget: Budget,
    *,
    max_duration_s: float,
    set_name: str,
) -> dict[str, Any]:
    hours = keyword.negative_hours
    is_supported = keeps_budget(budget, chosen.rule, chosen.upper_per_hour)
    misses = None
    if len(keyword.positives):
        misses = errors_at(keyword, chosen.threshold)["misses"]
    return {
        "keyword": keyword.keyword,
        "threshold": chosen.threshold,
        "max_duration_s": max_duration_s,
        "shared_by": chosen.num_keywords,
        "false_alarms": chosen.false_alarms,
        "negative_hours": hours,
        "upper_per_hour": chosen.upper_per_hour,
        "is_supported": is_supported,
        "misses": misses,
        "note": _note(chosen, budget, hours, is_supported=is_supported, set_name=set_name),
    }


def _note(
    chosen: ChosenThreshold, budget: Budget, hours: float, *, is_supported: bool, set_name: str
) -> str:
    """Return what so much audio says about the false alarms elsewhere."""
    alarms = f"{chosen.false_alarms} false alarm{'s' * (chosen.false_alarms != 1)}"
    of_all = ""
    if chosen.num_keywords > 1:
        of_all = f" and keyword, with one threshold for all {chosen.num_keywords}"
    text = (
        f"{alarms} in {hours:.2f} h of {set_name} only says: below {chosen.upper_per_hour:.2g} per "
        f"hour{of_all} ({UPPER_CONFIDENCE:.0%} sure)"
    )
    if is_supported or budget.per_hour is None:
        return text
    if budget.per_hour == 0:
        return f"{text}; no amount of audio supports {budget.label}"
    needed = hours_needed(budget.per_hour, chosen.false_alarms) / chosen.num_keywords
    return f"{text}; {budget.label} needs {needed:.1f} h without more of them"
