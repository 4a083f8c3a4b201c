"""Training towards a feature teacher, through the commands."""

import dataclasses
import json
import logging

import pytest
import torch

from wekws.bin import train, train_distill
from wekws.errors import ConfigError
from wekws.model.checkpoint import load_model
from wekws.model.model_conf import CMVNConfig
from wekws.runlog.metrics_reader import read_metrics

WEIGHT = ["--override", "distill_conf.embedding.weight=0.5"]


def weights_of(model_dir, name="final.pt"):
    return torch.load(model_dir / name, weights_only=True)


def rows_of(model_dir, kind):
    return [row for row in read_metrics(model_dir) if row["kind"] == kind]


def flags_of(train_arguments, model_dir, *more, epochs=2):
    length = ["--override", f"training_config.max_epoch={epochs}"]
    return [*train_arguments, "--model_dir", str(model_dir), *length, *map(str, more)]


@pytest.mark.parametrize("more", [(), ("dataset_conf.join_prob=0.5",)])
def test_a_base_is_trained_beside_ctc_and_its_checkpoint_holds_nothing_of_it(
    train_arguments, feature_teacher, tmp_path, more
):
    changes = [word for item in more for word in ("--override", item)]
    flags = [*WEIGHT, *changes, "--override", "training_config.gradient_interval=1"]
    taught = flags_of(
        train_arguments, tmp_path / "taught", *flags, "--feature_teacher", feature_teacher, epochs=6
    )
    assert train.main(taught) == 0
    assert train.main(flags_of(train_arguments, tmp_path / "plain", *changes)) == 0
    taught, plain = weights_of(tmp_path / "taught"), weights_of(tmp_path / "plain")
    assert taught.keys() == plain.keys()
    assert {k: v.shape for k, v in taught.items()} == {k: v.shape for k, v in plain.items()}
    configs = [load_model(tmp_path / run / "final.pt").config for run in ("taught", "plain")]
    # Each run has a CMVN file of its own.
    configs = [dataclasses.replace(config, cmvn=CMVNConfig()) for config in configs]
    assert configs[0] == configs[1]
    steps, cv = rows_of(tmp_path / "taught", "step"), rows_of(tmp_path / "taught", "cv")
    for row in steps:
        assert row["weighted_embedding"] == pytest.approx(0.5 * row["embedding"])
        assert row["weighted_ctc"] == row["ctc"] and row["alpha"] == 1.0
    # All audio alike, so the distance falls fast.
    assert cv[-1]["cv_embedding"] < 0.8 * cv[0]["cv_embedding"]
    assert cv[-1]["embedding_distance"] < 0.8
    assert all("grad_share_embedding" in row for row in rows_of(tmp_path / "taught", "gradient"))
    layers = rows_of(tmp_path / "taught", "layers")[-1]
    assert layers["adapter_weight"].keys() == {"embedding.adapter"}
    record = json.loads((tmp_path / "taught/run.json").read_text())
    assert record["feature_teacher"] == feature_teacher
    # The same start, so that runs with and without the term compare.
    first, other = (rows_of(tmp_path / name, "cv")[0] for name in ("taught", "plain"))
    assert first["cv_loss"] == other["cv_loss"]


def test_a_student_has_both_teachers(train_arguments, teacher, feature_teacher, tmp_path):
    flags = flags_of(train_arguments, tmp_path / "run", *WEIGHT, "--alpha", "0.4")
    flags += ["--feature_teacher", feature_teacher]
    flags += ["--teacher_checkpoint", str(teacher / "final.pt"), "--init_from_teacher"]
    assert train_distill.main(flags) == 0
    row = rows_of(tmp_path / "run", "step")[0]
    assert row["weighted_embedding"] == pytest.approx(0.6 * 0.5 * row["embedding"])
    assert row["weighted_kd"] == pytest.approx(0.6 * row["kd"])
    assert weights_of(tmp_path / "run").keys() == weights_of(teacher).keys()


def test_a_resumed_run_is_the_uninterrupted_one(train_arguments, feature_teacher, tmp_path):
    taught = [*WEIGHT, "--feature_teacher", feature_teacher]
    # Constant, so that two epochs are the first two of three.
    taught += ["--override", "scheduler_conf.type=constant"]
    assert train.main(flags_of(train_arguments, tmp_path / "whole", *taught, epochs=3)) == 0
    assert train.main(flags_of(train_arguments, tmp_path / "parts", *taught, epochs=2)) == 0
    resumed = flags_of(train_arguments, tmp_path / "parts", *taught, "--resume", epochs=3)
    assert train.main(resumed) == 0
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_in_parts_is_the_same_step(train_arguments, feature_teacher, tmp_path):
    taught = [*WEIGHT, "--feature_teacher", feature_teacher]
    for name, sizes in (("one", (8, 1)), ("parts", (2, 4))):
        settings = dict(
            zip(
                ("dataset_conf.batch_conf.batch_size", "training_config.accum_grad"),
                sizes,
                strict=True,
            )
        )
        more = [word for k, v in settings.items() for word in ("--override", f"{k}={v}")]
        train.main(flags_of(train_arguments, tmp_path / name, *taught, *more, epochs=1))
    one, parts = (rows_of(tmp_path / name, "step")[0] for name in ("one", "parts"))
    assert one["embedding"] == pytest.approx(parts["embedding"], rel=1e-4)


def test_another_feature_teacher_is_no_resume(train_arguments, feature_teacher, tmp_path):
    taught = [*WEIGHT, "--feature_teacher", feature_teacher]
    assert train.main(flags_of(train_arguments, tmp_path / "run", *taught, epochs=1)) == 0
    run = tmp_path / "run/run.json"
    record = json.loads(run.read_text()) | {"feature_teacher_fingerprint": "another"}
    run.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="another --feature_teacher"):
        train.main(flags_of(train_arguments, tmp_path / "run", *taught, "--resume"))


def test_weight_and_feature_teacher_go_together(train_arguments, feature_teacher, tmp_path, caplog):
    with pytest.raises(ConfigError, match="give --feature_teacher"):
        train.main(flags_of(train_arguments, tmp_path / "run", *WEIGHT))
    with caplog.at_level(logging.WARNING):
        flags = flags_of(train_arguments, tmp_path / "run", epochs=1)
        assert train.main([*flags, "--feature_teacher", feature_teacher]) == 0
    assert "--feature_teacher: no effect" in caplog.text
    assert not list((tmp_path / "cache").glob("*embeddings*"))
    with pytest.raises(ConfigError, match="NO_SUCH_BUNDLE: expected a YAML description"):
        train.main(
            [
                *flags_of(train_arguments, tmp_path / "other", *WEIGHT),
                *("--feature_teacher", "NO_SUCH_BUNDLE"),
            ]
        )
