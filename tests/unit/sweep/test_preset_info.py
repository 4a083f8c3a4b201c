"""Presets: their numbers, what they cost, how they are asked for."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml

from wekws.config import load_yaml_with_base, parse_section
from wekws.dataset.dataset_conf import FilterConfig
from wekws.distill.methods import build_objective
from wekws.errors import ConfigError
from wekws.model.model_conf import ModelConfig, read_model_config
from wekws.sweep.preset_files import find_preset, preset_paths, preset_purpose
from wekws.sweep.preset_info import (
    Corpus,
    PresetContext,
    choose,
    format_presets,
    preset_info,
    preset_infos,
    preset_row,
    read_corpus,
)
from wekws.sweep.step_time import StepTimer
from wekws.train.optimizer import make_optimizer
from wekws.train.train_config import load_train_config

CONF = Path(__file__).parents[3] / "conf"
PRESETS = CONF / "presets"
TEACHER = CONF / "fsmn_ctc_teacher.yaml"
STUDENT = CONF / "fsmn_ctc_student_mini.yaml"
TIMER = StepTimer(torch.device("cpu"))

# The source's table: epochs, batch, lr, temperature, weight of the labels, accumulation, width in
# percent of the teacher's, longest label. A temperature or weight of None is not the preset's.
TABLE = {
    "quick": (3, 64, 2e-3, None, None, 1, 60, 16),
    "conservative": (30, 16, 5e-4, 4.0, 0.2, 1, 60, 28),
    "balanced": (50, 32, 1e-3, 3.5, 0.25, 2, 50, 24),
    "aggressive": (80, 24, 8e-4, 5.0, 0.15, 3, 35, 24),
    "quality": (100, 16, 3e-4, 4.5, 0.2, 4, 55, 32),
}


PURPOSES = {"a": "for a test", "balanced": "for most"}


@pytest.mark.parametrize("name", TABLE)
def test_the_numbers_are_the_sources(name):
    epochs, batch, lr, temperature, alpha, accumulation, _, longest = TABLE[name]
    usual = load_train_config(STUDENT)
    preset = load_train_config(STUDENT, overlays=[PRESETS / f"{name}.yaml"])
    assert preset.training_config.max_epoch == epochs
    assert preset.training_config.accum_grad == accumulation
    assert preset.dataset_conf.batch_conf.batch_size == batch
    assert preset.dataset_conf.filter_conf.max_label_length == longest
    assert preset.dataset_conf.filter_conf.data_share == (0.1 if name == "quick" else 1.0)
    assert preset.optim_conf.lr == lr
    if name == "quality":
        assert (preset.optim, preset.optim_conf.weight_decay) == ("adamw", 0.02)
    else:
        assert (preset.optim, preset.optim_conf) == (
            "adam", type(usual.optim_conf)(lr=lr, weight_decay=usual.optim_conf.weight_decay),
        )  # fmt: skip
    conf = preset.distill_conf
    assert conf.temperature == (temperature or usual.distill_conf.temperature)
    assert conf.alpha == (alpha or usual.distill_conf.alpha)


@pytest.mark.parametrize("name", TABLE)
def test_widths_are_the_stated_share_of_the_teachers(name):
    path = PRESETS / f"{name}.yaml"
    said = re.sub(r"\n# ", " ", path.read_text())
    share = int(re.search(r"Every width is (\d+) % of the teacher's", said)[1])
    assert share == TABLE[name][6]
    teacher = load_yaml_with_base(TEACHER)["model"]["backbone"]
    widths = load_yaml_with_base(path)["model"]["backbone"]
    assert widths == {
        # To the nearest multiple of 8, halves upwards.
        key: 8 * ((share * teacher[key] + 400) // 800)
        for key in ("input_affine_dim", "linear_dim", "proj_dim", "output_affine_dim")
    }


def test_the_shortest_training_is_quick_and_no_other_preset_is_there():
    assert list(preset_paths(PRESETS)) == list(TABLE)  # the shortest first
    assert find_preset(PRESETS, "3") == find_preset(PRESETS, "balanced")
    with pytest.raises(ConfigError, match="--preset balence: .*did you mean 'balanced'"):
        find_preset(PRESETS, "balence")
    with pytest.raises(ConfigError, match="--preset 6: expected one of quick, .*1 to 5, list, ask"):
        find_preset(PRESETS, "6")
    assert preset_purpose(PRESETS / "balanced.yaml") == (
        "The one to start with: a quarter of the teacher's parameters"
    )
    with pytest.raises(ConfigError, match="no presets"):
        preset_paths(CONF / "none")


def test_adamw_takes_its_share_of_a_weight_whatever_the_gradient():
    preset = load_train_config(STUDENT, overlays=[PRESETS / "quality.yaml"])
    layer, gradients = torch.nn.Linear(1, 1, bias=False), (1.0, 1e-3)
    reached = []
    for gradient in gradients:
        with torch.no_grad():
            layer.weight.fill_(0.5)
        objective = build_objective(preset, layer)
        optimizer = make_optimizer(preset, layer, objective)
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        reached.append(layer.weight.item())
    # Adam's first step is lr whatever the gradient; 0.02 * lr of the weight goes beside it.
    assert reached == pytest.approx([0.5 - 3e-4 - 0.02 * 3e-4 * 0.5] * 2, abs=1e-8)


def test_label_cap_and_share_make_the_number_trained_on():
    corpus = Corpus((1.0,) * 10, tuple(range(1, 11)))
    assert corpus.num_trained(FilterConfig()) == 10
    assert corpus.num_trained(FilterConfig(max_label_length=7)) == 7
    assert corpus.num_trained(FilterConfig(max_label_length=7, data_share=0.5)) == 4


@pytest.fixture
def small(tmp_path):
    """A context with models that take no time, and two presets of a batch of two."""
    sizes = {
        "type": "fsmn", "input_affine_dim": 8, "num_layers": 1, "linear_dim": 8, "proj_dim": 4,
        "left_order": 2, "right_order": 1, "output_affine_dim": 8,
    }  # fmt: skip
    student = {"model": {"backbone": sizes}, "dataset_conf": {"batch_conf": {"batch_size": 2}}}
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(student))
    folder = tmp_path / "presets"
    folder.mkdir()
    for name, epochs, parts in (("balanced", 7, 2), ("a", 4, 1)):
        training = {"training_config": {"max_epoch": epochs, "accum_grad": parts}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(training))
    sizes = {**sizes, "linear_dim": 40}
    teacher = parse_section(ModelConfig, {"backbone": sizes}, "teacher")
    return folder, lambda corpus: PresetContext(tmp_path / "student.yaml", (), teacher, 5, corpus)


def test_offers_are_measured_and_multiplied_by_the_corpus(small):
    folder, context = small
    infos = preset_infos(folder, context(Corpus((0.4, 0.6), (2, 3))), TIMER)
    assert [info.name for info in infos] == ["a", "balanced"]
    assert all(0 < info.step_s < 1 for info in infos)
    assert infos[1].training_s == pytest.approx(infos[1].step_s * 2 * 7)
    shown = preset_row(infos[1])
    # 400 * 8 + 8, 8 * 8 + 8; 32 + 12 + 40 of the block; 72 and 45 of the head.
    assert (shown["parameters"], shown["batch"]) == ("3,481", "2 x 2")
    assert (shown["utterances"], shown["data"]) == ("2", "100 %")
    # 3,208; 360; 160 + 12 + 200; 328; 45 of the teacher.
    assert shown["compression"] == f"{(3208 + 360 + 160 + 12 + 200 + 328 + 45) / 3481:.1f} x"
    table = format_presets(infos, PURPOSES)
    assert "of all training steps" in table and table.splitlines()[2].startswith("balanced")
    assert "1 a: for a test\n2 balanced: for most (recommended)" in table
    alone = preset_infos(folder, context(None), TIMER)[0]
    assert alone.training_s == pytest.approx(alone.step_s * 1000 * 4)
    assert "every 1,000 utterances" in format_presets([alone], PURPOSES)


def test_the_whole_time_has_base_and_teacher_unless_the_teacher_is_given(small, tmp_path):
    folder, context = small
    (folder / "quick.yaml").write_text("training_config: {max_epoch: 3}\n")
    first = load_train_config(tmp_path / "student.yaml", ["training_config.max_epoch=20"])
    with_first = dataclasses.replace(context(Corpus((0.4,), (2,))), first_config=first)
    assert with_first.first_epochs("balanced") == 40
    # quick trains 2 and 4 epochs, unless the command line says otherwise.
    assert with_first.first_epochs("quick") == 6
    assert dataclasses.replace(with_first, teacher_epochs=9).first_epochs("quick") == 29
    assert context(None).first_epochs("quick") == 0
    info = preset_info("quick", folder / "quick.yaml", with_first, TIMER, first_step_s=2.0)
    assert info.first_s == 2.0 * 6 * 1
    assert preset_row(info)["whole time"] == "12 s"
    measured = preset_info("quick", folder / "quick.yaml", with_first, TIMER)
    assert 0.0 < measured.first_s < 6.0


def test_a_corpus_is_read_as_training_would(tone_corpus, tmp_path):
    assert read_corpus(tmp_path, None) is None
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "dict.txt").symlink_to(tone_corpus.dict_path)
    (tmp_path / "train").symlink_to(tone_corpus.train_list.parent)
    corpus = read_corpus(tmp_path, None)
    # 嗨小问, 小问, 问小嗨, 嗨, 问嗨小问, four times over; 150 ms a character, 200 around.
    assert corpus.num_labels == (3, 2, 3, 1, 4) * 4
    assert corpus.durations_s[3] == pytest.approx(0.35)


def asked(*lines):
    said, left = [], [f"{line}\n" for line in lines]
    chosen = choose(["quick", "balanced"], lambda: left.pop(0) if left else "", said.append)
    assert not left
    return chosen, "".join(said)


def test_asking_takes_names_numbers_and_the_default():
    assert asked("", "")[0] == "balanced"
    assert asked("quick", "y")[0] == "quick"
    assert asked("1", "yes")[0] == "quick"
    chosen, said = asked("quack", "3", "1", "n", "balanced", "")
    assert chosen == "balanced"
    assert "quack: no such preset" in said and "3: no such preset" in said
    assert "1 quick, 2 balanced [balanced]" in said and "Train quick? [Y/n]" in said


def test_asking_somebody_who_is_gone_ends():
    with pytest.raises(ConfigError, match="no answer"):
        asked("quick")


def test_the_default_is_a_preset():
    assert "balanced" in preset_paths(PRESETS)
    assert read_model_config(TEACHER).backbone.linear_dim == 250
