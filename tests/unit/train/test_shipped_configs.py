"""Every YAML file that is shipped loads, and every whole configuration trains a step."""

import math
from pathlib import Path

import pytest

from wekws.bin import train, train_distill
from wekws.config import load_yaml_with_base
from wekws.model.checkpoint import load_model
from wekws.runlog.metrics_reader import read_metrics
from wekws.train.train_config import load_train_config

CONF = Path(__file__).parents[3] / "conf"
PATHS = sorted(CONF.rglob("*.yaml"))
WHOLE = [p for p in PATHS if "type" in load_yaml_with_base(p).get("model", {}).get("backbone", {})]
# A fragment has no whole model: it is made to be laid over a configuration that has one. Plans of
# an ablation and feature teachers have their own tests.
OTHER = {"ablation", "feature_teachers"}
FRAGMENTS = [path for path in PATHS if path not in WHOLE and path.parent.name not in OTHER]
STAGED = [path for path in FRAGMENTS if load_yaml_with_base(path).get("stages")]
TAUGHT = [path for path in FRAGMENTS if {"distill_conf"} == set(load_yaml_with_base(path))]
PRESETS = [path for path in FRAGMENTS if path.parent.name == "presets"]


def name(path):
    return str(path.relative_to(CONF))


def test_there_are_both_kinds():
    assert CONF / "fsmn_ctc_teacher.yaml" in WHOLE
    assert FRAGMENTS


@pytest.mark.parametrize("path", WHOLE, ids=name)
def test_whole_configuration_loads(path):
    experiment = load_train_config(path)
    assert experiment.with_output_dim(20).model.output_dim == 20


@pytest.mark.parametrize("path", FRAGMENTS, ids=name)
def test_fragment_loads_over_a_configuration_and_changes_it(path):
    under = [CONF / "fsmn_ctc_teacher.yaml", CONF / "fsmn_ctc_student_mini.yaml"]
    assert any(load_train_config(c, overlays=[path]) != load_train_config(c) for c in under)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("path", WHOLE, ids=name)
def test_whole_configuration_trains_a_step(path, tone_corpus, cache_dir, tmp_path):
    flags = {
        "config": path,
        "train_data": tone_corpus.train_list,
        "cv_data": tone_corpus.dev_list,
        "dict": tone_corpus.dict_path,
        "keywords_file": tone_corpus.keywords_path,
        "cmvn_file": tone_corpus.cmvn_path,
        "cache_dir": cache_dir,
        "model_dir": tmp_path / "run",
        "device": "cpu",
        "num_workers": 0,
        "num_threads": 1,
        "override": "training_config.max_epoch=1",
    }
    assert (
        train.main([word for key, value in flags.items() for word in (f"--{key}", str(value))]) == 0
    )
    steps = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "step"]
    assert [row["step"] for row in steps] == [1]
    assert math.isfinite(steps[0]["loss"]) and steps[0]["grad_norm"] > 0
    assert load_model(tmp_path / "run" / "final.pt").config.output_dim == 5


@pytest.mark.parametrize("path", STAGED, ids=name)
def test_stages_are_written_for_as_many_epochs_as_they_have_and_train(
    path, train_arguments, teacher, tmp_path
):
    content = load_yaml_with_base(path)
    stages = content["stages"]
    assert content["training_config"]["max_epoch"] == sum(stage["epochs"] for stage in stages)
    flags = [*train_arguments, "--overlay", str(path), "--init_from_teacher"]
    flags += ["--teacher_checkpoint", str(teacher / "final.pt"), "--model_dir", str(tmp_path / "x")]
    flags += ["--override", f"training_config.max_epoch={len(stages)}"]
    assert train_distill.main(flags) == 0
    rows = [row for row in read_metrics(tmp_path / "x") if row["kind"] == "stage"]
    assert [(row["name"], row["epoch"]) for row in rows] == [
        (stage["name"], i) for i, stage in enumerate(stages)
    ]


@pytest.mark.parametrize("path", TAUGHT, ids=name)
def test_a_way_of_distilling_trains_a_step_and_logs_its_terms(
    path, train_arguments, teacher, request, tmp_path
):
    flags = [*train_arguments, "--overlay", str(path), "--model_dir", str(tmp_path / "run")]
    flags += ["--teacher_checkpoint", str(teacher / "final.pt")]
    if path.stem == "embedding":
        flags += ["--feature_teacher", request.getfixturevalue("feature_teacher")]
    assert train_distill.main([*flags, "--override", "training_config.max_epoch=1"]) == 0
    row = next(row for row in read_metrics(tmp_path / "run") if row["kind"] == "step")
    names = [n for n, v in load_yaml_with_base(path)["distill_conf"].items() if "weight" in v]
    assert names and all(math.isfinite(row[name]) for name in (*names, "loss"))


@pytest.mark.parametrize("path", PRESETS, ids=name)
def test_a_preset_trains(path, train_arguments, teacher, tmp_path):
    flags = [*train_arguments, "--overlay", str(path), "--model_dir", str(tmp_path / "x")]
    flags += ["--teacher_checkpoint", str(teacher / "final.pt")]
    assert train_distill.main([*flags, "--override", "training_config.max_epoch=1"]) == 0
    steps = [row for row in read_metrics(tmp_path / "x") if row["kind"] == "step"]
    assert math.isfinite(steps[-1]["loss"]) and math.isfinite(steps[-1]["kd"])
    sizes = load_model(tmp_path / "x" / "final.pt").config.backbone
    assert sizes.linear_dim == load_yaml_with_base(path)["model"]["backbone"]["linear_dim"]
