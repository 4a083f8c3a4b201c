"""What later stages would refuse is refused in the plan."""

import json
import re
import shutil
from pathlib import Path

import pytest
from dry_runs import ROOT, defaults, write_model, write_noise, write_recordings

from wekws.bin import check_budgets, plan_recipe
from wekws.errors import ConfigError, DataError
from wekws.sweep import plan_variables


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Folder with the shipped configurations."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_variables, "time_lines", lambda *_: [])
    return tmp_path


def check(*options):
    return plan_recipe.main(["--", *defaults(), "num_processes=1", *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["student_overlay=conf/overlays/embedding.yaml"], "--feature_teacher: missing; a term of "
         "the student has its outputs as targets (distill_conf); give it, or leave out"),
        (["overlay=conf/overlays/embedding.yaml"], "--feature_teacher: missing; a term of the tea"),
        (["data_dir=mine", "keywords=JARVIS"], "--data_dir mine: has no dev/wav.scp, "
         "dev/text, test/wav.scp, test/text; expected {train,dev,test}/{wav.scp,te"),
        (["data_dir=mine", "size=tiny"], "--size tiny: is of the synthesised corpus, there is none "
         "with --data_dir; leave it out"),
        (["corpus=mobvoi", "size=tiny"], "--size tiny: is of the synthesised corpus"),
        (["baseline=mine"], "--baseline mine: neither metrics.jsonl nor test_*/summary.json; "),
        (["overlay=conf/overlays/stages_three.yaml", "preset=balanced"], "--overlay "
         "conf/overlays/stages_three.yaml: has stages of distillation (`stages`), and an overlay "
         "is laid over base and teacher too, which have no teacher; give it with --student_ov"),
    ],
)  # fmt: skip
def test_it_is_refused_before_the_first_stage(project, options, message):
    write_recordings(project / "mine/train", 2)
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(*options)


def test_a_folder_of_negatives_without_audio_is_refused_before_the_first_stage(project):
    (project / "tv").mkdir()
    with pytest.raises(DataError, match="--negatives .*tv: no audio in it; expected wav.scp, or"):
        check("negatives=tv")
    assert check("negatives=tv", "stop_stage=-2") == 0


def test_recordings_are_not_needed_after_the_lists_are_made(project, capsys):
    for split in ("train", "dev", "test"):
        write_recordings(project / "mine" / split, 2)
    write_noise(project / "mine/u.wav", 0.5)
    assert check("data_dir=mine", "keywords=JARVIS", "units=letters") == 0


@pytest.fixture
def recordings(project):
    """Folder of six recordings in the Kaldi layout, with JARVIS and SMART MIRROR in each split."""
    for split in ("train", "dev", "test"):
        write_recordings(project / "mine" / split, 2)
    write_noise(project / "mine/u.wav", 0.5)
    return project / "mine"


def check_recordings(keywords="JARVIS", **options):
    given = [f"{name}={value}" for name, value in options.items()]
    return check("data_dir=mine", f"keywords={keywords}", "units=letters", "overlay=none", *given)


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("train/text", "u0 JARVSI\nu1 x\n",
         "train/text: no transcript contains JARVIS (--keywords); did you mean 'JARVSI'?"),
        ("test/wav.scp", "", "test/wav.scp: no recordings; expected `id path` lines"),
        ("dev/wav.scp", "u0 gone.wav\nu1 gone.wav\n", "dev/wav.scp: none of 2 files can be read: "),
        ("dev/text", "a JARVIS\n", "dev: wav.scp and text have no id in common, such as u0"),
    ],
)  # fmt: skip
def test_recordings_that_are_useless_as_a_whole(recordings, table, text, message):
    (recordings / table).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_recordings()


def test_single_problems_of_recordings_are_left_to_stage_1(recordings):
    (recordings / "dev/wav.scp").write_text("u0 gone.wav\nu1 u.wav\nu2 u.wav\n")
    (recordings / "test/text").write_text("u0 other words\n")
    assert check_recordings() == 0


def test_recordings_are_no_lists_of_the_run(recordings):
    (recordings.parent / "data").mkdir(exist_ok=True)
    (recordings.parent / "data/rec").symlink_to(recordings)
    with pytest.raises(ConfigError, match="mine: is the folder that this run writes its lists to"):
        check_recordings(name="rec")


def test_the_mobvoi_corpus_has_two_keywords(project):
    with pytest.raises(ConfigError, match="--keywords JARVIS: the corpus of --corpus mobvoi has"):
        check("corpus=mobvoi", "keywords=JARVIS")


def test_the_lists_are_of_these_keywords(recordings):
    made = recordings.parent / "data/rec"
    for path in ("train/data.list", "train/text", "dict/dict.txt", "global_cmvn"):
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text("")
    (made / "dict/keywords.txt").write_text("SMART MIRROR\n")
    with pytest.raises(ConfigError, match="--keywords JARVIS: the lists of this run are of SMART"):
        check_recordings(name="rec", stage=1)


def test_options_without_effect_are_named(project, capsys):
    write_model(Path("A.pt"), "fsmn_ctc_teacher.yaml", 20)
    assert check("teacher_checkpoint=A.pt", "teacher_epochs=3", "base_epochs=2") == 0
    assert "ignored   --base_epochs, --teacher_epochs: no effect on a" in capsys.readouterr().out
    assert check("teacher_checkpoint=A.pt") == 0
    assert "ignored" not in capsys.readouterr().out


def test_categories_are_those_of_dev(project):
    lists = project / "data/synth_small"
    for split in ("train", "dev", "test"):
        (lists / split).mkdir(parents=True)
        rows = [{"key": k, "wav": "a.wav", "txt": "<filler>", "duration": 9.0, "category": k}
                for k in ("speech", "music")]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (lists / split / "data.list").write_text(text)
    (lists / "keywords.txt").write_text("嗨小问\n", encoding="utf-8")
    given = ["--lists", str(lists), "--keywords_file", str(lists / "keywords.txt")]
    assert check_budgets.main([*given, "--category_hours", "speech=2"]) == 0
    message = "--category_hours speach: no negatives of this category in .*dev/data.list; there "
    message += "are music, speech; did you mean 'speech'?"
    with pytest.raises(ConfigError, match=message):
        check_budgets.main([*given, "--category_hours", "speach=2"])
