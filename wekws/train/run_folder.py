"""What a run's folder says of it, beside weights and metrics."""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

import torch

import wekws
from wekws.config import to_mapping
from wekws.dataset.label_set import LabelSet
from wekws.dataset.vocabulary import write_keywords
from wekws.errors import ConfigError
from wekws.files import atomic_path, file_sha256, write_yaml
from wekws.model.cost import num_parameters
from wekws.model.model import skeleton
from wekws.train.step import Run

RUN_NAME = "run.json"
_FLAGS = {
    "train_fingerprint": "--train_data",
    "cv_fingerprint": "--cv_data",
    "teacher_fingerprints": "--teacher_checkpoint",
}


def describe_run(run: Run, args: argparse.Namespace, outputs: LabelSet) -> None:
    """Write config.yaml, dict.txt, run.json and all else that others take from the folder."""
    run.model_dir.mkdir(parents=True, exist_ok=True)
    write_yaml(run.model_dir / "config.yaml", to_mapping(run.experiment))
    outputs.vocabulary.save(run.model_dir / "dict.txt")
    write_keywords(run.model_dir / "keywords.txt", outputs.keywords)
    for source, name in ((args.lexicon, "lexicon.txt"), (args.cmvn_file, "global_cmvn")):
        if source:
            with atomic_path(run.model_dir / name) as temporary:
                shutil.copyfile(source, temporary)
    record = {
        "command": shlex.join(sys.orig_argv),
        "wekws": wekws.__version__,
        "torch": torch.__version__,
        "train_data": str(args.train_data.resolve()),
        "cv_data": str(args.cv_data.resolve()),
        "teachers": [str(path.resolve()) for path in _teachers(args)],
        "start": _start(args),
        "seed": run.seed,
        "num_parameters": num_parameters(skeleton(run.experiment.model)),
        "vocabulary": outputs.vocabulary.fingerprint,
        **_fingerprints(run, args),
        "num_train": len(run.train_set),
        "num_cv": len(run.cv_set),
        "num_threads": torch.get_num_threads(),
        "world_size": run.process.world_size,
        "device": str(run.process.device),
        "bf16": run.use_bf16,
    }
    with atomic_path(run.model_dir / RUN_NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")


def require_same_inputs(run: Run, args: argparse.Namespace) -> None:
    """Compare what a run to resume learns from with what it began with, as run.json has it.

    Raises: ConfigError naming the flags under which something else lies now.
    """
    path = run.model_dir / RUN_NAME
    before = json.loads(path.read_text(encoding="utf-8"))
    now = _fingerprints(run, args)
    # The record of an earlier version has no fingerprints.
    changed = [flag for key, flag in _FLAGS.items() if before.get(key, now[key]) != now[key]]
    if changed:
        raise ConfigError(
            f"{path}: the run to resume began with another content of {', '.join(changed)}; "
            "restore it or start another --model_dir"
        )


def _fingerprints(run: Run, args: argparse.Namespace) -> dict[str, str | list[str]]:
    """Return what tells the content of the run's inputs from any other, wherever it lies."""
    return {
        "train_fingerprint": run.train_set.fingerprint,
        "cv_fingerprint": run.cv_set.fingerprint,
        "teacher_fingerprints": [file_sha256(path)[:16] for path in _teachers(args)],
    }


def _teachers(args: argparse.Namespace) -> list[Path]:
    return getattr(args, "teacher_checkpoint", [])


def _start(args: argparse.Namespace) -> str:
    """Return where the weights came from: ``teacher``, ``checkpoint`` or ``random``."""
    if getattr(args, "init_from_teacher", False):
        return "teacher"
    return "checkpoint" if args.checkpoint else "random"
