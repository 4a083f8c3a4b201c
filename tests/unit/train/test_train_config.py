import re
from pathlib import Path

import pytest

from wekws.errors import ConfigError
from wekws.train.train_config import changed_keys, load_distill_config, load_train_config

ROOT = Path(__file__).parents[3]
TEACHER, SPEED = "conf/fsmn_ctc_teacher.yaml", "conf/overlays/speed.yaml"
STUDENT = ROOT / "conf/fsmn_ctc_student_mini.yaml"


def test_overlays_then_overrides_change_a_configuration():
    plain = load_train_config(TEACHER)
    changed = load_train_config(TEACHER, ["dataset_conf.augment_conf.copies=2"], [SPEED])
    assert changed.dataset_conf.augment_conf.copies == 2
    assert changed_keys(plain, changed) == [
        "dataset_conf.augment_conf.copies",
        "dataset_conf.augment_conf.speeds",
    ]


def test_a_problem_names_the_file_and_the_path(tmp_path):
    with pytest.raises(ConfigError, match="^--override optim_conf.lrr=1: optim_conf.lrr: unknown"):
        load_train_config(TEACHER, ["optim_conf.lrr=1"], [SPEED])
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("optim_conf: {lrr: 1}\n")
    with pytest.raises(ConfigError, match="^[^ ]*/overlay.yaml: optim_conf.lrr: unknown"):
        load_train_config(TEACHER, overlays=[SPEED, overlay])


def test_a_front_end_that_makes_another_input_is_refused():
    with pytest.raises(ConfigError, match="model.input_dim is 400 but dataset_conf makes 80"):
        load_train_config(TEACHER, ["dataset_conf.context_expansion=false"])


def test_a_size_follows_the_vocabulary():
    assert load_train_config(TEACHER).with_output_dim(440).model.output_dim == 440


def test_a_cmvn_file_moves_with_its_configuration(tmp_path):
    path = tmp_path / "config.yaml"
    for named in ("/gone/exp/a/global_cmvn.kaldi", "global_cmvn.kaldi"):
        path.write_text(f"base: {ROOT / TEACHER}\nmodel: {{cmvn: {{cmvn_file: {named}}}}}\n")
        assert load_train_config(path).model.cmvn.cmvn_file == named
        (tmp_path / "global_cmvn.kaldi").touch()
        found = load_train_config(path).model.cmvn.cmvn_file
        assert found == str(tmp_path / "global_cmvn.kaldi")
        (tmp_path / "global_cmvn.kaldi").unlink()


def test_an_error_names_the_flag_that_set_the_value():
    with pytest.raises(ConfigError, match=r"^--alpha: distill_conf\.alpha: found 'x'"):
        load_distill_config(STUDENT, alpha="x")
    message = "^--alpha 0.3: --override distill_conf.alpha=0.7 sets it too; leave out one of the"
    with pytest.raises(ConfigError, match=message):
        load_distill_config(STUDENT, ["distill_conf.alpha=0.7"], alpha="0.3")
    config = load_distill_config(STUDENT, alpha="0.3", temperature="4")
    assert (config.distill_conf.alpha, config.distill_conf.temperature) == (0.3, 4.0)


def test_a_list_in_the_place_of_a_mapping_is_shown_what_is_expected():
    message = "expected a mapping, {student: ..., teacher: ...}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_train_config(STUDENT, ["distill_conf.hidden.pairs=[[0,0],[2,3]]"])
