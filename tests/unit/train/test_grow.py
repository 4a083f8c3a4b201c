"""A student that gains blocks, through the command as a user gives it."""

import pytest
import torch

from wekws.bin import average_model, train, train_distill
from wekws.errors import ConfigError, DataError
from wekws.model.checkpoint import load_model
from wekws.runlog.metrics_reader import read_metrics
from wekws.train import loop
from wekws.train.epoch_checkpoint import STATE_NAME
from wekws.yaml_files import read_yaml

# As wide in the memory as between blocks, so that the identity is exact.
SETTINGS = [
    *("model.backbone.linear_dim=12", "model.backbone.num_layers=2"),
    "progressive={start_blocks: 1, every: 2}",
    "stages=[{name: first, epochs: 3, freeze: [backbone.in_linear1]}, "
    "{name: second, epochs: 1, distillation: 0.5, lr_scales: {backbone.fsmn.1: 0.5}}]",
    *("training_config.max_epoch=4", "training_config.ema_decay=0.9"),
    "optim_conf.weight_decay=0.01",
    "distill_conf.inner={weight: 0.2, block: 1}",
]


@pytest.fixture
def distill(train_arguments, teacher):
    def command(model_dir, settings=SETTINGS, *flags):
        paths = ("--teacher_checkpoint", teacher / "final.pt", "--model_dir", model_dir)
        given = [x for setting in settings for x in ("--override", setting)]
        return train_distill.main([*train_arguments, *map(str, paths), *given, *flags])

    return command


def rows_of(model_dir, kind):
    pace = ("utt_per_s", "eta_s", "seconds")
    rows = [row for row in read_metrics(model_dir) if row["kind"] == kind]
    return [{k: v for k, v in row.items() if k not in pace} for row in rows]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def interrupt_after(monkeypatch, epochs):
    save = loop.save_epoch

    def save_and_die(model_dir, epoch, *args):
        save(model_dir, epoch, *args)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_epoch", save_and_die)


def test_a_student_grows_and_a_resume_changes_nothing(distill, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert distill(whole) == 0
    check_growth(whole)
    # Before the growth, exactly at it, and after it.
    for epochs in (1, 2, 3):
        halves = tmp_path / f"halves{epochs}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, epochs)
            distill(halves)
        assert distill(halves, SETTINGS, "--resume") == 0
        states = [torch.load(d / STATE_NAME, weights_only=True) for d in (whole, halves)]
        assert same(*(state["hooks"]["raw_model"] for state in states)), epochs
        weights = [torch.load(d / "final.pt", weights_only=True) for d in (whole, halves)]
        assert same(*weights), epochs
        for kind in ("step", "cv", "growth", "stage"):
            assert rows_of(whole, kind) == rows_of(halves, kind), (epochs, kind)


def check_growth(model_dir):
    (growth,) = rows_of(model_dir, "growth")
    assert (growth["epoch"], growth["num_layers"], growth["new_block"]) == (2, 2, "identity")
    cv = {row["epoch"]: row for row in rows_of(model_dir, "cv")}
    assert growth["cv_loss_before"] == cv[1]["cv_loss"]
    assert growth["cv_loss_after"] == pytest.approx(growth["cv_loss_before"], rel=1e-4)
    # Early epochs load at the depth they had, and say so.
    depths = [load_model(model_dir / f"{n}.pt").config.backbone.num_layers for n in range(4)]
    assert depths == [1, 1, 2, 2]
    notes = [read_yaml(model_dir / f"{n}.yaml").get("num_layers") for n in (0, 1, 2, 3, "final")]
    assert notes == [1, 1, None, None, None]
    # 3 steps an epoch: the optimiser began with the new block as it came, and kept the rest.
    state = torch.load(model_dir / STATE_NAME, weights_only=True)
    names = [n for n, _ in load_model(model_dir / "final.pt").named_parameters()]
    half = [n for n in names if n.startswith("backbone.fsmn.1.")]
    first, second = (group["params"] for group in state["optimizer"]["param_groups"])
    ordered = [n for n in names if n not in half] + ["inner.weight", "inner.bias"]
    steps = {
        n: int(state["optimizer"]["state"][i]["step"]) for n, i in zip(ordered, first, strict=True)
    }
    steps |= {
        n: int(state["optimizer"]["state"][i]["step"]) for n, i in zip(half, second, strict=True)
    }
    for name, number in steps.items():
        expected = 6 if name in half else 3 if "in_linear1" in name else 12
        assert number == expected, name


def average(model_dir, num, *flags):
    paths = ("--src_path", model_dir, "--dst_model", model_dir / "avg.pt", "--num", num)
    return average_model.main([*map(str, paths), *flags])


def test_blocks_of_the_teacher_and_averages_of_full_depth(distill, tmp_path, teacher):
    settings = [
        "progressive={start_blocks: 1, new_block: teacher}",
        *("training_config.max_epoch=2", "optim_conf.lr=1e-30"),
    ]
    assert distill(tmp_path / "run", settings, "--init_from_teacher") == 0
    # At a rate that moves nothing, the student ends as the teacher that it was made of.
    ended = torch.load(tmp_path / "run" / "final.pt", weights_only=True)
    assert same(ended, torch.load(teacher / "final.pt", weights_only=True))
    (growth,) = rows_of(tmp_path / "run", "growth")
    assert growth["cv_loss_after"] < growth["cv_loss_before"]
    for flags in ((), ("--val_best",)):
        assert average(tmp_path / "run", 1, *flags) == 0
        assert same(torch.load(tmp_path / "run" / "avg.pt", weights_only=True), ended)
        with pytest.raises(DataError, match="holds 1 epoch.* 1 of earlier stages or"):
            average(tmp_path / "run", 2, *flags)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["progressive={start_blocks: 3}"], "3 blocks at the start"),
        (["progressive={start_blocks: 1, every: 3}"], "1 in the last epoch, num_layers 2"),
        (["progressive.start_blocks=1", "distill_conf.hidden.weight=1"], "name `pairs` within"),
        (
            ["progressive.start_blocks=1", "distill_conf.inner={weight: 1, block: 2}"],
            "inner.block 2 does not exist at the start",
        ),
        (
            ["progressive={start_blocks: 1, new_block: teacher}", "transplant.channels=activation"],
            "channels first or uniform",
        ),
        (
            ["progressive={start_blocks: 1, new_block: teacher}", "transplant.blocks=[0, 3]"],
            "blocks \\[0, 3\\] of a teacher that has 2",
        ),
    ],
)
def test_growth_that_cannot_be_is_refused(distill, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        distill(tmp_path / "run", settings)


def test_a_teacher_less_run_grows_by_identities_alone(train_arguments, tmp_path):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run"), "--override"]
    with pytest.raises(ConfigError, match="of a teacher that has 0"):
        train.main([*flags, "progressive={start_blocks: 1, new_block: teacher}"])
    assert train.main([*flags, "progressive={start_blocks: 1}"]) == 0
    assert rows_of(tmp_path / "run", "growth")[0]["epoch"] == 2  # 2 of 3 epochs before it
