"""Estimated time of the stages of ``run_distill.sh`` that are still to run, and what it rests on.

Training: the seconds per epoch that the same run, or an earlier one of the model, has logged in
``metrics.jsonl``; otherwise a few steps on random data on this machine and a pass over dev. Other
stages: what they took in earlier runs of the same name; otherwise the features of a few files or of
noise, and the scores of noise, on this machine. What nothing is known about is called unknown, and
what is not counted is named.
"""

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wekws.dataset.vocabulary import parse_keywords
from wekws.machine import usable_cores
from wekws.model.model_conf import ModelConfig, config_beside, read_model_config
from wekws.report.format import duration
from wekws.runlog.metrics_reader import read_metrics
from wekws.sweep.audio_amount import AudioAmounts, audio_amounts
from wekws.sweep.data_time import epoch_feature_seconds, feature_seconds, scoring_seconds
from wekws.sweep.preset_info import USUAL_DURATIONS_S
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.recipe_plan import STUDENT_STAGE, TEACHER_STAGE, RecipePlan
from wekws.sweep.step_time import StepTimer, TimedStep
from wekws.sweep.training_length import Length
from wekws.train.distributed import choose_device

TIMES_NAME = "stage_times.txt"
"""File in ``exp/NAME`` to which the recipe adds a line ``STAGE SECONDS`` per stage that ended."""
_CORPUS_STAGE, _LISTS_STAGE, _SCORES_STAGE, _EXPORT_STAGE = -2, 1, 4, 6
# Time of a forward pass beside that of a step: the backward pass takes about twice as long.
_FORWARD_SHARE = 1 / 3
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
    """Whether it rests on something that was measured just now."""


def time_lines(plan: RecipePlan, options: RecipeOptions) -> list[str]:
    """Return the estimate as lines of the plan: one per model, other stages, the sum."""
    audio = audio_amounts(plan)
    with StepTimer(
        choose_device(options.device, 0, plan.num_processes),
        num_processes=plan.num_processes,
        num_threads=options.num_threads,
    ) as timer:
        estimates = _trainings(plan, options, audio, timer)
    estimates += _other_stages(plan, options, audio)
    known = [estimate for estimate in estimates if estimate.seconds is not None]
    unknown = [estimate.name for estimate in estimates if estimate.seconds is None]
    is_probed = any(estimate.is_probed for estimate in estimates)
    # Features are measured in one process alone, as if several did not share cores.
    bound = "at least" if is_probed else "about"
    total = f"{bound} {duration(sum(e.seconds or 0.0 for e in known))}" if known else "unknown"
    if known and unknown:
        total += f", besides {', '.join(unknown)}: unknown"
    if is_probed:
        total += "; loading, synthesis, tables and pages are not counted"
    rows = {"time": total} | {f"  {estimate.name}": estimate.text for estimate in estimates}
    width = max(10, *(len(name) + 1 for name in rows))
    return [f"   {name:<{width}}{text}" for name, text in rows.items()]


def _trainings(
    plan: RecipePlan, options: RecipeOptions, audio: AudioAmounts, timer: StepTimer
) -> list[TimeEstimate]:
    teachers = [path.parent for path in plan.teacher_checkpoints]
    models: list[tuple[str, int, Length, Path, bool]] = [
        ("base", TEACHER_STAGE, plan.base, plan.base_checkpoint.parent, not _trains_base(plan)),
        *((path.name, TEACHER_STAGE, plan.teacher, path, plan.teacher_given) for path in teachers),
        ("student", STUDENT_STAGE, plan.student, plan.student_checkpoint.parent, False),
    ]
    return [
        _training(name, length, folder, plan, options, audio, timer)
        for name, stage, length, folder, is_given in models
        if options.stage <= stage <= options.stop_stage and not is_given
    ]


def _training(
    name: str,
    length: Length,
    folder: Path,
    plan: RecipePlan,
    options: RecipeOptions,
    audio: AudioAmounts,
    timer: StepTimer,
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
    amount = audio.base if name == "base" else audio.train
    durations_s = amount.durations_s if amount else USUAL_DURATIONS_S
    step = _timed_step(name, length, folder, plan, options, durations_s)
    step_s = timer.seconds_per_utterance(step, repeats=2)
    if amount is None:
        per = duration(1000 * step_s * num_left)
        text = f"{num_left} epochs: {per} for every 1,000 utterances, whose number is not known yet"
        return TimeEstimate(name=name, seconds=None, text=text)
    config = length.config.dataset_conf
    steps_s = step_s * amount.num * config.filter_conf.data_share
    dev_s = audio.dev.seconds_up_to(config.longest_trained_s) if audio.dev else 0.0
    heard_s = (1 + config.join_prob) * amount.seconds
    if amount.num:
        steps_s += _FORWARD_SHARE * step_s * dev_s / (heard_s / amount.num)
    source = "a few steps on random data just now"
    features_s = sum(
        epoch_feature_seconds(config, files, is_training=is_training) * seconds
        for files, is_training, seconds in (
            (amount.files, True, config.filter_conf.data_share * heard_s),
            (audio.dev.files if audio.dev else {}, False, dev_s),
        )
    )
    if features_s:
        source = "a few steps and features just now"
    # Each training process has as many others for its features. Beside a GPU they have the cores.
    features_s /= min(usable_cores(), plan.num_processes * max(1, plan.num_workers))
    is_on_gpu = timer.device.type == "cuda"
    epoch_s = max(steps_s, features_s) if is_on_gpu else steps_s + features_s
    return replace(_of_epochs(name, num_left, epoch_s, source), is_probed=True)


def _of_epochs(name: str, num_left: int, epoch_s: float, source: str) -> TimeEstimate:
    seconds = num_left * epoch_s
    shown = f"{epoch_s:.1f} s" if epoch_s < 60 else duration(epoch_s)
    text = f"{num_left} epochs of {shown}: {duration(seconds)} ({source})"
    return TimeEstimate(name=name, seconds=seconds, text=text)


def _num_tokens(options: RecipeOptions) -> int:
    return 20 if options.num_tokens == "all" else int(options.num_tokens)


def _timed_step(
    name: str,
    length: Length,
    folder: Path,
    plan: RecipePlan,
    options: RecipeOptions,
    durations_s: Sequence[float],
) -> TimedStep:
    """Return what an optimiser step of a model consists of."""
    num_tokens = _num_tokens(options)
    config = length.config
    teachers: tuple[ModelConfig, ...] = ()
    if name != "base":
        config = config.with_output_dim(num_tokens)
    if name == "student":
        sizes = plan.teacher.config.model
        if plan.teacher_given:
            sizes = read_model_config(config_beside(plan.teacher_checkpoint))
        num_teachers = max(plan.num_teachers, 1 + len(plan.more_teachers))
        teachers = (sizes.with_output_dim(num_tokens),) * num_teachers
    return TimedStep(
        experiment=config,
        teachers=teachers,
        durations_s=tuple(durations_s),
        # About as many tokens as letters.
        keyword_lengths=tuple(
            len(keyword.replace(" ", "")) for keyword in parse_keywords(options.keywords)
        ),
        most_utterances=_NUM_PROBED,
        use_bf16=plan.uses_bf16(folder),
    )


def _other_stages(
    plan: RecipePlan, options: RecipeOptions, audio: AudioAmounts
) -> list[TimeEstimate]:
    """Return the time of the stages besides training."""
    path = plan.exp / TIMES_NAME
    times, found = _stage_times(path), []
    for first, last, name in ((-2, 1, "data"), (4, 6, "results")):
        stages = range(max(first, options.stage), min(last, options.stop_stage) + 1)
        if not stages:
            continue
        if all(stage in times for stage in stages):
            seconds = sum(times[stage] for stage in stages)
            text = f"{duration(seconds)}, less what is finished ({path})"
            found.append(TimeEstimate(name=name, seconds=seconds, text=text))
        elif name == "data":
            found.append(_data(plan, options, audio, stages))
        else:
            found.append(_results(plan, options, audio, stages))
    return found


def _data(
    plan: RecipePlan, options: RecipeOptions, audio: AudioAmounts, stages: Sequence[int]
) -> TimeEstimate:
    """Return the time of the features of train, base and dev, which take the longest."""
    config = plan.teacher.config.dataset_conf
    parts = [(audio.train, True)] if _LISTS_STAGE in stages else []
    if options.stop_stage >= TEACHER_STAGE:  # it computes these
        parts += [(audio.base, True)] if _trains_base(plan) and audio.base != audio.train else []
        parts += [(audio.dev, False)]
    speech = plan.synthesis
    synthesised = ""
    if speech is not None and _CORPUS_STAGE in stages:
        synthesised = f"{speech.num_train:,} utterances and more are synthesised"
    if not parts or not config.cached_views(is_training=True):
        text = "; ".join(filter(None, ("no features are computed in advance", synthesised)))
        return TimeEstimate(name="data", seconds=0.0, text=text, is_probed=True)
    known = [(amount, is_training) for amount, is_training in parts if amount is not None]
    if len(known) < len(parts):
        text = "unknown: how much audio there is shows in stage 1"
        return TimeEstimate(name="data", seconds=None, text=text)
    seconds = sum(
        feature_seconds(config, amount.files, is_training=is_training) * amount.seconds
        for amount, is_training in known
    ) / max(1, plan.num_workers)
    hours = _hours(sum(amount.seconds for amount, _ in known))
    copies = f", those of training in {n} copies" if (n := config.augment_conf.copies) else ""
    measured = "a few files" if any(amount.files for amount, _ in known) else "some noise"
    text = f"{duration(seconds)} for the features of {hours}{copies} ({measured} just now)"
    text += f"; besides, {synthesised}" if synthesised else ""
    return TimeEstimate(name="data", seconds=seconds, text=text, is_probed=True)


def _trains_base(plan: RecipePlan) -> bool:
    return not (plan.base_given or plan.teacher_given)


def _results(
    plan: RecipePlan, options: RecipeOptions, audio: AudioAmounts, stages: Sequence[int]
) -> TimeEstimate:
    """Return the time of the scores of dev and test, which take the longest of stages 4 to 6."""
    # Last epoch and average of teacher and student, and the exported student.
    num_models = 4 * (_SCORES_STAGE in stages) + (_EXPORT_STAGE in stages)
    if not num_models:
        text = "nothing is scored; tables and pages are written"
        return TimeEstimate(name="results", seconds=0.0, text=text, is_probed=True)
    dev, test = audio.dev, audio.test
    if dev is None or test is None:
        text = "unknown: how much audio there is shows in stage 1"
        return TimeEstimate(name="results", seconds=None, text=text)
    config = plan.student.config
    sizes = config.with_output_dim(_num_tokens(options)).model
    num_keywords = len(parse_keywords(options.keywords))
    device = choose_device(options.device, 0, 1)
    pace = scoring_seconds(sizes, config.dataset_conf, num_keywords, device)
    audio_s = dev.seconds + test.seconds
    seconds = num_models * pace * audio_s
    if _SCORES_STAGE in stages:
        test_pace = feature_seconds(config.dataset_conf, test.files, is_training=False)
        seconds += test_pace * test.seconds / max(1, plan.num_workers)
    text = (
        f"{duration(seconds)} for the scores of {_hours(audio_s)}, {num_models} times (some noise "
        "just now); besides, tables and pages are written"
    )
    return TimeEstimate(name="results", seconds=seconds, text=text, is_probed=True)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds / 60:.0f} min"


def _stage_times(path: Path) -> dict[int, float]:
    """Return the longest time of each stage in seconds: a stage that was skipped took none."""
    times = dict[int, float]()
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        # A line that a full disk or a crash has cut counts for nothing.
        with contextlib.suppress(ValueError):
            stage, taken = line.split()
            times[int(stage)] = max(times.get(int(stage), 0.0), float(taken))
    return times
