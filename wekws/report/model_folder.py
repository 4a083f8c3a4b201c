"""A trained model as its folder describes it: size, training, results."""

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wekws.config import load_yaml_with_base, parse_section
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.errors import ConfigError, DataError
from wekws.files import file_sha256, read_json
from wekws.front_end import FrontEnd
from wekws.model.cost import model_cost
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.runlog.fields import BEFORE_FIRST_STEP, METRICS_NAME, Row
from wekws.runlog.health import HealthProblem, problem_history
from wekws.runlog.metrics_reader import read_cv_rows, read_metrics
from wekws.score.results import Result, read_result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """One trained model. What its folder lacks is empty or None."""

    name: str
    """Name in tables and legends."""
    exp_dir: Path
    """The run's folder, ``exp/X``."""
    cv_rows: Sequence[Row]
    """One row per epoch; the state before the first step comes first."""
    run: dict[str, Any]
    """Content of ``run.json``."""
    max_epoch: int | None
    """Epochs of its configuration."""
    backbone: FSMNConfig | None
    """Sizes of the network."""
    num_outputs: int | None
    """Tokens of its output layer."""
    cost: Mapping[str, Any] | None
    """Parameters, MACs, bytes and look-ahead, as ``model_cost`` returns them."""
    results: Sequence[Result]
    """Averaged checkpoints first; the first one stands for the model."""
    speed: dict[str, Any]
    """Content of ``speed.json``, written by ``wekws.bin.measure_speed``."""
    problems: Sequence[HealthProblem]
    """Problems in training."""
    detector_cost: Mapping[str, Any]
    """Content of ``detector_cost.json``, written by ``benchmarks/detector_cost.py``."""
    exported_bytes: Mapping[str, int]
    """Sizes of the exported files in its folder, by name."""

    @property
    def headline(self) -> Result:
        """The result that stands for the model."""
        return self.results[0]

    @property
    def params(self) -> int | None:
        """Trainable parameters."""
        summary = self.headline.summary if self.results else {}
        value = (self.cost or {}).get("params") or summary.get("params")
        return value or self.run.get("num_parameters") or self.run.get("params")

    @property
    def num_epochs(self) -> int:
        """Number of finished epochs."""
        return sum(row["epoch"] > BEFORE_FIRST_STEP for row in self.cv_rows)

    @property
    def train_seconds(self) -> float | None:
        """Seconds of all epochs, cv passes included; None if they were not recorded."""
        times = [row.get("seconds") for row in self.cv_rows if row["epoch"] > BEFORE_FIRST_STEP]
        known = [time for time in times if time is not None]
        return sum(known) if known and len(known) == len(times) else None

    @property
    def command(self) -> str:
        """The command that trained it, empty if unknown."""
        command = self.run.get("command", "")
        return command if isinstance(command, str) else shlex.join(command)

    @property
    def role(self) -> Literal["base", "teacher", "student"]:
        """Kind of model that the run trained; a student where the record does not say."""
        if self.run.get("teachers") != []:
            return "student"
        return "base" if self._trained_dir.name == "base" else "teacher"

    @property
    def _trained_dir(self) -> Path:
        """The folder that it was trained in; the folder may have been moved since."""
        words = shlex.split(self.command)
        flags = dict(zip(words, words[1:], strict=False))
        return Path(flags.get("--model_dir", self.exp_dir))

    def has_teacher(self, other: "TrainedModel") -> bool:
        """Say whether it was distilled from a checkpoint of another model's folder.

        Folders may have been moved or renamed since, so checkpoints are compared by their content;
        where that is not possible, by the names of the last two folders.
        """
        checkpoints = [Path(found) for found in self.run.get("teachers") or []]
        hashes = self.run.get("teacher_fingerprints") or [""] * len(checkpoints)
        return any(
            other._holds(checkpoint, content)
            for checkpoint, content in zip(checkpoints, hashes, strict=False)
        )

    def _holds(self, checkpoint: Path, content: str) -> bool:
        found = self.exp_dir / checkpoint.name
        if content and found.is_file():
            return file_sha256(found).startswith(content)
        return checkpoint.parent.parts[-2:] == self.exp_dir.resolve().parts[-2:]

    @property
    def was_initialised(self) -> bool:
        """Whether training began from the teacher's weights."""
        return self.run.get("start") == "teacher"


def read_model(
    name: str,
    exp_dir: Path,
    dataset: str,
    result_dirs: Sequence[Path] | None = None,
    *,
    needs_results: bool = True,
) -> TrainedModel:
    """Read a model's folder and its results.

    result_dirs: result folders; None: all that match ``exp_dir/DATASET_*``.
    Raises: DataError or ConfigError if there are no results and they are needed, or a file is
    damaged.
    """
    if result_dirs is None:
        result_dirs = [p.parent for p in exp_dir.glob(f"{dataset}_*/summary.json")]
    if needs_results and not result_dirs:
        raise DataError(
            f"{exp_dir}: no results in {dataset}_*/summary.json; evaluate the model first"
        )
    results = [read_result(name, path) for path in result_dirs]
    metrics_path, config_path = exp_dir / METRICS_NAME, exp_dir / "config.yaml"
    config = load_yaml_with_base(config_path) if config_path.exists() else {}
    for path in (metrics_path, config_path, exp_dir / "run.json"):
        if not path.exists():
            logger.warning("%s: missing; the report leaves out what depends on it", path)
    for section in ("model", "dataset_conf", "training_config"):
        found = config.get(section)
        if not isinstance(found or {}, Mapping):
            raise ConfigError(f"{config_path}: {section}: expected a mapping, found {found!r}")
    model = _model_config(config, config_path)
    run_path, speed_path = exp_dir / "run.json", exp_dir / "speed.json"
    cost_path = exp_dir / "detector_cost.json"
    rows = read_metrics(exp_dir)
    return TrainedModel(
        name=name,
        exp_dir=exp_dir,
        cv_rows=read_cv_rows(exp_dir) if metrics_path.exists() else [],
        run=_read_record(run_path) if run_path.exists() else {},
        max_epoch=(config.get("training_config") or {}).get("max_epoch"),
        backbone=model.backbone if model else None,
        num_outputs=(config.get("model") or {}).get("output_dim"),
        cost=model_cost(model, _front_end(config, config_path)) if model else None,
        results=sorted(results, key=_rank),
        speed=read_json(speed_path) if speed_path.exists() else {},
        problems=_problems(rows),
        detector_cost=read_json(cost_path) if cost_path.exists() else {},
        exported_bytes={p.name: p.stat().st_size for p in sorted(exp_dir.glob("*.onnx"))},
    )


def _problems(rows: Sequence[Row]) -> list[HealthProblem]:
    if not any(row.get("kind") == "health" for row in rows):
        return []
    # Imported here: the methods bring torch, which the page of a healthy run does without.
    from wekws.distill.distill_rules import ALL_RULES

    return problem_history(rows, ALL_RULES)


def _read_record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    command, teachers = record.get("command", ""), record.get("teachers", [])
    if not isinstance(command, str | list) or not isinstance(teachers, list):
        raise DataError(f"{path}: not the record of a training run; restore it or delete it")
    return record


def _model_config(config: dict[str, Any], config_path: Path) -> ModelConfig | None:
    section = config.get("model") or {}
    if not section.get("backbone") or not section.get("output_dim"):
        return None
    return parse_section(ModelConfig, section, f"{config_path}: model")


def _front_end(config: dict[str, Any], config_path: Path) -> FrontEnd:
    section = config.get("dataset_conf")
    return parse_section(DatasetConfig, section, f"{config_path}: dataset_conf").front_end


def _rank(result: Result) -> tuple[bool, bool, bool, int, str]:
    """Return a sort key: keyword decoder, checkpoints, averages and later ones come first."""
    decoder = result.summary.get("decoder") or "keyword"
    numbers = re.findall(r"\d+", checkpoint_name(result).partition(".")[0])
    last = int(numbers[-1]) if numbers else 10**9
    others = decoder != "keyword", is_exported(result), not is_average(result)
    return *others, -last, str(result.result_dir)


def checkpoint_name(result: Result) -> str:
    """Return the checkpoint's name without folder and ending, such as ``avg_30``."""
    named = result.summary.get("checkpoint")
    return Path(named).stem if named else result.result_dir.name


def is_average(result: Result) -> bool:
    """Say whether the checkpoint is an average of several."""
    return checkpoint_name(result).startswith("avg")


def is_exported(result: Result) -> bool:
    """Say whether an exported file was scored instead of a checkpoint."""
    return str(result.summary.get("checkpoint") or "").endswith(".onnx")


def checkpoint_label(result: Result) -> str:
    """Return the checkpoint's name for readers: ``average of 30``, ``epoch 79, ONNX int8``."""
    stem, _, precision = checkpoint_name(result).partition(".")
    label = stem
    if match := re.fullmatch(r"avg_?(\d+)", stem):
        label = f"average of {match[1]}"
    elif stem.isdigit():
        label = f"epoch {stem}"
    elif stem == "final":
        label = "last epoch"
    elif stem in ("best", "best_frr"):
        label = "best epoch by " + ("cv loss" if stem == "best" else "FRR on dev")
    if is_exported(result):
        label = f"{label}, ONNX {precision or 'fp32'}"
    decoder = result.summary.get("decoder") or "keyword"
    return label if decoder == "keyword" else f"{label}, {decoder.replace('_', ' ')}"
