"""Plan of an evaluation: which folders it writes, and which of them hold its results already."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wekws.dataset.manifest import audio_status, read_data_list
from wekws.dataset.vocabulary import contains_keyword, read_keywords
from wekws.decode.duration import MaxDuration
from wekws.errors import ConfigError, DataError
from wekws.files import read_json
from wekws.model.identity import MODEL_IDENTITY, model_identity
from wekws.score.det import Budget, budgets_from_text
from wekws.score.negative_hours import hours_by_category
from wekws.score.sets import transcript
from wekws.score.summary import DEFAULT_OPTIONS
from wekws.score.summary_file import validate_summary
from wekws.score.thresholds import (
    SharedThreshold,
    ThresholdOptions,
    ThresholdRule,
    require_categories,
)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of ``evaluate.sh`` as the user gave them; its ``--help`` explains each."""

    checkpoint: str
    epochs: str
    dataset: Literal["test", "dev"]
    lists: str
    cache_dir: str
    budgets: str
    threshold_rule: ThresholdRule
    shared_threshold: SharedThreshold
    category_hours: str
    decoder: Literal["keyword", "prefix_beam"]
    max_duration_s: str
    batch_size: int
    num_workers: int
    device: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        """Refuse values that scoring cannot use."""
        if not self.checkpoint:
            raise ConfigError("checkpoint: missing; averages are made by wekws.bin.average_model")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size}: expected at least 1")
        if self.num_workers < 0:
            raise ConfigError(f"num_workers {self.num_workers}: expected at least 0")


PLOTS = ("det.png", "confidence.png")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Folders of an evaluation, and what is left to do."""

    lists: Path
    """Folder of dev/data.list and test/data.list."""
    keywords_file: Path
    """Keywords to score, one per line."""
    result_dir: Path
    """Folder of the scores and figures."""
    dev_dir: Path | None
    """Folder of the dev scores that choose the thresholds; None: the set chooses its own."""
    is_scored: bool
    """Whether ``result_dir`` holds the scores already."""
    is_dev_scored: bool
    """Whether ``dev_dir`` holds the scores already, or there is none."""
    is_counted: bool
    """Whether error rates and plots of these scores, at these budgets, are there already."""


def plan_evaluation(
    checkpoint: Path,
    *,
    dataset: Literal["dev", "test"],
    lists: Path | None,
    decoder: str,
    budgets: str,
    max_duration_s: MaxDuration = "auto",
    options: ThresholdOptions = DEFAULT_OPTIONS,
) -> EvaluationPlan:
    """Return the folders of an evaluation, and what is left to do.

    A result counts as done if it was made with the same checkpoint (by its bytes), temperature
    of its posteriors, decoder, longest duration, list, audio (by size and time of its files) and
    keywords, after the list was written; figures also depend on the budgets (such as ``0.5,1``) and
    on how thresholds are chosen.
    lists: None for the lists that the checkpoint was trained on.
    Raises: ConfigError for budgets that are none, and if nothing says where the lists are.
    """
    wanted = budgets_from_text(budgets)
    model_dir = checkpoint.parent
    lists = lists or _training_lists(model_dir)
    tag = checkpoint.stem + ("" if decoder == "keyword" else f"_{decoder}")
    result_dir, dev_list = model_dir / f"{dataset}_{tag}", lists / "dev" / "data.list"
    dev_dir = model_dir / f"dev_{tag}" if dataset != "dev" and dev_list.is_file() else None
    keywords_file = model_dir / "keywords.txt"
    made_with = {
        **model_identity(checkpoint),
        "decoder": decoder,
        "max_duration_s": max_duration_s if decoder == "keyword" else 0.0,
        "keywords": read_keywords(keywords_file),
    }
    is_scored = _is_scored(result_dir, lists / dataset / "data.list", made_with)
    is_dev_scored = dev_dir is None or _is_scored(dev_dir, dev_list, made_with)
    return EvaluationPlan(
        lists=lists,
        keywords_file=keywords_file,
        result_dir=result_dir,
        dev_dir=dev_dir,
        is_scored=is_scored,
        is_dev_scored=is_dev_scored,
        is_counted=(
            is_scored
            and is_dev_scored
            and _is_counted(result_dir, dev_dir, wanted)
            and _has_options(result_dir, options)
        ),
    )


def checked_checkpoint(path: Path) -> Path:
    """Return a checkpoint that is a file of a model, with its configuration beside it.

    Raises: ConfigError for a folder, another file, or if there is no configuration.
    """
    if path.is_dir():
        found = [p.name for p in sorted(path.glob("*.pt")) if p.name != "train_state.pt"]
        shown = f"such as {path / found[-1]}" if found else "N.pt, final.pt or avg_N.pt"
        raise ConfigError(f"--checkpoint {path}: is a folder; give a checkpoint in it, {shown}")
    if path.suffix not in (".pt", ".onnx"):
        raise ConfigError(f"--checkpoint {path}: expected N.pt, final.pt, avg_N.pt or N.onnx")
    if path.suffix == ".pt" and not path.with_name("config.yaml").is_file():
        raise ConfigError(f"--checkpoint {path}: has no config.yaml beside it; put it there")
    return path


def require_scorable(
    plan: EvaluationPlan, dataset: str, category_hours: Mapping[str, float] | None
) -> None:
    """Check the lists against the model's keywords before earlier scores are replaced.

    Raises: ConfigError if no utterance to be scored contains a keyword, or dev lacks a category of
    ``category_hours``.
    """
    keywords, data_list = read_keywords(plan.keywords_file), plan.lists / dataset / "data.list"
    dev_list = plan.lists / "dev" / "data.list"
    if category_hours and (plan.dev_dir is not None or dataset == "dev"):
        require_categories(category_hours, hours_by_category(dev_list, keywords), dev_list)
    if plan.is_scored:
        return
    texts = map(transcript, read_data_list(data_list))
    if not any(contains_keyword(text, keyword) for text in texts for keyword in keywords):
        raise ConfigError(
            f"--lists {plan.lists}: no utterance of {data_list} contains {' or '.join(keywords)}, "
            f"the keywords of {plan.keywords_file}; give lists of these keywords"
        )


def _training_lists(model_dir: Path) -> Path:
    path = model_dir / "run.json"
    train_list = read_json(path).get("train_data") if path.is_file() else None
    if not isinstance(train_list, str):
        raise ConfigError(
            f"{path}: names no training list; give --lists, the folder of dev/ and test/"
        )
    return Path(train_list).parent.parent


def _is_scored(result_dir: Path, data_list: Path, made_with: Mapping[str, object]) -> bool:
    """Return whether the scores of a list are there; score.json is what scoring writes last."""
    info_path = result_dir / "score.json"
    if not (data_list.is_file() and _is_newer(info_path, data_list)):
        return False
    try:
        # older scores have no limit and no temperature
        info = {**MODEL_IDENTITY, "max_duration_s": 0.0} | read_json(info_path)
    except DataError:
        return False
    same_list = os.path.realpath(str(info.get("data_list"))) == os.path.realpath(data_list)
    if not same_list or any(info.get(key) != value for key, value in made_with.items()):
        return False
    # Scores of earlier versions do not say which audio they are of.
    return "audio" not in info or info["audio"] == audio_status(read_data_list(data_list))


def _is_counted(result_dir: Path, dev_dir: Path | None, budgets: Sequence[Budget]) -> bool:
    """Return whether summary and plots are newer than the scores and of these budgets."""
    summary_path, scored = result_dir / "summary.json", [result_dir]
    if dev_dir is not None:
        scored.append(dev_dir)
    if not all(_is_newer(summary_path, folder / "score.json") for folder in scored):
        return False
    if not all(_is_newer(result_dir / plot, summary_path) for plot in PLOTS):
        return False
    try:
        summary = read_json(summary_path)
        validate_summary(summary)
    except DataError:
        return False
    wanted = [budget.label for budget in (*budgets, Budget(None))]
    counted = [
        [point.get("budget") for point in entry.get("operating_points", [])]
        for entry in summary.get("keywords", [])
    ]
    if (summary.get("dev") is None) != (dev_dir is None):
        return False
    return bool(counted) and all(labels == wanted for labels in counted)


def _has_options(result_dir: Path, options: ThresholdOptions) -> bool:
    """Return whether the thresholds of a summary were chosen with these options."""
    summary = read_json(result_dir / "summary.json")
    found = {row["category"]: row["hours"] for row in summary.get("category_hours", [])}
    # Earlier versions knew the count alone, and a threshold for each keyword.
    rule, shared = summary.get("threshold_rule", "count"), summary.get("shared_threshold", "false")
    wanted = (options.rule, options.shared, options.category_hours or {})
    return (rule, shared, found) == wanted


def _is_newer(path: Path, source: Path) -> bool:
    """Return whether a file is there and not older than its source."""
    return path.is_file() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns
