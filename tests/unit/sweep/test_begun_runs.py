"""Runs that have begun with other settings are refused in the plan."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from dry_runs import ROOT, defaults

from wekws.bin import plan_recipe
from wekws.config import to_mapping
from wekws.errors import ConfigError
from wekws.report.training_again import longer_teacher_flags
from wekws.shell import UserPaths
from wekws.sweep.begun_runs import require_resumable
from wekws.sweep.recipe_options import read_options
from wekws.sweep.resolve_recipe import resolve
from wekws.train.run_record import model_fingerprint
from wekws.yaml_files import write_yaml

LENGTHS = ("base_epochs=2", "teacher_epochs=4", "student_epochs=4", "num_average=2", "bf16=false")
EXP = Path("exp/synth_small")
# Blank, filler, the five characters of the keywords and two of the text.
TOKENS = "<blank> <filler> 嗨 小 问 你 好 上 早".split()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Folder in which base, teacher and student have been trained as LENGTHS says."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    options = read_options([*defaults(), *LENGTHS, "num_processes=1"])
    plan = resolve(options, UserPaths(Path()))
    for folder, length in (("base", plan.base), ("teacher", plan.teacher)):
        write_run(EXP / folder, length, start="checkpoint")
    plan.teacher_checkpoint.write_bytes(b"teacher")
    fingerprints = [model_fingerprint(plan.teacher_checkpoint)]
    named = {"teachers": [str(plan.teacher_checkpoint)], "teacher_fingerprints": fingerprints}
    write_run(EXP / "student", plan.student, start="teacher", **named)
    lists = Path("data/synth_small")
    for folder in (lists / "train", lists / "dict"):
        folder.mkdir(parents=True)
    (lists / "train/text").write_text("a 早上\nb 早上\n", encoding="utf-8")
    write_dict(lists / "dict/dict.txt")
    return tmp_path


def write_dict(path):
    path.write_text("".join(f"{t} {i}\n" for i, t in enumerate(TOKENS)), encoding="utf-8")


def write_run(folder, length, **record):
    folder.mkdir(parents=True)
    write_yaml(folder / "config.yaml", to_mapping(length.config.with_output_dim(len(TOKENS))))
    (folder / "run.json").write_text(json.dumps({"seed": 777, "bf16": False, **record}))
    write_dict(folder / "dict.txt")
    state = {"epoch": length.epochs - 1, "step": 9}
    state |= {"optimizer": {}, "learning_rate": {}, "objective": {}, "hooks": {}}
    torch.save(state, folder / "train_state.pt")


def check(*given):
    options = read_options([*defaults(), *LENGTHS, "num_processes=1", *given])
    plan = resolve(options, UserPaths(Path()))
    require_resumable(plan, options, plan.tokens.vocabulary(options, plan.lists))


def test_the_same_options_go_on(project):
    check()
    check("student_epochs=6", "device=cpu", "note=again", "budgets=2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["alpha=0.9"], "student: holds a student with other settings: distill_conf.alpha; give "
         "--student_name NAME for another student of the same teacher"),
        (["student_overlay=conf/overlays/gate.yaml"], "distill_conf.hidden.gate.openness"),
        (["student_config=conf/fsmn_ctc_student_mid.yaml"], "model.backbone.num_layers"),
        (["init_from_teacher=false"], "other settings: --init_from_teacher"),
        (["seed=3"], "base: holds a base with other settings: --seed; give --name NAME for an "
         "experiment of its own, --stage 3 to leave base and teacher as they are"),
        (["bf16=true"], "teacher: holds a teacher with other settings: --bf16; give --name NAME"),
        (["overlay=none"], "base: holds a base with other settings: dataset_conf.augment_conf"),
        (["num_tokens=8"], "the tokens (--keywords, --num_tokens, --units or --lexicon)"),
        (["keywords=你好问问"], "the tokens (--keywords, --num_tokens, --units or --lexicon)"),
        (["student_epochs=3"], "student: has 4 epochs, more than the 3 of --student_epochs; give "
         "--student_epochs 4, or --student_name NAME"),
        (["base_epochs=9"], "teacher: began from exp/synth_small/base after 2 epochs, which would "
         "be trained to 9 now (--base_epochs); give --base_epochs 2, or --name NAME"),
        (["num_average=1"], "student: holds a student of exp/synth_small/teacher/avg_2.pt, not of "
         "exp/synth_small/teacher/avg_1.pt; give --student_name NAME"),
        (["teacher_epochs=9"], "student: its teacher has 4 epochs and would be trained to 9 now "
         "(--teacher_epochs), which makes it another one; give --teacher_epochs 4, or "
         "--student_name NAME for a student of the longer teacher, or keep both teachers with "
         "`--name synth_small_9_epochs --teacher_epochs 9`, besides your other options"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_with_the_option_to_type(project, given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(*given)


def test_the_advice_works(project):
    for given in (
        ["alpha=0.9", "student_name=b"],
        ["student_overlay=conf/overlays/gate.yaml", "student_name=b"],
        ["teacher_epochs=9", "student_name=b"],
        ["teacher_epochs=9", "stop_stage=2"],
        ["alpha=0.9", "preset=balanced", "student_epochs=4"],
    ):
        check(*given)
    (EXP / "base/final.pt").touch()
    words = shlex.split(longer_teacher_flags(EXP, 9))
    check(*(f"{k[2:]}={v}" for k, v in zip(words[::2], words[1::2], strict=True)))


def test_the_plan_itself_refuses(project):
    with pytest.raises(ConfigError, match="holds a student with other settings"):
        plan_recipe.main(["--", *defaults(), *LENGTHS, "num_processes=1", "alpha=0.9"])


def test_a_teacher_whose_weights_have_changed_is_another_one(project):
    (EXP / "teacher/avg_2.pt").write_bytes(b"longer")
    with pytest.raises(ConfigError, match="holds a student of exp/synth_small/teacher/avg_2.pt"):
        check()
