"""Part of the recipe's plan: runs that have begun must be those that the plan would go on with.

Training compares a run to resume with what it began with, but only when its stage begins. Here the
same is asked before the first stage, and the answer names the options to type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wekws.dataset.vocabulary import Vocabulary
from wekws.errors import ConfigError
from wekws.report.training_again import longer_teacher_flags
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.recipe_plan import RecipePlan
from wekws.train.epoch_checkpoint import read_state
from wekws.train.run_record import changed_inputs, changed_settings, model_fingerprint, read_record
from wekws.train.train_config import TrainConfig, load_train_config

_TEACHER_STAGE, _STUDENT_STAGE = 2, 3
_MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A training as the plan has it."""

    model: str
    """Name of the model in messages: base, teacher or student."""
    folder: Path
    """Folder of the run."""
    config: TrainConfig
    """Configuration, except the size of the output."""
    source: str
    """File or flag that sets the epochs."""
    entries: Mapping[str, Any]
    """Inputs as run.json holds them, as far as they are known before the first stage."""
    vocabulary: Vocabulary | None
    """Tokens of the model; None: not known."""
    way_out: str
    """Options with which the other run stays as it is."""


def require_resumable(
    plan: RecipePlan, options: RecipeOptions, vocabulary: Vocabulary | None
) -> None:
    """Compare the runs that a plan would go on with to what it asks for.

    vocabulary: tokens of teacher and student; None: not known yet, and not compared.
    Raises: ConfigError naming everything that differs, and the options to type; DataError if the
    files of such a run cannot be read.
    """
    problems = [
        problem
        for wanted in _trainings(plan, options, vocabulary)
        if (num_epochs := _num_epochs(wanted.folder))
        for problem in _differences(wanted, num_epochs)
    ]
    if options.stage <= _TEACHER_STAGE <= options.stop_stage:
        problems += _started_from_less(plan)
    if options.stage <= _STUDENT_STAGE <= options.stop_stage:
        problems += _other_teacher(plan, options)
    if problems:
        raise ConfigError("\n".join(problems))


def _num_epochs(folder: Path) -> int:
    """Return the finished epochs of a run; 0 if there is none."""
    state = read_state(folder)
    return 0 if state is None else int(state["epoch"]) + 1


def _trainings(
    plan: RecipePlan, options: RecipeOptions, vocabulary: Vocabulary | None
) -> Iterator[_Wanted]:
    beside = "--name NAME for an experiment of its own"
    if plan.teacher_checkpoint.is_file() and options.stop_stage >= _STUDENT_STAGE:
        beside += f", --stage {_STUDENT_STAGE} to leave base and teacher as they are"
    trains_base = not (plan.base_given or plan.teacher_given)
    if options.stage <= _TEACHER_STAGE <= options.stop_stage and trains_base:
        epochs = f"training_config.max_epoch={plan.base.epochs}"
        yield _Wanted(
            model="base",
            folder=plan.base_checkpoint.parent,
            config=load_train_config(
                plan.teacher_config, [*plan.base_overrides, epochs], plan.overlays
            ),
            source=plan.base.source,
            entries=_entries(plan, options, plan.base_checkpoint.parent, 0),
            vocabulary=None,
            way_out=beside,
        )
    if options.stage <= _TEACHER_STAGE <= options.stop_stage and not plan.teacher_given:
        for number, checkpoint in enumerate(plan.teacher_checkpoints):
            yield _Wanted(
                model="teacher",
                folder=checkpoint.parent,
                config=plan.teacher.config,
                source=plan.teacher.source,
                entries=_entries(plan, options, checkpoint.parent, number),
                vocabulary=vocabulary,
                way_out=beside,
            )
    if options.stage <= _STUDENT_STAGE <= options.stop_stage:
        folder = plan.student_checkpoint.parent
        start = {"start": "teacher" if options.init_from_teacher else "random"}
        yield _Wanted(
            model="student",
            folder=folder,
            config=plan.student.config,
            source=plan.student.source,
            entries=_entries(plan, options, folder, 0) | start,
            vocabulary=vocabulary,
            way_out="--student_name NAME for another student of the same teacher",
        )


def _entries(
    plan: RecipePlan, options: RecipeOptions, folder: Path, number: int
) -> dict[str, object]:
    return {"seed": options.seed + number, "bf16": plan.uses_bf16(folder)}


def _differences(wanted: _Wanted, num_epochs: int) -> Iterator[str]:
    """Yield why a run cannot go on as the plan has it."""
    folder, model = wanted.folder, wanted.model
    before = Vocabulary.load(folder / "dict.txt")
    changed = changed_settings(folder, wanted.config.with_output_dim(before.size))
    changed += changed_inputs(folder, wanted.entries)
    if wanted.vocabulary and wanted.vocabulary.fingerprint != before.fingerprint:
        changed.append("the tokens (--keywords, --num_tokens, --units or --lexicon)")
    if changed:
        yield (
            f"{folder}: holds a {model} with other settings: {_listed(changed)}; give "
            f"{wanted.way_out}, or the options of this one to go on with it"
        )
    elif num_epochs > wanted.config.training_config.max_epoch:
        yield (
            f"{folder}: has {num_epochs} epochs, more than the "
            f"{wanted.config.training_config.max_epoch} of {wanted.source}; give "
            f"--{model}_epochs {num_epochs}, or {wanted.way_out}"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more


def _started_from_less(plan: RecipePlan) -> Iterator[str]:
    """Yield the teachers that have begun from a base that would be trained longer now."""
    if plan.base_given or plan.teacher_given:
        return
    folder = plan.base_checkpoint.parent
    num_epochs = _num_epochs(folder)
    if not 0 < num_epochs < plan.base.epochs:
        return
    for checkpoint in plan.teacher_checkpoints:
        if _num_epochs(checkpoint.parent):
            yield (
                f"{checkpoint.parent}: began from {folder} after {num_epochs} epochs, which would "
                f"be trained to {plan.base.epochs} now ({plan.base.source}); give --base_epochs "
                f"{num_epochs}, or --name NAME for an experiment of its own"
            )


def _other_teacher(plan: RecipePlan, options: RecipeOptions) -> Iterator[str]:
    """Yield the student if it was distilled from other teachers than it would be now."""
    folder = plan.student_checkpoint.parent
    if plan.num_teachers > 1 or not _num_epochs(folder):
        return
    record = read_record(folder)
    num_epochs = 0 if plan.teacher_given else _num_epochs(plan.teacher_checkpoint.parent)
    trains = options.stage <= _TEACHER_STAGE
    if trains and 0 < num_epochs < plan.teacher.epochs:
        flags = longer_teacher_flags(plan.exp, plan.teacher.epochs)
        yield (
            f"{folder}: its teacher has {num_epochs} epochs and would be trained to "
            f"{plan.teacher.epochs} now ({plan.teacher.source}), which makes it another one; give "
            f"--teacher_epochs {num_epochs}, or --student_name NAME for a student of the longer "
            f"teacher, or keep both teachers with `{flags}`, besides your other options"
        )
    elif not _is_same_teacher(plan, record):
        yield (
            f"{folder}: holds a student of {_shown(record.get('teachers', []))}, not of "
            f"{_shown([plan.teacher_checkpoint, *plan.more_teachers])}; give --student_name NAME "
            "for another student, or the teacher of this one with --teacher_checkpoint"
        )


def _is_same_teacher(plan: RecipePlan, record: Mapping[str, Any]) -> bool:
    """Return whether a student's record names the teachers of the plan, as far as they exist."""
    paths = [plan.teacher_checkpoint, *plan.more_teachers]
    if all(path.is_file() for path in paths):
        now = [model_fingerprint(path) for path in paths]
        return record.get("teacher_fingerprints", now) == now
    return [Path(path).name for path in record.get("teachers", [])] == [path.name for path in paths]


def _shown(paths: list[Any]) -> str:
    here = Path.cwd()
    texts = [Path(path) for path in paths]
    return ", ".join(str(p.relative_to(here) if p.is_relative_to(here) else p) for p in texts)
