"""A run in stages, through the command as a user gives it."""

import pytest
import torch

from wekws.bin import train, train_distill
from wekws.errors import ConfigError
from wekws.runlog.metrics_reader import read_metrics
from wekws.train import build, loop
from wekws.train.epoch_checkpoint import STATE_NAME

HEAD = "{backbone.out_linear1: 0.1, backbone.out_linear2: 0.1}"
STAGES = (
    "stages=[{name: task, epochs: 2, freeze: [backbone.fsmn.0]}, "
    "{name: align, epochs: 2, task: 0, feature: 1, lr: 0.001, freeze: [backbone.out_linear2]}, "
    f"{{name: all, epochs: 2, task: 0.6, distillation: 0.3, feature: 0.1, lr_scales: {HEAD}}}]"
)
SETTINGS = [
    STAGES,
    *("model.backbone.linear_dim=16", "model.backbone.proj_dim=8"),
    "training_config.max_epoch=6",
    "training_config.ema_decay=0.9",
    "training_config.accum_grad=2",
    "training_config.gradient_interval=2",
    "training_config.log_interval=1",
    "dataset_conf.batch_conf.batch_size=4",
    "optim_conf.weight_decay=0.1",
    "scheduler_conf={type: cosine, warmup_epochs: 1}",
    "distill_conf.hidden={weight: 1, distance: normalised_mse}",
    "distill_conf.inner.weight=0.2",
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


def watch(monkeypatch):
    """Keep raw weights and optimiser states after each epoch; return the list."""
    seen, save = [], loop.save_epoch

    def keep(model_dir, epoch, model, figures, state):
        raw = {k: v.clone() for k, v in state["hooks"]["raw_model"].items()}
        moments = {k: dict(v) for k, v in state["optimizer"]["state"].items()}
        groups = [dict(g) for g in state["optimizer"]["param_groups"]]
        seen.append((raw, moments, groups))
        save(model_dir, epoch, model, figures, state)

    monkeypatch.setattr(loop, "save_epoch", keep)
    return seen


def test_what_is_frozen_stays_to_the_bit_and_rates_are_scaled(distill, tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    assert distill(tmp_path / "run", SETTINGS, "--init_from_teacher") == 0
    block = [k for k in seen[0][0] if k.startswith("backbone.fsmn.0.")]
    head = [k for k in seen[0][0] if k.startswith("backbone.out_linear2.")]
    raw = [weights for weights, _, _ in seen]
    frozen = {1: block, 2: head, 3: head}
    for epoch in (1, 2, 3):
        for name in raw[0]:
            moves = not torch.equal(raw[epoch][name], raw[epoch - 1][name])
            stays = name in frozen[epoch] or "cmvn" in name
            assert moves != stays, (epoch, name)
    assert all(not torch.equal(raw[5][k], raw[4][k]) for k in (*block, *head))
    # Frozen from the first step on: not even begun by the optimiser, weight decay included.
    numbers = [g["params"] for g in seen[0][2]]
    assert sum(len(part) for part in numbers) - len(seen[0][1]) == len(block) + 4  # two adapters
    rates = [{g["lr_scale"]: g["lr"] for g in groups} for _, _, groups in seen]
    assert [set(r) for r in rates] == [{1.0}] * 4 + [{1.0, 0.1}] * 2
    logged = [row["lr"] for row in rows_of(tmp_path / "run", "cv")[1:]]
    assert rates[5][0.1] == pytest.approx(0.1 * logged[5])
    # Cosine over five epochs after one of warm-up, 0.005 to 1e-6, times 0.2 in the second stage.
    high, low = 0.005, 1e-6
    middle = low + (high - low) * 0.5 * (1 + 0.30901699)  # after 2 of the 5: cos(0.4 pi)
    assert logged[2] == pytest.approx(0.2 * middle)
    assert logged[0] == pytest.approx(high) and logged[5] == pytest.approx(low)


def test_a_stage_without_teacher_does_not_run_it(distill, tmp_path, monkeypatch):
    models, forward_tapped = [], loop.forward_tapped

    def record(model, *args):
        models.append(model)
        return forward_tapped(model, *args)

    run = captured_run(distill, tmp_path / "run", monkeypatch)
    inputs = run.input_maker.make(next(iter(loop.training_batches(run, 0))))
    monkeypatch.setattr(loop, "forward_tapped", record)
    for progress, needs_teacher in ((0.0, False), (2 / 6, True), (1.0, True)):
        models.clear()
        loop.run_models(run, inputs, progress)
        assert (run.teacher in models) == needs_teacher, progress


def captured_run(distill, model_dir, monkeypatch):
    runs = []
    with monkeypatch.context() as patch:
        patch.setattr(build, "fit", runs.append)
        distill(model_dir)
    return runs[0]


def interrupt_after(monkeypatch, epochs):
    save = loop.save_epoch

    def save_and_die(model_dir, epoch, *args):
        save(model_dir, epoch, *args)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_epoch", save_and_die)


@pytest.fixture
def whole(distill, tmp_path):
    distill(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("epochs", [3, 4], ids=["in mid-stage", "at a stage's end"])
def test_interrupted_and_resumed_equals_uninterrupted(
    distill, whole, tmp_path, monkeypatch, epochs
):
    halves = tmp_path / "halves"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, epochs)
        distill(halves)
    assert distill(halves, SETTINGS, "--resume") == 0
    for name in ("final.pt", "4.pt"):
        weights = [torch.load(d / name, weights_only=True) for d in (whole, halves)]
        assert same(*weights)
    states = [torch.load(d / STATE_NAME, weights_only=True) for d in (whole, halves)]
    assert same(*(state["hooks"]["raw_model"] for state in states))
    assert same(*(state["objective"] for state in states))
    for kind in ("step", "gradient", "cv", "stage"):
        assert rows_of(whole, kind) == rows_of(halves, kind), kind


def test_a_resume_with_another_length_would_shift_the_stages(distill, tmp_path):
    first = [*SETTINGS[1:3], "training_config.max_epoch=3", "distill_conf.hidden.weight=1", STAGES]
    assert distill(tmp_path / "run", first) == 0
    with pytest.raises(ConfigError, match=r"differs in training_config.max_epoch;"):
        distill(tmp_path / "run", [*first, "training_config.max_epoch=9"], "--resume")


def test_the_log_says_which_stage_an_epoch_was_in(whole):
    rows = rows_of(whole, "stage")
    assert [(row["epoch"], row["name"], row["num_epochs"]) for row in rows] == [
        *((0, "task", 2), (2, "align", 2), (4, "all", 2))
    ]
    assert rows[1]["frozen"] == ["backbone.out_linear2"] and rows[1]["lr"] == 0.001
    assert rows[2]["lr_scales"] == {"backbone.out_linear1": 0.1, "backbone.out_linear2": 0.1}
    cv = rows_of(whole, "cv")
    assert [row.get("stage") for row in cv] == [
        None,
        *("task",) * 2,
        *("align",) * 2,
        *("all",) * 2,
    ]
    assert all({"cv_kd", "cv_hidden", "cv_inner_kd"} <= row.keys() for row in cv)
    assert "train_kd" not in cv[1] and "train_kd" not in cv[3] and "train_kd" in cv[5]
    assert rows[2]["task"] == 0.6


def test_a_run_without_stages_has_none(teacher):
    rows = read_metrics(teacher)
    assert all("stage" not in row and row["kind"] != "stage" for row in rows)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages=[{name: a, epochs: 1, freeze: [backbone.fsmn.7]}]", "no module backbone.fsmn.7"),
        ("stages=[{name: a, epochs: 1, lr_scales: {head: 2}}]", "some of backbone, backbone.in"),
        ("stages=[{name: a, epochs: 1, freeze: [backbone]}]", "a freezes the whole student"),
    ],
)
def test_modules_that_a_student_lacks_are_refused(train_arguments, tmp_path, setting, message):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run"), "--override", setting]
    with pytest.raises(ConfigError, match=message):
        train.main(flags)


def test_alpha_and_stages_are_two_ways_of_one_thing(distill, tmp_path):
    with pytest.raises(ConfigError, match="beside distill_conf.alpha"):
        distill(tmp_path / "run", [STAGES, "distill_conf.alpha=0.7", "training_config.max_epoch=6"])
