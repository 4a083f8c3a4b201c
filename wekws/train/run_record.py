"""Files in a run's folder that describe it: config.yaml, dict.txt, run.json and others."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import wekws
from wekws.config import merge, parse_section, to_mapping
from wekws.dataset.label_set import LabelSet
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.dataset.vocabulary import write_keywords
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, file_sha256
from wekws.model.cmvn import write_kaldi_cmvn
from wekws.model.cost import params_by_part
from wekws.train.compatibility import Cmvn
from wekws.train.distributed import Process
from wekws.train.options import TrainOptions
from wekws.train.train_config import TrainConfig, changed_keys
from wekws.yaml_files import read_yaml, write_yaml

RUN_NAME = "run.json"
# WeKWS reads Kaldi's form where the name contains "kaldi".
CMVN_NAME = "global_cmvn.kaldi"
# What a run may change between its start and its resume without becoming another run.
# The CMVN is compared by its content; config.yaml names the copy in the run's folder.
_RESUMABLE_CHANGES = frozenset(
    (
        *(f"training_config.{key}" for key in ("max_epoch", "log_interval", "gradient_interval")),
        "model.cmvn.cmvn_file",
        "model.score_temperature",  # of scoring alone
    )
)
# Entries that must be the same when a run is resumed, and the flags that they come from.
_FIXED = {
    "start": "--init_from_teacher or --checkpoint",
    "checkpoint_fingerprint": "--checkpoint",
    "start_fingerprint": "--start_from",
    "teacher_fingerprints": "--teacher_checkpoint",
    "feature_teacher_fingerprint": "--feature_teacher",
    "train_fingerprint": "--train_data",
    "cv_fingerprint": "--cv_data",
    "train_audio": "--train_data",
    "cv_audio": "--cv_data",
    "seed": "--seed",
    "bf16": "--bf16",
    "fake_quant": "--fake_quant",
}


_AUDIO = ("train_audio", "cv_audio")


@dataclass(frozen=True)
class RunRecord:
    """The inputs of a run and the machine it runs on, as run.json holds them."""

    entries: dict[str, Any]
    """Name -> value, ready for JSON."""

    @classmethod
    def of(
        cls,
        options: TrainOptions,
        config: TrainConfig,
        labels: LabelSet,
        train_set: SpeechDataset,
        cv_set: SpeechDataset,
        process: Process,
    ) -> "RunRecord":
        """Describe a run. Fingerprints tell the content of its inputs, wherever they lie."""
        checkpoint, embeddings = options.checkpoint, train_set.embeddings
        start_from = options.start_from
        entries = {
            "command": options.command or shlex.join(sys.orig_argv),
            "wekws": wekws.__version__,
            "torch": torch.__version__,
            "train_data": str(options.train_data.resolve()),
            "cv_data": str(options.cv_data.resolve()),
            "teachers": [str(path.resolve()) for path in options.teachers],
            "feature_teacher": options.used_feature_teacher,
            "feature_teacher_fingerprint": embeddings.fingerprint if embeddings else "",
            "start": options.start,
            "seed": options.seed,
            "num_parameters": sum(params_by_part(config.model).values()),
            "vocabulary": labels.fingerprint,
            "train_fingerprint": train_set.fingerprint,
            "cv_fingerprint": cv_set.fingerprint,
            "train_audio": train_set.audio_fingerprint,
            "cv_audio": cv_set.audio_fingerprint,
            "teacher_fingerprints": [model_fingerprint(path) for path in options.teachers],
            "start_fingerprint": model_fingerprint(start_from) if start_from else "",
            "checkpoint_fingerprint": model_fingerprint(checkpoint) if checkpoint else "",
            "num_train": len(train_set),
            "num_cv": len(cv_set),
            "num_threads": torch.get_num_threads(),
            "world_size": process.world_size,
            "device": str(process.device),
            "bf16": options.use_bf16,
            "fake_quant": options.use_fake_quant,
        }
        return cls(entries)

    def require_same(self, model_dir: Path) -> None:
        """Compare with the record of the run in ``model_dir``.

        Raises: ConfigError naming the flags that differ; DataError if the record is unreadable.
        """
        if changed := changed_inputs(model_dir, self.entries):
            raise ConfigError(
                f"{model_dir / RUN_NAME}: the run to resume began with another "
                f"{', '.join(changed)} (or other contents of it); restore that or start another "
                "--model_dir"
            )

    def write(self, model_dir: Path) -> None:
        """Write run.json."""
        text = json.dumps(self.entries, indent=2, ensure_ascii=False)
        with atomic_path(model_dir / RUN_NAME) as temporary:
            temporary.write_text(text, encoding="utf-8")


def model_fingerprint(path: Path) -> str:
    """Return what tells a checkpoint's content in run.json."""
    return file_sha256(path)[:16]


def changed_settings(model_dir: Path, config: TrainConfig) -> list[str]:
    """Return the dotted paths in which a run cannot go on with a configuration.

    Raises: ConfigError if the run's configuration cannot be read.
    """
    path = model_dir / "config.yaml"
    before = parse_section(TrainConfig, read_yaml(path), str(path))
    resumable = _RESUMABLE_CHANGES
    if before.stages or before.progressive.is_used:
        # Stages and growth are laid over the length: finished epochs would belong elsewhere.
        resumable = resumable - {"training_config.max_epoch"}
    return [key for key in changed_keys(before, config) if key not in resumable]


def changed_inputs(model_dir: Path, entries: Mapping[str, Any]) -> list[str]:
    """Return the flags whose inputs are not those that a run began with.

    entries: what run.json would hold now. What it or the record of an earlier version lacks is not
    compared.
    Raises: DataError if the record is missing or unreadable.
    """
    before = read_record(model_dir)
    changed = [
        flag
        for name, flag in _FIXED.items()
        if name in before
        and name in entries
        and before[name] != entries[name]
        and not (name in _AUDIO and not (before[name] and entries[name]))
    ]
    return list(dict.fromkeys(changed))


def read_record(model_dir: Path) -> dict[str, Any]:
    """Return the entries of the run.json in a run's folder.

    Raises: DataError if it is missing or unreadable.
    """
    path = model_dir / RUN_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing, so that it cannot be checked whether this is the same run; start "
            "another --model_dir"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not readable as JSON: {error}; start another --model_dir"
        ) from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: expected a JSON object; start another --model_dir")
    return record


def write_run_files(
    options: TrainOptions,
    config: TrainConfig,
    labels: LabelSet,
    record: RunRecord,
    cmvn: Cmvn,
    *,
    is_new: bool,
) -> None:
    """Write config.yaml, dict.txt, keywords.txt, CMVN, and copies of lexicon and CMVN file.

    cmvn: mean and inverse deviation of the model; config.yaml names their file, so that WeKWS can
    build the model of this folder and load its checkpoints.
    is_new: write run.json too; the record of a run that is resumed stays as it is, since it says
    where the weights come from.
    """
    model_dir = options.model_dir
    model_dir.mkdir(parents=True, exist_ok=True)
    write_kaldi_cmvn(model_dir / CMVN_NAME, *cmvn)
    named = {"model": {"cmvn": {"cmvn_file": str((model_dir / CMVN_NAME).resolve())}}}
    write_yaml(model_dir / "config.yaml", merge(to_mapping(config), named))
    labels.vocabulary.save(model_dir / "dict.txt")
    write_keywords(model_dir / "keywords.txt", labels.keywords)
    for source, name in ((options.lexicon, "lexicon.txt"), (options.cmvn_file, "global_cmvn")):
        if source:
            with atomic_path(model_dir / name) as temporary:
                shutil.copyfile(source, temporary)
    if is_new:
        record.write(model_dir)
