"""Every option of distillation and of the step, through the command as a user gives it."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wekws.bin import train, train_distill
from wekws.dataset.batch import Embeddings
from wekws.distill.methods import TERM_GROUPS
from wekws.errors import ConfigError
from wekws.model.checkpoint import load_model
from wekws.runlog.metrics_reader import read_metrics
from wekws.train import build, loop
from wekws.train.epoch_checkpoint import STATE_NAME
from wekws.train.step_inputs import StepInputs, step_generator

# A student narrower than its teacher (24 and 12), and of one block where that has two.
SMALL = ["model.backbone.linear_dim=16", "model.backbone.proj_dim=8"]
EVERYTHING = [
    *SMALL,
    "dataset_conf.batch_conf.batch_size=4",
    "training_config.accum_grad=2",
    "training_config.ema_decay=0.9",
    "training_config.gradient_interval=2",
    "training_config.log_interval=1",
    "optim_conf.weight_decay=0.01",
    "ctc_conf.label_smoothing=0.01",
    "keyword_conf={weight: 0.2, mined_share: 0.2}",
    "distill_conf.alpha=cosine_growth",
    "distill_conf.temperature={shape: linear, start: 6, end: 3}",
    "distill_conf.teacher_view=clean",
    "distill_conf.kd={frames: widened, num_neighbours: 2, blank_weight: 0.5, token_scale: one}",
    "distill_conf.guide.weight=0.5",
    "distill_conf.hidden={weight: {shape: cosine_descent}, distance: normalised_mse, "
    "gate: {openness: 0.3}}",
    "distill_conf.adversarial={weight: 0.1, hidden_dim: 8}",
    "distill_conf.inner={weight: 0.3, block: 1}",
    "distill_conf.consistency.weight=0.2",
]


def overrides(settings):
    return [x for setting in settings for x in ("--override", setting)]


@pytest.fixture
def distill(train_arguments, teacher):
    """Run the command with some settings and flags."""

    def command(model_dir, settings=(), *flags):
        paths = ("--teacher_checkpoint", teacher / "final.pt", "--model_dir", model_dir)
        given = [*train_arguments, *map(str, paths), *overrides(settings), *flags]
        return train_distill.main(given)

    return command


def rows_of(model_dir, kind):
    pace = ("utt_per_s", "eta_s", "seconds")
    rows = [row for row in read_metrics(model_dir) if row["kind"] == kind]
    return [{k: v for k, v in row.items() if k not in pace} for row in rows]


def same_tensors(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def interrupt_after_first_epoch(monkeypatch):
    save = loop.save_epoch

    def save_and_die(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_epoch", save_and_die)


def test_everything_at_once_interrupted_in_mid_schedule_equals_uninterrupted(
    distill, tmp_path, monkeypatch
):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert distill(whole, EVERYTHING) == 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after_first_epoch(patch)
        distill(halves, EVERYTHING)
    assert distill(halves, EVERYTHING, "--resume") == 0
    states = [torch.load(d / STATE_NAME, weights_only=True) for d in (whole, halves)]
    for name in ("final.pt", "1.pt"):
        weights = [torch.load(d / name, weights_only=True) for d in (whole, halves)]
        assert same_tensors(*weights)
    extra = "adversarial._extra_state"
    moments = [state["objective"].pop(extra)["state"][0]["exp_avg"] for state in states]
    assert same_tensors(*(state["objective"] for state in states))
    assert same_tensors(*(state["hooks"]["raw_model"] for state in states))
    assert torch.equal(*moments) and moments[0].abs().max() > 0
    for kind in ("step", "gradient", "cv"):
        assert rows_of(whole, kind) == rows_of(halves, kind)
    # The checkpoint is a plain student; adapters, gates and discriminators are not in it.
    assert states[0]["objective"].keys() == {
        f"{layer}.{part}"
        for layer in (
            *("layer_pairs.adapters.0", "layer_pairs.adapters.1", "inner.linear"),
            *("hidden.gates.0.linear", "hidden.gates.1.linear"),
            *(f"adversarial.networks.{pair}.{layer}" for pair in (0, 1) for layer in (0, 2)),
        )
        for part in ("weight", "bias")
    } | {"keyword.shift"}
    mined = [state["hooks"]["hard_negatives"]["mined"] for state in states]
    assert torch.equal(*mined) and len(mined[0]) == 4
    student = load_model(whole / "final.pt")
    exported = torch.load(whole / "final.pt", weights_only=True)
    assert exported.keys() == student.state_dict().keys()
    assert not same_tensors(exported, states[0]["hooks"]["raw_model"])


def test_everything_at_once_is_logged_under_its_own_name(distill, tmp_path):
    assert distill(tmp_path / "run", EVERYTHING) == 0
    task = ("ctc", "smoothing", "keyword", "inner_ctc")
    taught = ("kd", "guide", "hidden", "gate", "inner_kd", "consistency", "adversarial")
    names = (*task, *taught)
    steps = rows_of(tmp_path / "run", "step")
    # 20 utterances (and 4 mined ones after the first epoch) in steps of 2 x 4: 3 per epoch.
    assert len(steps) == 9
    for index, row in enumerate(steps):
        assert row["temperature"] == pytest.approx(6 - 3 * index / 9)
        weights = {"ctc": 0.99 * row["alpha"], "smoothing": 0.01 * row["alpha"]}
        weights |= {"inner_ctc": 0.3 * row["alpha"], "guide": 0.5 * (1.0 - row["alpha"])}
        weights["keyword"] = 0.2 * row["alpha"]
        weights["adversarial"] = 0.1 * (1.0 - row["alpha"])
        for name, weight in weights.items():
            assert row[f"weighted_{name}"] == pytest.approx(weight * row[name], rel=1e-5)
        assert row["loss"] == pytest.approx(sum(row[f"weighted_{name}"] for name in names))
        for name in ("gate_mean", "adversarial_accuracy"):
            assert 0.0 < row[name] < 1.0
    assert steps[0]["gate_mean"] == 0.5 and steps[0]["gate_spread"] == 0.0
    assert steps[-1]["gate_mean"] != 0.5 and steps[-1]["gate_spread"] > 0.0
    assert (steps[0]["alpha"], steps[0]["step"]) == (0.05, 1)
    assert steps[-1]["alpha"] > 0.9
    gradients = rows_of(tmp_path / "run", "gradient")
    assert [row["step"] for row in gradients] == [1, 3, 5, 7, 9]
    for row in gradients:
        assert sum(row[f"grad_share_{name}"] for name in names) == pytest.approx(1.0)
        assert all(-1.0 <= row[f"grad_cos_{name}"] <= 1.0 for name in taught)
    cv = rows_of(tmp_path / "run", "cv")
    assert {"cv_kd", "cv_guide", "cv_hidden", "cv_inner_kd"} <= cv[0].keys()
    assert cv[-1]["cv_hidden"] < cv[0]["cv_hidden"]
    assert not {"cv_gate", "cv_adversarial"} & cv[0].keys()
    assert {"gate_mean", "adversarial_accuracy", "discriminator_loss"} <= cv[-1].keys()
    assert {"gate_mean_fsmn.0", "gate_mean_blank"} <= cv[-1].keys()
    assert unexplained(tmp_path / "run") == []


def unexplained(run_dir):
    """The fields of a run's log that examples/LOG_FIELDS.md does not explain."""
    page = Path(__file__).parents[3] / "examples/LOG_FIELDS.md"
    cells = re.findall(r"^\| (.*?) \|", page.read_text(encoding="utf-8"), re.M)
    cells += re.findall(r"^\| `\w+` \| (.*?) \|", page.read_text(encoding="utf-8"), re.M)
    names = {name for cell in cells for name in re.findall(r"`(.+?)`", cell)}
    terms = "|".join(TERM_GROUPS)
    assert set(TERM_GROUPS) <= names
    patterns = [
        re.sub(r"TERM", f"({terms})", re.sub(r"LAYER|KEYWORD|N$", r"[\\w.]+", name))
        for name in names
    ]
    found = {name for row in read_metrics(run_dir) for name in row}
    return [n for n in sorted(found) if not any(re.fullmatch(p, n) for p in patterns)]


def test_looking_at_gradients_changes_nothing(distill, tmp_path):
    for name, interval in (("looked", 1), ("blind", 0)):
        settings = [f"training_config.gradient_interval={interval}"]
        assert distill(tmp_path / name, [*settings, "training_config.max_epoch=1"]) == 0
    weights = [
        torch.load(tmp_path / name / "final.pt", weights_only=True) for name in ("looked", "blind")
    ]
    assert same_tensors(*weights)


def captured_run(command, monkeypatch):
    """Return the run that a command would train."""
    runs = []
    with monkeypatch.context() as patch:
        patch.setattr(build, "fit", runs.append)
        command()
    return runs[0]


def first_inputs(run, progress=0.5):
    """The inputs of a run's first step."""
    batch = next(iter(loop.training_batches(run, 0)))
    return loop.step_inputs(run, batch, step_generator(run.seed, 0, 0), progress)


def gradients_in_parts(run, accum_grad):
    object.__setattr__(run.config.training_config, "accum_grad", accum_grad)
    loss = loop.backward(run, first_inputs(run), 0.5)
    return [p.grad.clone() for p in run.parameters], loss


def test_accumulation_equals_the_large_batch(distill, tmp_path, monkeypatch):
    settings = [s for s in EVERYTHING if "accum" not in s and "batch_size" not in s]
    results = []
    # A step of 12 utterances: whole, in 4 parts of 3 and in 2 of 6; the same masks in all.
    for number, accum_grad in enumerate((1, 4, 2)):
        size = f"dataset_conf.batch_conf.batch_size={12 // accum_grad}"
        run = captured_run(
            lambda n=number, s=size: distill(tmp_path / f"run{n}", [*settings, s]), monkeypatch
        )
        results.append(gradients_in_parts(run, accum_grad))
    (whole, loss), *others = results
    for gradients, partial_loss in others:
        for part, reference in zip(gradients, whole, strict=True):
            # Equal but for the order of summation in float32.
            assert (part - reference).abs().max() <= 1e-5 * reference.abs().max()
        torch.testing.assert_close(partial_loss.terms, loss.terms)
        torch.testing.assert_close(partial_loss.weighted, loss.weighted)


def test_an_accumulating_run_has_the_steps_of_the_large_batch(train_arguments, tmp_path):
    rows = []
    for size, accum_grad in ((8, 1), (4, 2), (3, 3)):
        settings = [
            f"dataset_conf.batch_conf.batch_size={size}",
            f"training_config.accum_grad={accum_grad}",
            *("training_config.max_epoch=1", "training_config.log_interval=1"),
        ]
        model_dir = tmp_path / f"run{size}"
        flags = [*train_arguments, "--model_dir", str(model_dir), *overrides(settings)]
        assert train.main(flags) == 0
        rows.append(rows_of(model_dir, "step"))
    assert len(rows[0]) == len(rows[1]) == 3
    for whole, parts in zip(rows[0], rows[1], strict=True):
        parts.pop("kind"), whole.pop("kind")
        assert parts == pytest.approx(whole, rel=1e-3)
    assert len(rows[2]) == 3  # 9, 9 and 2 utterances; the last in two parts


def test_parts_cover_every_utterance_once():
    column = torch.arange(5)
    others = {"num_global", "embeddings"}
    names = [f.name for f in dataclasses.fields(StepInputs) if f.name not in others]
    embeddings = Embeddings(values=column, starts=column, ends=column, lengths=column)
    for found in (None, embeddings):
        inputs = StepInputs(**dict.fromkeys(names, column), num_global=5, embeddings=found)
        parts = list(inputs.parts(2))
        assert [part.lengths.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
        assert len(list(inputs.parts(9))) == 5
    assert [part.embeddings.starts.tolist() for part in parts] == [[0, 1, 2], [3, 4]]


def test_a_model_to_start_from_needs_a_transplant(distill, teacher, tmp_path):
    with pytest.raises(ConfigError, match="--start_from: no effect without --init_from_teacher"):
        distill(tmp_path / "run", [], "--start_from", str(teacher / "final.pt"))


def test_the_teacher_may_get_clean_features(distill, tmp_path, monkeypatch):
    inputs = {}
    for view in ("student", "clean"):
        settings = [f"distill_conf.teacher_view={view}"]
        run = captured_run(lambda s=settings, v=view: distill(tmp_path / v, s), monkeypatch)
        inputs[view] = first_inputs(run)
        in_cv = run.input_maker.make(next(iter(loop.training_batches(run, 0))))
        assert in_cv.teacher is in_cv.student
    assert inputs["student"].teacher is inputs["student"].student
    assert torch.equal(inputs["clean"].student, inputs["student"].student)
    assert torch.equal(inputs["clean"].teacher, in_cv.student)
    assert not torch.equal(inputs["clean"].teacher, inputs["clean"].student)


def test_a_teacher_of_weight_0_is_left_out_of_the_step(distill, tmp_path, monkeypatch):
    rest = [setting for setting in EVERYTHING if not setting.startswith("distill_conf.alpha=")]
    run = captured_run(lambda: distill(tmp_path / "run", rest, "--alpha", "1"), monkeypatch)
    run = dataclasses.replace(run, teacher=None)  # To run it would fail.
    inputs = first_inputs(run)
    assert inputs.teacher is inputs.student and inputs.second_view is inputs.student
    loss = loop.backward(run, inputs, 0.5)
    assert loss.terms.keys() == {"ctc", "smoothing", "keyword", "inner_ctc"}


def test_two_views_want_masks_to_differ_by(distill, tmp_path):
    settings = ["distill_conf.consistency.weight=1", "dataset_conf.spec_aug=false"]
    with pytest.raises(ConfigError, match="switch dataset_conf.spec_aug on"):
        distill(tmp_path / "run", settings)


def test_a_second_view_leaves_the_first_as_it_was(distill, tmp_path, monkeypatch):
    inputs = []
    for weight in (0, 1):
        settings = [f"distill_conf.consistency.weight={weight}"]
        run = captured_run(lambda s=settings, w=weight: distill(tmp_path / str(w), s), monkeypatch)
        inputs.append(first_inputs(run))
    assert inputs[0].second_view is inputs[0].student
    assert torch.equal(inputs[0].student, inputs[1].student)
    assert not torch.equal(inputs[1].second_view, inputs[1].student)


def test_flags_take_numbers_and_shapes(distill, tmp_path):
    one_epoch = ["training_config.max_epoch=1"]
    assert distill(tmp_path / "a", one_epoch, "--alpha", "0.3", "--temperature", "4") == 0
    step = rows_of(tmp_path / "a", "step")[0]
    assert (step["alpha"], step["temperature"]) == (0.3, 4.0)
    assert distill(tmp_path / "b", one_epoch, "--alpha", "cosine_descent") == 0
    assert rows_of(tmp_path / "b", "step")[0]["alpha"] > 0.7
    with pytest.raises(ConfigError, match="alpha: found 'half'"):
        distill(tmp_path / "c", one_epoch, "--alpha", "half")


def test_a_tap_that_the_student_lacks_stops_before_training(distill, tmp_path):
    pairs = "[{student: backbone.fsmn.7.2, teacher: backbone.fsmn.0.2}]"
    with pytest.raises(ConfigError, match=r"student: no module backbone.fsmn.7.2"):
        distill(tmp_path / "run", [f"distill_conf.hidden={{weight: 1, pairs: {pairs}}}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", ["ema_decay=1.0", "accum_grad=0", "gradient_interval=-1"])
def test_training_settings_that_mean_nothing_are_refused(distill, tmp_path, setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        distill(tmp_path / "run", [f"training_config.{setting}"])


def test_discriminators_and_gates_in_two_processes_as_in_one(train_arguments, teacher, tmp_path):
    settings = [
        *(*SMALL, "dataset_conf.spec_aug=false", "training_config.log_interval=1"),
        "distill_conf.hidden={weight: 0.5, gate: {openness: 0.3}}",
        "distill_conf.adversarial={weight: 0.1, hidden_dim: 8}",
    ]
    flags = [*train_arguments, "--teacher_checkpoint", str(teacher / "final.pt")]
    flags += overrides(settings)
    one, two = tmp_path / "one", tmp_path / "two"
    assert train_distill.main([*flags, "--model_dir", str(one)]) == 0
    launcher = [sys.executable, "-m", "wekws.bin.launch", "2"]
    command = [*launcher, "-m", "wekws.bin.train_distill", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--model_dir", str(two)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("step", "cv"):
        for first, second in zip(rows_of(one, kind), rows_of(two, kind), strict=True):
            first.pop("kind"), second.pop("kind")
            assert second == pytest.approx(first, rel=1e-2, abs=1e-2)
