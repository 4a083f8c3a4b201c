"""Norms per layer, and the warnings of a run, through the commands."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wekws.bin import train, train_distill
from wekws.runlog.metrics_reader import read_metrics
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train.layer_norms import LayerNorms
from wekws.train.loop import check_health


class Student(nn.Module):
    """Two blocks and a head, named as an FSMN's parts are."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.fsmn = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.backbone.out_linear1 = nn.Linear(2, 2)


def test_norms_are_means_over_the_looks_by_block_without_frozen_layers():
    student, objective = Student(), nn.Module()
    objective.hidden = nn.Linear(1, 1, bias=False)
    nn.init.constant_(objective.hidden.weight, -0.5)
    norms = LayerNorms(student, objective)
    for slope in (3.0, 5.0):
        first = student.backbone.fsmn[0]
        first.weight.grad = torch.tensor([[slope, 0.0], [0.0, 0.0]])
        first.bias.grad = torch.tensor([4.0, 0.0])
        student.backbone.out_linear1.weight.grad = torch.full((2, 2), slope)
        objective.hidden.weight.grad = torch.tensor([[-slope]])
        frozen = student.backbone.fsmn[1].requires_grad_(False)
        frozen.bias.grad = torch.zeros(2)  # as the sum over several processes leaves it
        norms.measure()
    # fsmn.0: sqrt(9 + 16) and sqrt(25 + 16); out: 2 x 3 and 2 x 5; fsmn.1 is frozen.
    assert norms.figures() == {
        "gradient": {"fsmn.0": pytest.approx((5 + 41**0.5) / 2), "out_linear1": 8.0},
        "adapter_gradient": {"hidden": 4.0},
        "adapter_weight": {"hidden": 0.5},
    }


def test_every_epoch_describes_outputs_and_layers(train_arguments, teacher, tmp_path):
    flags = [*train_arguments, "--teacher_checkpoint", str(teacher / "final.pt")]
    hidden = ("distill_conf.hidden.weight=0.1", "model.backbone.proj_dim=8",
              "model.backbone.linear_dim=16", "training_config.max_epoch=2")  # fmt: skip
    overrides = [item for value in hidden for item in ("--override", value)]
    assert train_distill.main([*flags, "--model_dir", str(tmp_path / "s"), *overrides]) == 0
    rows = read_metrics(tmp_path / "s")
    labels = next(row for row in rows if row["kind"] == "labels")
    taught = next(row for row in rows if row["kind"] == "teacher")
    assert 0.0 < labels["label_share"] < 1.0 and 0.0 < taught["cv_blank_share"] < 1.0
    assert all(0.0 <= row["cv_same_output_share"] <= 1.0 for row in rows if row["kind"] == "cv")
    held = [figures["positives"] for figures in taught["confidences"].values()]
    assert held and all(num > 0 for num in held)
    layers = [row for row in rows if row["kind"] == "layers"]
    assert [row["epoch"] for row in layers] == [0, 1]
    assert {"in_linear1", "fsmn.0", "out_linear2"} <= layers[0]["gradient"].keys()
    assert layers[0]["adapter_weight"]["layer_pairs.adapters.0"] > 0.0
    assert layers[0]["adapter_gradient"]["layer_pairs.adapters.0"] > 0.0


def test_an_untrained_teacher_is_doubted(train_arguments, teacher, tmp_path, caplog):
    # Without a single step it is no better than chance.
    flags = [*train_arguments, "--model_dir", str(tmp_path / "t"), "--override"]
    tiny = ("training_config.max_epoch=1", "--override", "optim_conf.lr=1e-12")
    assert train.main([*flags, *tiny]) == 0
    with caplog.at_level(logging.WARNING):
        more = ("--teacher_checkpoint", str(tmp_path / "t" / "final.pt"))
        flags = [*train_arguments, "--model_dir", str(tmp_path / "s"), *more]
        train_distill.main([*flags, "--override", "training_config.max_epoch=1"])
    assert any("the teacher: " in record.message for record in caplog.records)


DIVERGING = ("training_config.max_epoch=9", "optim_conf.lr=0.3", "training_config.grad_clip=1e9")


def health_rows(model_dir):
    return [row for row in read_metrics(model_dir) if row["kind"] == "health"]


def test_a_run_gone_wrong_says_so_and_a_resumed_one_the_same(
    train_arguments, teacher, tmp_path, caplog
):
    start = ["--checkpoint", str(teacher / "final.pt")]
    overrides = [item for value in DIVERGING for item in ("--override", value)]
    flags = [*train_arguments, *start, *overrides, "--model_dir"]
    with caplog.at_level(logging.WARNING):
        assert train.main([*flags, str(tmp_path / "whole")]) == 0
    whole = health_rows(tmp_path / "whole")
    began = [row for row in whole if row["state"] == "began"]
    assert began and all(f"epoch {row['epoch']}: {row['text']}" in caplog.text for row in began)
    half = whole[0]["epoch"] + 1  # a problem is going on when the run stops
    cut = ("--override", f"training_config.max_epoch={half}")
    assert train.main([*flags, str(tmp_path / "halves"), *cut]) == 0
    assert health_rows(tmp_path / "halves") != whole
    assert train.main([*flags, str(tmp_path / "halves"), "--resume"]) == 0
    assert health_rows(tmp_path / "halves") == whole


def test_a_process_that_is_not_the_first_stays_silent(tmp_path, caplog):
    records = MetricsWriter(tmp_path, last_epoch=-2, is_first=False)
    records.write("layers", 1, {"epoch": 0, "gradient": {}})
    run = SimpleNamespace(metrics=records, log=lambda kind, row: records.write(kind, 1, row))
    check_health(run)
    assert not list(tmp_path.iterdir()) and not caplog.records
