import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from wekws.bin import ablate, presets, run_variant, train
from wekws.errors import ConfigError, DataError
from wekws.files import file_lock
from wekws.sweep import grid, plan_table
from wekws.sweep.grid import RunDevice, available_devices


@pytest.fixture(scope="module")
def place(tone_corpus, tmp_path_factory):
    """Lists as the recipe leaves them, a teacher of one epoch, and a plan of two variants."""
    root = tmp_path_factory.mktemp("ablate")
    for split, path in (
        ("train", tone_corpus.train_list),
        ("dev", tone_corpus.dev_list),
        ("test", tone_corpus.dev_list),
    ):
        (root / "lists" / split).mkdir(parents=True)
        shutil.copy(path, root / "lists" / split / "data.list")
    (root / "lists/dict").mkdir()
    shutil.copy(tone_corpus.dict_path, root / "lists/dict/dict.txt")
    shutil.copy(tone_corpus.keywords_path, root / "lists/dict/keywords.txt")
    flags = {
        "config": tone_corpus.config_path,
        "train_data": tone_corpus.train_list,
        "cv_data": tone_corpus.dev_list,
        "dict": tone_corpus.dict_path,
        "keywords_file": tone_corpus.keywords_path,
        "cmvn_file": tone_corpus.cmvn_path,
        "cache_dir": root / "lists/cache",
        "model_dir": root / "teacher",
        "device": "cpu",
        "num_threads": 1,
        "override": "training_config.max_epoch=1",
    }
    train.main([text for name, value in flags.items() for text in (f"--{name}", str(value))])
    plan = {
        "question": "does the teacher help",
        "student_config": str(tone_corpus.config_path),
        "axes": {"alpha": {"key": "distill_conf.alpha", "values": [0.3, 1.0]}},
        "epochs": 1,
        "seeds": [1],
        "num_average": 1,
    }
    (root / "plan.yaml").write_text(yaml.safe_dump(plan))
    return root


def run(place, *flags):
    return ablate.main(
        [
            *("--plan", str(place / "plan.yaml"), "--lists", str(place / "lists")),
            *("--teacher_checkpoint", str(place / "teacher/final.pt")),
            *("--out_dir", str(place / "out"), "--num_jobs", "2", *flags),
        ]
    )


def stamps(place):
    return {p: p.stat().st_mtime_ns for p in place.glob("out/runs/*/test_avg_1/summary.json")}


def test_a_plan_ends_in_a_table_and_goes_on_where_it_stopped(place, capsys):
    assert run(place, "--list") == 0
    assert "2 runs, 2 to do" in capsys.readouterr().out
    assert run(place) == 0
    table = (place / "out/plan/table.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[:5] == ["variant", "---", "teacher", "0.3", "1.0"]
    assert f"python -m wekws.bin.ablate --plan {place / 'plan.yaml'} --lists {place}" in table
    assert "--num_jobs 2" in table
    figures = json.loads((place / "out/plan/figures.json").read_text())
    assert [group["name"] for group in figures["groups"]] == ["teacher", "0.3", "1.0"]
    assert figures["groups"][1]["losses_end"] != figures["groups"][2]["losses_end"]
    assert (place / "out/plan/plot.png").stat().st_size > 10_000
    # Single epochs and what only a resume needs are gone.
    assert sorted({path.name for path in place.glob("out/runs/*/*.pt")}) == ["avg_1.pt", "final.pt"]

    before = stamps(place)
    shutil.rmtree(sorted(place.glob("out/runs/*"))[0])
    assert len(stamps(place)) == 1
    assert run(place) == 0
    after = stamps(place)
    assert after.keys() == before.keys()
    assert sum(after[path] == before[path] for path in before) == 1  # the other was not done again


def test_runs_can_be_scored_on_another_test_set(place):
    assert run(place, "--seeds", "3") == 0
    shutil.copytree(place / "lists", place / "longer", dirs_exist_ok=True)
    interrupted = next(place.glob("out/runs/*_3/dev_avg_1/score.json"))
    interrupted.unlink()
    assert run(place, "--seeds", "3", "--test_lists", str(place / "longer")) == 0
    figures = json.loads((place / "out/plan_longer/figures.json").read_text())
    same = json.loads((place / "out/plan/figures.json").read_text())
    assert figures["groups"] == same["groups"]  # it is the same set here
    assert interrupted.exists()
    for folder in place.glob("out/runs/*_3"):
        assert (folder / "longer_avg_1/summary.json").exists()
        assert (folder / "run.log").read_text().count("epoch=0 lr=") == 1  # trained once


def presets_of(place):
    folder = place / "presets"
    folder.mkdir(exist_ok=True)
    for name in ("0.3", "1.0", "later"):
        (folder / f"{name}.yaml").write_text("training_config: {max_epoch: 1}\n")
    return folder


def test_presets_in_one_table_from_an_ablation(place, capsys):
    assert run(place) == 0
    flags = ["results", "--preset_dir", str(presets_of(place))]
    capsys.readouterr()
    assert presets.main([*flags, "--exp_dir", str(place / "out/plan")]) == 0
    shown = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in shown.splitlines() if line.startswith("| ")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[1:]}
    assert list(cells) == ["---", "0.3", "1.0"]
    runs, parameters, compression, speed_up, epochs, seconds, frr, teacher, gap = cells["0.3"]
    # The student has the teacher's sizes.
    assert (runs, compression, epochs) == ("1", "1.0 x", "1")
    assert (
        int(parameters.replace(",", "")) > 0 and speed_up.endswith(" x") and seconds.endswith(" s")
    )
    assert all(" to " in cell for cell in (frr, teacher, gap))
    assert "Not trained yet: `bash run_distill.sh --preset later`; add the options" in shown
    speed = json.loads(next(place.glob("out/runs/*/speed.json")).read_text())
    assert speed["teacher"]["checkpoint"] == str(place / "teacher/final.pt")


def test_presets_in_one_table_from_the_recipe(place, tmp_path, capsys):
    assert run(place) == 0
    run_dirs = json.loads((place / "out/plan/figures.json").read_text())["runs"]
    exp = tmp_path / "exp/name"
    shutil.copytree(next(place.glob("out/teacher_*")) / "test", exp / "teacher/test_final")
    for student in ("student_0.3", "student_0.3_2"):
        shutil.copytree(run_dirs["0.3"][0], exp / student)
    flags = ["results", "--preset_dir", str(presets_of(place)), "--exp_dir", str(exp)]
    capsys.readouterr()
    assert presets.main(flags) == 0
    shown = capsys.readouterr().out
    assert "| 0.3 | 2 |" in shown and "--preset 1.0`, `bash run_distill.sh --preset later`" in shown
    with pytest.raises(DataError, match="no scored run of a preset.*run_distill.sh --preset 0.3"):
        presets.main([*flags[:-1], str(tmp_path)])
    with pytest.raises(ConfigError, match="--budget 0.5,1: expected one number"):
        presets.main([*flags, "--budget", "0.5,1"])
    with pytest.raises(ConfigError, match="results: needs --exp_dir"):
        presets.main(flags[:-2])


def test_sizes_are_plotted_over_the_number_of_parameters(place, monkeypatch):
    drawn = []
    monkeypatch.setattr(plan_table, "plot_sizes", lambda variants, *_, **__: drawn.append(variants))
    plan = yaml.safe_load((place / "plan.yaml").read_text()) | {"plot_by_size": True}
    (place / "sizes.yaml").write_text(yaml.safe_dump(plan))
    assert run(place, "--plan", str(place / "sizes.yaml")) == 0
    assert [v.name for v in drawn[0]] == ["teacher", "0.3", "1.0"]
    assert all(v.params for v in drawn[0])


def test_a_run_that_fails_is_named_with_its_log(place, capsys):
    (place / "lists/test/data.list").rename(place / "moved")
    try:
        message = r"2 of 2 runs failed.*data.list: No such file.*\ntheir logs:\n  0.3: .*run.log"
        with pytest.raises(DataError, match=message):
            run(place, "--seeds", "7")
    finally:
        (place / "moved").rename(place / "lists/test/data.list")
    assert "data.list" in next(place.glob("out/runs/*_7/run.log")).read_text()


def test_a_plan_may_ask_for_a_second_teacher(place):
    plan = yaml.safe_load((place / "plan.yaml").read_text())
    plan["axes"] = {
        "teachers": {"options": {"one": {"num_teachers": 1}, "two": {"num_teachers": 2}}}
    }
    plan["seeds"] = [5]
    (place / "teachers.yaml").write_text(yaml.safe_dump(plan))
    flags = ["--plan", str(place / "teachers.yaml")]
    with pytest.raises(ConfigError, match="two: 2 teachers; --teacher_checkpoint gives 1"):
        run(place, *flags)
    assert run(place, *flags, "--teacher_checkpoint", str(place / "teacher/0.pt")) == 0
    figures = json.loads((place / "out/teachers/figures.json").read_text())
    names = [group["name"] for group in figures["groups"]]
    assert names == ["teacher 1", "teacher 2", "one", "two", "CTC alone"]
    num_teachers = {
        name: len(json.loads((Path(dirs[0]) / "run.json").read_text())["teachers"])
        for name, dirs in figures["runs"].items()
    }
    assert num_teachers == {"one": 1, "two": 2, "CTC alone": 1}


def test_a_plan_may_start_from_a_model_that_does_not_teach(place):
    plan = yaml.safe_load((place / "plan.yaml").read_text()) | {"add_undistilled": False}
    plan["axes"] = {
        "start": {"options": {"base": {"teacher": 1, "start": 2}, "own": {"teacher": 1}}}
    }
    plan["seeds"] = [9]
    (place / "start.yaml").write_text(yaml.safe_dump(plan))
    # The base after output surgery has no keywords.txt beside it.
    (place / "base_init").mkdir()
    for name in ("0.pt", "config.yaml", "dict.txt"):
        shutil.copy(place / "teacher" / name, place / "base_init" / name)
    flags = ["--plan", str(place / "start.yaml")]
    assert run(place, *flags, "--teacher_checkpoint", str(place / "base_init/0.pt")) == 0
    figures = json.loads((place / "out/start/figures.json").read_text())
    records = {
        name: json.loads((Path(dirs[0]) / "run.json").read_text())
        for name, dirs in figures["runs"].items()
    }
    assert len(records["base"]["teachers"]) == 1
    assert records["base"]["start_fingerprint"] and not records["own"]["start_fingerprint"]


def test_training_in_bfloat16_is_another_run(place, capsys):
    assert run(place, "--seeds", "8", "--list") == 0
    usual = capsys.readouterr().out
    assert run(place, "--seeds", "8", "--list", "--bf16") == 0
    assert usual != capsys.readouterr().out


def test_variants_with_and_without_a_feature_teacher(place, feature_teacher):
    plan = yaml.safe_load((place / "plan.yaml").read_text())
    taught = {"settings": {"distill_conf": {"embedding": {"weight": 0.5}}}}
    plan |= {"axes": {"embeddings": {"options": {"none": {}, "taught": taught}}}, "seeds": [6]}
    (place / "embeddings.yaml").write_text(yaml.safe_dump(plan))
    flags = ["--plan", str(place / "embeddings.yaml")]
    with pytest.raises(ConfigError, match="taught: needs --feature_teacher"):
        run(place, *flags)
    assert run(place, *flags, "--feature_teacher", feature_teacher) == 0
    figures = json.loads((place / "out/embeddings/figures.json").read_text())
    used = {
        name: json.loads((Path(dirs[0]) / "run.json").read_text())["feature_teacher"]
        for name, dirs in figures["runs"].items()
    }
    assert used == {"none": "", "taught": feature_teacher, "CTC alone": ""}


def test_two_processes_do_not_work_on_one_run(tmp_path):
    with open(tmp_path / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process works on it"):
            run_variant.main(["--run_dir", str(tmp_path)])


def test_a_folder_without_recordings_is_refused_before_the_first_run(place, tmp_path):
    augmentation = {"noise_prob": 0.5, "noise_dir": {str(tmp_path / "hum"): 2}}
    settings = {"dataset_conf": {"augment_conf": augmentation}}
    plan = yaml.safe_load((place / "plan.yaml").read_text())
    plan["axes"] = {"noise": {"options": {"none": {}, "hum": {"settings": settings}}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(DataError, match="hum: no .wav"):
        run(place, "--plan", str(tmp_path / "plan.yaml"), "--out_dir", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--lexicon", "--overlay"])
def test_a_missing_file_is_named_before_the_first_run(place, tmp_path, flag):
    missing = str(tmp_path / "nope.txt")
    with pytest.raises(ConfigError, match=f"{flag} .*nope.txt: no such file"):
        run(place, flag, missing, "--out_dir", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_no_run_begins_after_an_interrupt(monkeypatch):
    """Ctrl-C ends the runs that are going on, and none of those that wait is begun."""

    class Process:
        exitcode = 0

        def __init__(self, number):
            self.number, self._ended = number, threading.Event()

        def start(self):
            begun.append(self.number)
            if self.number != 2:
                self._ended.set()

        def join(self):
            self._ended.wait()

        def terminate(self):
            ended.append(self.number)
            self._ended.set()

    begun, ended = [], []
    runs = [SimpleNamespace(is_done=False, number=number) for number in (1, 2, 3)]
    monkeypatch.setattr(
        grid, "_run_one", lambda run, free, processes: processes.run(Process(run.number)) == 0
    )
    ends = grid.run_all(runs, [grid.RunDevice(None, 1)])
    assert next(ends).number == 1
    ends.close()
    assert begun[:1] == [1] and 3 not in begun and ended in ([], [2])


def test_a_run_ends_when_the_ablation_is_killed(tmp_path):
    """The run waits at a pipe, in place of hours of training, and holds its folder's lock."""
    os.mkfifo(tmp_path / "variant.yaml")
    pipe = os.open(tmp_path / "variant.yaml", os.O_RDWR)  # never ends
    code = f"""
import multiprocessing, os, pathlib, signal, time
from wekws.sweep import grid
folder = pathlib.Path({str(tmp_path)!r})
arguments = (folder, grid.RunDevice(None, 1))
context = multiprocessing.get_context("forkserver")
context.Process(target=grid._run_in_process, args=arguments).start()
while not (folder / "lock").exists():
    time.sleep(0.1)
os.kill(os.getpid(), signal.SIGTERM)
"""
    parent = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert parent.returncode == -signal.SIGTERM
    for _ in range(100):
        with contextlib.suppress(BlockingIOError), file_lock(tmp_path / "lock", wait=False):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the run goes on without its ablation")
    os.close(pipe)


def test_a_failure_is_told_by_the_last_line_of_its_log(monkeypatch, tmp_path):
    (tmp_path / grid.LOG_NAME).write_text("INFO reading\nerror: other tokens\n")
    job = SimpleNamespace(variant="a")
    run = SimpleNamespace(is_done=False, run_dir=tmp_path, job=job)
    monkeypatch.setattr(grid, "_run_one", lambda *_: False)
    with pytest.raises(DataError, match="1 of 1 runs failed, the first with: error: other tokens"):
        list(grid.run_all([run], [grid.RunDevice(None, 1)]))


def test_devices_are_shared_by_the_jobs(monkeypatch):
    monkeypatch.setattr("wekws.sweep.grid.usable_cores", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert available_devices(0) == [RunDevice(None, 1)] * 4
    assert available_devices(2) == [RunDevice(None, 2)] * 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert available_devices(0) == [RunDevice(0, 1), RunDevice(1, 1)]
    assert [device.gpu for device in available_devices(3)] == [0, 0, 0, 1, 1, 1]


def test_a_negative_number_of_jobs(place):
    with pytest.raises(ConfigError, match="--num_jobs -1: expected >= 0"):
        run(place, "--num_jobs", "-1")
