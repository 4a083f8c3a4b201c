"""Estimated time of the stages of ``run_distill.sh`` that are still to run, and what it rests on.

Training: the seconds per epoch that the same run, or an earlier one of the model, has logged in
``metrics.jsonl``; otherwise a few steps on random data on this machine and a pass over dev, without
loading and the features of the first epoch. Other stages: what they took in earlier runs of the
same name. What nothing is known about is called unknown.
"""

import contextlib
import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wekws.dataset.manifest import SPLITS
from wekws.machine import threads_of_process
from wekws.model.checkpoint import config_beside, read_model_config
from wekws.model.model import KwsModel
from wekws.report.format import duration
from wekws.runlog.metrics_reader import read_metrics
from wekws.sweep.preset_info import USUAL_DURATIONS_S
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.recipe_plan import RecipePlan
from wekws.sweep.step_time import seconds_per_utterance
from wekws.sweep.training_length import Length
from wekws.train.build import mix_teachers
from wekws.train.distributed import choose_device

TIMES_NAME = "stage_times.txt"
"""File in ``exp/NAME`` to which the recipe adds a line ``STAGE SECONDS`` per stage that ended."""
_TRAINING_STAGES = (2, 3)
# Lines of data.list from which durations are drawn.
_NUM_SAMPLED = 2000
# Time of a forward pass beside that of a step: the backward pass takes about twice as long.
_FORWARD_SHARE = 1 / 3
# Utterances of dev beside those of train in the demo corpus.
_USUAL_DEV_SHARE = 0.25
# Utterances in a measured step: enough for the pace of whole batches, within a second.
_NUM_PROBED = 16


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Time of one part of the run."""

    name: str
    """The model, or the stages."""
    seconds: float | None
    """Estimated time; None: unknown."""
    text: str
    """Time per epoch, and what it rests on."""
    is_probed: bool = False
    """Whether it rests on steps that were measured just now."""


@dataclass(frozen=True, kw_only=True)
class _TrainingSet:
    """Utterances that a model is trained on."""

    num: int | None
    """How many there are; None: not known yet."""
    durations_s: Sequence[float]
    """Durations of some of them."""


def time_lines(plan: RecipePlan, options: RecipeOptions) -> list[str]:
    """Return the estimate as lines of the plan: one per model, other stages, the sum."""
    estimates = [*_trainings(plan, options), *_other_stages(plan, options)]
    known = [estimate for estimate in estimates if estimate.seconds is not None]
    unknown = [estimate.name for estimate in estimates if estimate.seconds is None]
    total = f"about {duration(sum(e.seconds or 0.0 for e in known))}" if known else "unknown"
    if known and unknown:
        total += f", besides {', '.join(unknown)}: unknown"
    if any(estimate.is_probed for estimate in estimates):
        total += "; loading and the features of the first epoch are not counted"
    rows = {"time": total} | {f"  {estimate.name}": estimate.text for estimate in estimates}
    width = max(10, *(len(name) + 1 for name in rows))
    return [f"   {name:<{width}}{text}" for name, text in rows.items()]


def _trainings(plan: RecipePlan, options: RecipeOptions) -> list[TimeEstimate]:
    base_given = plan.base_given or plan.teacher_given
    teachers = [path.parent for path in plan.teacher_checkpoints]
    models: list[tuple[str, int, Length, Path, bool]] = [
        ("base", 2, plan.base, plan.base_checkpoint.parent, base_given),
        *((path.name, 2, plan.teacher, path, plan.teacher_given) for path in teachers),
        ("student", 3, plan.student, plan.student_checkpoint.parent, False),
    ]
    return [
        _training(name, length, folder, plan, options)
        for name, stage, length, folder, is_given in models
        if options.stage <= stage <= options.stop_stage and not is_given
    ]


def _training(
    name: str, length: Length, folder: Path, plan: RecipePlan, options: RecipeOptions
) -> TimeEstimate:
    """Return the time of the epochs of a model that are not done yet."""
    logged = {
        int(row["epoch"]): float(row["seconds"])
        for row in read_metrics(folder)
        if row.get("kind") == "cv" and row.get("epoch", -1) >= 0 and "seconds" in row
    }
    num_left = max(0, length.epochs - len(logged))
    if not num_left:
        return TimeEstimate(name=name, seconds=0.0, text=f"done, {length.epochs} epochs")
    if logged:
        epoch_s = statistics.median(logged.values())
        source = f"measured in {folder / 'metrics.jsonl'}"
        return _of_epochs(name, num_left, epoch_s, source)
    trained_on = _training_set(plan, is_base=name == "base")
    step_s = _step_seconds(name, length, folder, plan, options, trained_on.durations_s)
    if trained_on.num is None:
        per = duration(1000 * step_s * num_left)
        text = f"{num_left} epochs: {per} for every 1,000 utterances, whose number is not known yet"
        return TimeEstimate(name=name, seconds=None, text=text)
    num = trained_on.num * length.config.dataset_conf.filter_conf.data_share
    num += _FORWARD_SHARE * _num_dev(plan, trained_on.num)
    source = "a few steps on random data just now"
    return replace(_of_epochs(name, num_left, step_s * num, source), is_probed=True)


def _of_epochs(name: str, num_left: int, epoch_s: float, source: str) -> TimeEstimate:
    seconds = num_left * epoch_s
    shown = f"{epoch_s:.1f} s" if epoch_s < 60 else duration(epoch_s)
    text = f"{num_left} epochs of {shown}: {duration(seconds)} ({source})"
    return TimeEstimate(name=name, seconds=seconds, text=text)


def _num_dev(plan: RecipePlan, num_train: int) -> float:
    """Return the utterances of dev, which are scored after every epoch; before stage 1 a guess."""
    data_list = plan.lists / SPLITS[1] / "data.list"
    if data_list.exists():
        return _num_lines(data_list)
    if plan.data_dir:
        return sum(map(_num_lines, (plan.data_dir / SPLITS[1]).rglob("wav.scp")))
    return _USUAL_DEV_SHARE * num_train


def _num_lines(path: Path) -> int:
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)


def _training_set(plan: RecipePlan, *, is_base: bool) -> _TrainingSet:
    folders = plan.base_sets if is_base else (plan.lists / SPLITS[0],)
    paths = [folder / "data.list" for folder in folders]
    if all(path.exists() for path in paths):
        sample: list[str] = []
        num = 0
        for path in paths:
            with open(path, encoding="utf-8", errors="replace") as lines:
                size = sum(1 for _ in lines)
                lines.seek(0)
                # Evenly: what is alike stands together.
                sample += itertools.islice(lines, 0, None, -(-size // _NUM_SAMPLED) or 1)
                num += size
        durations = [d for line in sample if (d := _duration_s(line))]
        return _TrainingSet(num=num, durations_s=durations or USUAL_DURATIONS_S)
    return _TrainingSet(num=_expected_utterances(plan, is_base), durations_s=USUAL_DURATIONS_S)


def _expected_utterances(plan: RecipePlan, is_base: bool) -> int | None:
    """Return the size of a training set whose list is not made yet; None: not known."""
    speech = plan.synthesis
    beside = speech is not None and speech.is_beside_recordings
    if speech is not None and beside and is_base:
        return None if plan.extra_lists else speech.num_train
    negatives_train = bool(plan.negatives) and (plan.learns_transcripts or not plan.from_text)
    if plan.corpus == "mobvoi" or negatives_train:
        return None
    known = 0
    if speech is not None and (speech.joins_recordings or not beside):
        known = speech.num_train
    if plan.data_dir:
        tables = (plan.data_dir / SPLITS[0]).rglob("wav.scp")
        known += sum(map(_num_lines, tables))
    return known


def _duration_s(line: str) -> float | None:
    """Return the duration in a line of data.list; None if there is none to be read."""
    try:
        return float(json.loads(line)["duration"])
    except (ValueError, TypeError, KeyError):
        return None


def _step_seconds(
    name: str,
    length: Length,
    folder: Path,
    plan: RecipePlan,
    options: RecipeOptions,
    durations_s: Sequence[float],
) -> float:
    """Return the measured time of an optimiser step of a model, per utterance."""
    num_tokens = 20 if options.num_tokens == "all" else int(options.num_tokens)
    config, teacher = length.config, None
    if name != "base":
        config = config.with_output_dim(num_tokens)
    if name == "student":
        dim = config.model.input_dim
        sizes = plan.teacher.config.model
        if plan.teacher_given:
            sizes = read_model_config(config_beside(plan.teacher_checkpoint))
        sizes = sizes.with_output_dim(num_tokens)
        num_teachers = max(plan.num_teachers, 1 + len(plan.more_teachers))
        cmvn = (torch.zeros(dim), torch.ones(dim))
        teacher = mix_teachers([KwsModel(sizes, cmvn) for _ in range(num_teachers)])
    torch.set_num_threads(threads_of_process(options.num_threads, plan.num_processes))
    torch.set_flush_denormal(True)  # as in training
    device = choose_device(options.device, 0, plan.num_processes)
    return seconds_per_utterance(
        config,
        teacher,
        durations_s,
        device,
        repeats=2,
        num_processes=plan.num_processes,
        most_utterances=_NUM_PROBED,
        use_bf16=plan.uses_bf16(folder),
    )


def _other_stages(plan: RecipePlan, options: RecipeOptions) -> list[TimeEstimate]:
    """Return the time of the stages besides training, from earlier runs of the same name."""
    path = plan.exp / TIMES_NAME
    times, found = _stage_times(path), []
    for first, last, name in ((-2, 1, "data"), (4, 6, "results")):
        stages = range(max(first, options.stage), min(last, options.stop_stage) + 1)
        stages_left = [stage for stage in stages if stage not in _TRAINING_STAGES]
        if not stages_left:
            continue
        if all(stage in times for stage in stages_left):
            seconds = sum(times[stage] for stage in stages_left)
            text = f"{duration(seconds)}, less what is finished ({path})"
            found.append(TimeEstimate(name=name, seconds=seconds, text=text))
        else:
            text = f"unknown: no earlier run in {plan.exp} has been through it"
            found.append(TimeEstimate(name=name, seconds=None, text=text))
    return found


def _stage_times(path: Path) -> dict[int, float]:
    """Return the longest time of each stage in seconds: a stage that was skipped took none."""
    times = dict[int, float]()
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        # A line that a full disk or a crash has cut counts for nothing.
        with contextlib.suppress(ValueError):
            stage, taken = line.split()
            times[int(stage)] = max(times.get(int(stage), 0.0), float(taken))
    return times
