"""Models that the user gives are opened in the plan."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from dry_runs import ROOT, defaults, write_model

from wekws.bin import plan_recipe
from wekws.errors import ConfigError
from wekws.model.checkpoint import load_weights, save_weights
from wekws.sweep import plan_variables

TOKENS = "<blank> <filler> 嗨 小 问 你 好".split()
BASE, TEACHER = Path("given/base.pt"), Path("taught/avg_2.pt")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Folder with lists of seven tokens, a teacher and a base for them, and files that are not."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_variables, "time_lines", lambda *_: [])
    write_model(TEACHER, "fsmn_ctc_teacher.yaml", len(TOKENS))
    write_model(BASE, "fsmn_ctc_teacher.yaml", len(TOKENS) + 2)
    write_dict(TEACHER.with_name("dict.txt"), TOKENS)
    write_dict(BASE.with_name("dict.txt"), [*TOKENS, "早", "上"])
    write_dict(Path("other.txt"), [*TOKENS, "晚", "上"])
    lists = Path("data/synth_small")
    for folder in ("train", "dict"):
        (lists / folder).mkdir(parents=True)
    (lists / "train/text").write_text("a 嗨小问\n", encoding="utf-8")
    write_dict(lists / "dict/dict.txt", TOKENS)
    Path("fake.pt").write_text("not a model")
    for suffix in ("pt", "onnx"):
        (TEACHER.parent / f"fake.{suffix}").write_text("not a model")
    return tmp_path


def write_dict(path, tokens):
    path.write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf-8")


def check(*options):
    return plan_recipe.main(["--", *defaults(), "num_processes=1", *options])


def test_models_that_fit_are_taken(project):
    assert check(f"teacher_checkpoint={TEACHER}", f"more_teachers={TEACHER}") == 0
    assert check(f"base_checkpoint={BASE}") == 0
    assert check(f"base_checkpoint={BASE}", f"base_dict={BASE.with_name('dict.txt')}") == 0
    assert check(f"teacher_checkpoint={TEACHER}", "name=new", "num_tokens=9") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["teacher_checkpoint=taught/fake.pt"], "--teacher_checkpoint taught/fake.pt: not a read"),
        (["base_checkpoint=taught/fake.pt"], "--base_checkpoint taught/fake.pt: not a readable"),
        (["teacher_checkpoint=taught/fake.onnx"], "--teacher_checkpoint taught/fake.onnx: is an "
         "ONNX file, which cannot be trained with; give the checkpoint that it was made of"),
        ([f"teacher_checkpoint={TEACHER}", f"more_teachers={BASE}"], "--more_teachers "
         "given/base.pt: has 9 tokens, among them '早'; the run's dictionary has 7; give the "
         "--keywords, --num_tokens and --lexicon that the teacher was trained with"),
        ([f"base_checkpoint={BASE}", "base_dict=fake.pt"], "--base_dict fake.pt: does not fit"),
        ([f"teacher_checkpoint={TEACHER}", "name=new", "keywords=早上好"], "--teacher_checkpoint "
         "taught/avg_2.pt: has no output for 早, 上 of the keyword 早上好 (taught/dict.txt); give "
         "the --keywords and --lexicon that it was trained with, or another model"),
        ([f"base_checkpoint={BASE}", "name=new", "keywords=JARVIS", "language=en"], "--base_dict "
         "given/dict.txt: has no output for J, A, R, V, I, S of the keyword JARVIS"),
        ([f"teacher_checkpoint={TEACHER}", f"more_teachers={BASE}", "name=new"], "--more_teachers "
         "given/base.pt: has 9 tokens, among them '早'; the run's dictionary has 7; give the "),
        ([f"base_checkpoint={BASE}", "base_dict=taught/dict.txt", "keywords=嗨早上"],
         "--base_dict taught/dict.txt: does not fit given/base.pt"),
        ([f"base_checkpoint={BASE}", "base_dict=other.txt"],
         "--base_dict other.txt: does not fit given/base.pt: output 7 is '晚', but '早' in "
         "given/dict.txt; leave --base_dict out"),
        ([f"base_checkpoint={BASE}", "teacher_config=conf/fsmn_ctc_student_mini.yaml"],
         "--base_checkpoint given/base.pt: is not of the sizes in conf/fsmn_ctc_student_mini.yaml; "
         "give its configuration with --teacher_config"),
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused(project, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(*options)


def test_teachers_take_the_same_features(project):
    weights = load_weights(TEACHER)
    weights["global_cmvn.mean"] += 1
    other = TEACHER.with_name("other.pt")
    save_weights(weights, other)
    with pytest.raises(ConfigError, match="normalise features differently"):
        check(f"teacher_checkpoint={TEACHER}", f"more_teachers={other}")
    config = TEACHER.with_name("config.yaml")
    config.write_text(config.read_text("utf-8").replace("frame_skip: 3", "frame_skip: 2"), "utf-8")
    with pytest.raises(ConfigError, match="taught/avg_2.pt: .*frame_skip 2; the student's has"):
        check(f"teacher_checkpoint={TEACHER}")
    save_weights({"only": torch.zeros(1)}, TEACHER)
    with pytest.raises(ConfigError, match="--teacher_checkpoint taught/avg_2.pt"):
        check(f"teacher_checkpoint={TEACHER}")


def test_a_number_of_tokens_that_no_stage_makes_is_named(project, capsys):
    write_dict(Path("data/synth_small/dict/dict_all.txt"), [*TOKENS, "早", "上"])
    for number in ("9", "all"):
        assert check("stage=1", f"num_tokens={number}") == 0
        message = f"ignored   --num_tokens {number}: data/synth_small/dict/dict.txt has 7 tokens"
        assert message in capsys.readouterr().out
    for options in (("stage=1", "num_tokens=7"), ("num_tokens=9",)):
        assert check(*options) == 0
        assert "ignored" not in capsys.readouterr().out
