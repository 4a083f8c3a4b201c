"""Time of an optimiser step: one process alone, and several at once."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wekws.sweep import step_time
from wekws.sweep.step_time import StepTimer, TimedStep
from wekws.train.train_config import load_train_config

CONF = Path(__file__).parents[3] / "conf"
CPU = torch.device("cpu")


def small_step(*overlays, config="fsmn_ctc_student_s5.yaml", **given):
    config = load_train_config(CONF / config, overlays=[CONF / "overlays" / o for o in overlays])
    return TimedStep(experiment=config, durations_s=(0.3,), most_utterances=2, **given)


@pytest.fixture
def ticks(monkeypatch):
    """Clocks that count how often they are read."""
    count = itertools.count()
    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"time.{clock}", lambda: float(next(count)))


def test_a_step_is_measured_without_a_teacher_and_with_two(ticks):
    timer, step = StepTimer(CPU), small_step()
    assert timer.seconds_per_utterance(step, repeats=1) == 1 / 2
    sizes = step.experiment.model
    taught = small_step(teachers=(sizes, sizes))
    assert timer.seconds_per_utterance(taught, repeats=1) == 1 / 2


def test_the_keyword_term_is_timed_with_as_many_keywords_as_the_run_has(ticks, monkeypatch):
    built, build = [], step_time.build_objective
    monkeypatch.setattr(step_time, "build_objective", lambda *a: built.append(a[-1]) or build(*a))
    step = small_step("own_word.yaml", keyword_lengths=(5, 40))
    assert step.experiment.keyword_conf.is_used
    assert StepTimer(CPU).seconds_per_utterance(step, repeats=1) == 1 / 2
    [labels] = built
    assert [len(labels.scorable_ids(keyword)) for keyword in labels.keywords] == [5, 40]


def test_every_step_waits_for_those_of_the_other_processes(ticks, monkeypatch):
    happened = []
    barrier = SimpleNamespace(wait=lambda: happened.append("wait"))
    monkeypatch.setattr(step_time, "_step", lambda *_: happened.append("step"))
    taken = step_time._seconds_per_utterance(small_step(), CPU, 1, 2, barrier)
    assert happened == ["wait", "step"] * 3 and taken == 1 / 2


def test_processes_of_its_own_measure_a_step_time_and_again():
    with StepTimer(CPU, num_processes=2, num_threads=1) as timer:
        first = timer.seconds_per_utterance(small_step(), repeats=1)
        second = timer.seconds_per_utterance(small_step(), repeats=1)
    assert first > 0.0 and second > 0.0


def test_on_gpus_one_process_is_measured_for_all(monkeypatch):
    monkeypatch.setattr(step_time, "_seconds_per_utterance", lambda *_: 4.0)
    with StepTimer(torch.device("cuda"), num_processes=2) as timer:
        assert timer.seconds_per_utterance(small_step()) == 2.0
