"""Estimated time of a plan: what it rests on, and what is unknown."""

import json
import shutil
from pathlib import Path

import pytest
from dry_runs import ROOT, defaults, transcript, without_times

from wekws.dataset.manifest import SPLITS
from wekws.shell import UserPaths
from wekws.sweep import plan_variables, recipe_time, synthesis_plan
from wekws.sweep.recipe_options import read_options
from wekws.sweep.recipe_time import time_lines
from wekws.sweep.resolve_recipe import resolve
from wekws.sweep.step_time import StepTimer


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Folder with the shipped configurations.

    A step takes 2 ms per utterance, the features of a second of audio 10 ms with augmentation and
    1 ms without, its scores 2 ms.
    """
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StepTimer, "seconds_per_utterance", lambda *_, **__: 0.002)
    monkeypatch.setattr(recipe_time, "feature_seconds", feature_seconds)
    monkeypatch.setattr(recipe_time, "scoring_seconds", lambda *_: 0.002)
    return tmp_path


def feature_seconds(config, files, *, is_training):
    return 0.01 if is_training else 0.001


def times(*options):
    read = read_options([*defaults(), "num_processes=1", "num_workers=2", *options])
    lines = time_lines(resolve(read, UserPaths(Path())), read)
    return {name: text.strip() for name, _, text in (line.strip().partition(" ") for line in lines)}


def test_a_first_run_of_the_demo_rests_on_steps_measured_now(project):
    # An epoch: 5,000 utterances of 2 ms, and 1,250 of dev, a third of it for their length.
    # Features: 11,250 s of audio of 10 ms and 6,094 of 1 ms, in two processes.
    # Scores: twice 6,094 s of 2 ms, five times, and the features of one of them.
    found = times()
    assert found["student"] == (
        "80 epochs of 11.8 s: 15 min 44 s (a few steps on random data just now)"
    )
    assert found["data"].startswith("59 s for the features of 4.8 h, those of training in 4 copies")
    assert found["data"].endswith("; besides, 5,000 utterances and more are synthesised")
    assert found["results"].startswith("2 min 05 s for the scores of 3.4 h, 5 times")
    assert (
        found["time"]
        == "at least 50 min 18 s; loading, synthesis, tables and pages are not counted"
    )


def test_the_size_of_the_demo_is_that_of_the_synthesiser(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples/hi_xiaowen/local"))
    from corpus_plan import SIZES

    for size, (per_keyword, others) in synthesis_plan.DEMO_SIZES.items():
        train = SIZES[size]["train"]
        assert train.positives == per_keyword
        assert train.sentences + train.confusables + train.noises == others


def test_the_size_of_a_wake_word_is_that_of_the_synthesiser(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples/hi_xiaowen/local"))
    from wake_word_plan import SIZES, train_size

    assert {n: s["train"].positives for n, s in SIZES.items()} == synthesis_plan.TEXT_SIZES
    for positives in (12, 33, 300):
        size = train_size(positives)
        expected = 2 * (positives + size.near_misses) + size.sentences + size.noises
        assert synthesis_plan.wake_word_utterances(2, positives) == expected


def test_a_run_that_has_begun_rests_on_its_own_log(project):
    folder = project / "exp/synth_small/student"
    folder.mkdir(parents=True)
    rows = [{"kind": "cv", "epoch": e, "seconds": s} for e, s in ((-1, 9), (0, 3), (1, 5), (2, 4))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project / "exp/synth_small/stage_times.txt").write_text("4 30\n5 8\n6 20\n4 1\n")
    found = times("student_epochs=7", "base_epochs=1", "teacher_epochs=1", "num_average=1")
    assert found["student"] == (
        "4 epochs of 4.0 s: 16 s (measured in exp/synth_small/student/metrics.jsonl)"
    )
    # Stage 4 was skipped the second time: what counts is the time of its work.
    assert found["results"].startswith("58 s, less what is finished")
    assert found["time"].startswith("at least 2 min 37 s; loading, ")
    assert times("student_epochs=3", "num_average=1")["student"] == "done, 3 epochs"


def test_the_number_of_utterances_of_recordings(project):
    train = project / "own/train"
    train.mkdir(parents=True)
    (train / "wav.scp").write_text("a a.wav\nb b.wav\n")
    options = ("data_dir=own", "keywords=AB", "student_epochs=30", "synth_positives=0")
    assert times(*options)["student"].startswith("30 epochs of 0.0 s: 0 s")
    speech = (*options[:3], "synth_positives=300", "units=letters")
    assert times(*speech)["student"].startswith("30 epochs of 0.0 s: 0 s")
    assert times(*speech)["base"].startswith("30 epochs of 3.0 s: 1 min 30 s")
    assert times(*speech, "synth_for=all")["student"].startswith("30 epochs of 3.0 s: 1 min 30 s")
    (project / "noise").mkdir()
    found = times(*options, "negatives=noise")
    assert found["student"].startswith("30 epochs: 1 min 00 s for every 1,000 utterances")
    assert found["time"] == "unknown"
    # After stage 1 the lists say it, and how long the recordings are.
    lists = project / "data/own/train"
    lists.mkdir(parents=True)
    (lists / "data.list").write_text('{"key": "a", "duration": 2.0}\n' * 3000)
    found = times(*options, "negatives=noise")
    assert found["student"].startswith("30 epochs of 6.0 s: 3 min 00 s")


def test_damaged_lists_and_times_do_not_keep_the_recipe_from_starting(project):
    lists, exp = project / "data/own/train", project / "exp/own"
    lists.mkdir(parents=True)
    exp.mkdir(parents=True)
    (project / "own/train").mkdir(parents=True)
    good = '{"key": "a", "duration": 2.0}\n'
    (lists / "data.list").write_text("[1]\n{}\n" + good * 2997 + good[:9])
    (exp / "stage_times.txt").write_text("4 30\n5 8\n6 20\nx 1\n5\n4 100 2\n")
    found = times("data_dir=own", "keywords=AB", "student_epochs=30")
    assert found["student"].startswith("30 epochs of 6.0 s: 3 min 00 s")
    assert found["results"].startswith("58 s, less what is finished")


def test_a_model_that_is_given_takes_no_time(project):
    teacher = project / "given/teacher/avg_3.pt"
    teacher.parent.mkdir(parents=True)
    teacher.touch()
    shutil.copy("conf/fsmn_ctc_base.yaml", teacher.with_name("config.yaml"))
    found = times("teacher_checkpoint=given/teacher/avg_3.pt", "stop_stage=3")
    assert list(found) == ["time", "student", "data"]
    assert list(times("stop_stage=2")) == ["time", "base", "teacher", "data"]
    several = times("stop_stage=2", "num_teachers=2")
    assert list(several) == ["time", "base", "teacher", "teacher_2", "data"]


def test_stages_that_compute_no_features_and_no_scores_say_so(project):
    speech = "; 5,000 utterances and more are synthesised"
    assert times("stop_stage=0")["data"] == "no features are computed in advance" + speech
    online = times("overlay=conf/overlays/no_cache.yaml")
    assert online["data"] == "no features are computed in advance" + speech
    assert online["student"].endswith("(a few steps and features just now)")
    lists, exp = project / "data/synth_small", project / "exp/synth_small"
    made = ["train/text", "dict/dict.txt", "global_cmvn", *(f"{s}/data.list" for s in SPLITS)]
    for path in [
        *(lists / name for name in made),
        *(exp / model / "avg_30.pt" for model in ("teacher", "student")),
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert times("stage=5", "stop_stage=5")["results"].startswith("nothing is scored; tables")


def test_the_transcript_is_what_the_commands_print_now(monkeypatch):
    monkeypatch.setattr(plan_variables, "time_lines", lambda *_: [])
    written = (ROOT / "examples/DRY_RUNS.md").read_text(encoding="utf-8")
    assert without_times(transcript()) == without_times(written)
