"""Files in a run's folder that describe it: config.yaml, dict.txt, run.json and others."""

import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import wekws
from wekws.config import merge, to_mapping
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
from wekws.train.train_config import TrainConfig
from wekws.yaml_files import write_yaml

RUN_NAME = "run.json"
# WeKWS reads Kaldi's form where the name contains "kaldi".
CMVN_NAME = "global_cmvn.kaldi"
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
            "teacher_fingerprints": [file_sha256(path)[:16] for path in options.teachers],
            "start_fingerprint": file_sha256(start_from)[:16] if start_from else "",
            "checkpoint_fingerprint": file_sha256(checkpoint)[:16] if checkpoint else "",
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

        Entries that the record or the caches of an earlier version lack are not compared.
        Raises: ConfigError naming the flags that differ; DataError if the record is unreadable.
        """
        path = model_dir / RUN_NAME
        before = _read_record(path)
        changed = [
            flag
            for name, flag in _FIXED.items()
            if name in before
            and before[name] != self.entries[name]
            and not (name in _AUDIO and not (before[name] and self.entries[name]))
        ]
        if changed:
            raise ConfigError(
                f"{path}: the run to resume began with another {', '.join(dict.fromkeys(changed))} "
                "(or other contents of it); restore that or start another --model_dir"
            )

    def write(self, model_dir: Path) -> None:
        """Write run.json."""
        text = json.dumps(self.entries, indent=2, ensure_ascii=False)
        with atomic_path(model_dir / RUN_NAME) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _read_record(path: Path) -> dict[str, Any]:
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
