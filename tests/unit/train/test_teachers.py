"""Several teachers through the command."""

import json
import shutil

import pytest
import torch

from wekws.bin import train, train_distill
from wekws.errors import ConfigError
from wekws.runlog.metrics_reader import read_metrics
from wekws.train import loop

ONE_EPOCH = ("--override", "training_config.max_epoch=1")


@pytest.fixture
def distill(train_arguments):
    """Run the command with some teachers and flags."""

    def command(model_dir, teachers, *flags):
        given = [x for path in teachers for x in ("--teacher_checkpoint", str(path))]
        paths = [*train_arguments, *given, "--model_dir", str(model_dir)]
        return train_distill.main([*paths, *flags])

    return command


@pytest.fixture
def smaller(train_arguments, tmp_path):
    """A worse teacher of another size."""
    flags = (
        "--override",
        "model.backbone.linear_dim=20",
        "--override",
        "model.backbone.num_layers=1",
    )
    assert train.main([*train_arguments, "--model_dir", str(tmp_path / "smaller"), *flags]) == 0
    return tmp_path / "smaller" / "final.pt"


def rows_of(model_dir, kind):
    pace = ("utt_per_s", "eta_s", "seconds")
    rows = [row for row in read_metrics(model_dir) if row["kind"] == kind]
    return [{k: v for k, v in row.items() if k not in pace} for row in rows]


def test_a_teacher_given_twice_is_that_teacher(distill, teacher, tmp_path):
    path = teacher / "final.pt"
    for name, teachers in (("one", [path]), ("two", [path, path])):
        assert distill(tmp_path / name, teachers, *ONE_EPOCH) == 0
    for kind in ("teacher", "step", "cv"):
        rows = [rows_of(tmp_path / name, kind) for name in ("one", "two")]
        for one, two in zip(*rows, strict=True):
            one.pop("kind"), two.pop("kind")
            for keyword, figures in one.pop("confidences", {}).items():
                assert two["confidences"][keyword] == pytest.approx(figures, rel=1e-4, abs=1e-6)
            two.pop("confidences", None)
            assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["teachers"] == [str(path.resolve())] * 2


def test_weights_by_dev_score_are_logged_kept_and_resumed(
    distill, teacher, smaller, tmp_path, monkeypatch
):
    paths = [teacher / "final.pt", smaller]
    flags = (
        *("--override", "distill_conf.teachers={mix: dev_score, scale: 4}"),
        *("--override", "distill_conf.hidden.weight=0.1"),
        "--init_from_teacher",
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert distill(whole, paths, *flags) == 0
    row = rows_of(whole, "teachers")[0]
    alone = [read_metrics(path.parent)[-1]["cv_loss"] for path in paths]
    assert [row["cv_loss_1"], row["cv_loss_2"]] == pytest.approx(alone, rel=1e-5)
    odds = torch.tensor([-alone[0] / 4, -alone[1] / 4]).exp()
    assert [row["weight_1"], row["weight_2"]] == pytest.approx((odds / odds.sum()).tolist())
    assert row["weight_2"] < 0.5

    save = loop.save_epoch

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "save_epoch", save_and_die)
        distill(halves, paths, *flags)
    assert distill(halves, paths, *flags, "--resume") == 0
    for kind in ("teachers", "teacher", "step", "cv"):
        assert rows_of(whole, kind) == rows_of(halves, kind)
    finals = [torch.load(d / "final.pt", weights_only=True) for d in (whole, halves)]
    assert all(torch.equal(finals[0][key], finals[1][key]) for key in finals[0])
    with pytest.raises(ConfigError, match="another --teacher_checkpoint"):
        distill(halves, paths[:1], *flags, "--resume")


def test_one_config_cannot_describe_several_teachers(distill, teacher, tmp_path):
    paths = [teacher / "final.pt", teacher / "0.pt"]
    with pytest.raises(ConfigError, match="given for 2 teachers"):
        distill(tmp_path / "run", paths, "--teacher_config", str(teacher / "config.yaml"))
    orphan = tmp_path / "orphan" / "final.pt"
    orphan.parent.mkdir()
    shutil.copy(teacher / "final.pt", orphan)
    with pytest.raises(ConfigError, match="config.yaml"):
        distill(tmp_path / "run", [teacher / "final.pt", orphan])


def test_every_teacher_is_checked(distill, teacher, smaller, tmp_path):
    (smaller.parent / "dict.txt").write_text(
        "<blk> 0\n<filler> 1\n嗨 2\n问 3\n小 4\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"smaller/dict.txt.*fingerprint"):
        distill(tmp_path / "run", [teacher / "final.pt", smaller])
