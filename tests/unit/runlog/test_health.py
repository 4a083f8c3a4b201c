"""Rules on constructed runs; every number is worked out beside its test."""

import pytest

from wekws.runlog.health import RULES, changes, findings, history, ongoing


def cv(epoch, **values):
    return {"kind": "cv", "step": 10 * (epoch + 1), "epoch": epoch, "cv_accuracy": 0.5, **values}


def run_of(losses, **series):
    """Rows of epochs -1, 0, 1 ...; series: name -> a value an epoch from 0 on."""
    rows = [cv(-1, cv_loss=losses[0])]
    for epoch, loss in enumerate(losses[1:]):
        rows.append(cv(epoch, cv_loss=loss, **{k: v[epoch] for k, v in series.items()}))
    return rows


def step(epoch, **values):
    return {"kind": "step", "step": 10 * (epoch + 1), "epoch": epoch, **values}


HEALTHY = [400.0, 31.0, 21.1, 19.8, 16.9, 16.3, 16.1, 15.8, 15.8, 15.7, 15.5, 15.3, 15.1]


def test_a_healthy_run_yields_nothing_at_any_epoch():
    rows = run_of(HEALTHY)
    for end in range(1, len(rows) + 1):
        assert findings(rows[:end]) == {}


def test_no_rows_and_a_run_before_its_first_step_yield_nothing():
    assert findings([]) == {} and changes([]) == []
    assert findings([cv(-1, cv_loss=3.0)]) == {}


def test_a_loss_that_rises_and_stays_up_is_named_with_the_cause():
    # Best 5.00 in epoch 2, no upward step before it: the margin is 5 %, 5.25.
    losses = [90, 9.0, 6.0, 5.0, 5.3, 5.5, 5.8, 6.1]
    overfit = run_of(losses, train_ctc=[8.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0])
    text = findings(overfit)["loss_rising"]
    assert text == (
        "cv loss 6.10, above its best, 5.00, for 4 epochs, while CTC in training fell from 4.00 "
        "to 2.00: it overfits"
    )
    assert findings(overfit[:-1]) == {}  # three epochs are not yet four
    diverged = run_of(losses, train_ctc=[8.0, 5.0, 4.0, 4.5, 5.0, 5.5, 6.0])
    assert findings(diverged)["loss_rising"].endswith("rose from 4.00 to 6.00: it diverges")


def test_a_rise_within_the_runs_own_noise_is_none():
    # Up by 0.5 on the way to the best one, 4.7: only what stays above 4.7 + 3 x 0.5 is a rise.
    losses = [90, 6.0, 6.5, 4.7, 5.1, 5.6, 6.1, 5.9]
    assert findings(run_of(losses)) == {}
    assert "loss_rising" in findings(run_of([90, 6.0, 6.5, 4.7, 6.3, 6.4, 6.5, 6.6]))


def test_a_stage_is_judged_by_its_own_epochs():
    rows = run_of([90, 9.0, 6.0, 5.0, 5.3, 5.5, 5.8, 6.1])
    for row in rows:
        row["stage"] = "align" if row["epoch"] < 3 else "tune"
    assert findings(rows) == {}


def test_swings_without_progress_are_an_oscillation_and_with_progress_are_none():
    # Changes +1 -1 +1 ...: ups of 1 on a mean of 4.5 are 22 %; six turn round five times.
    assert findings(run_of([90] + [4.0, 5.0] * 6))["loss_oscillating"] == (
        "cv loss swings between 4.00 and 5.00 in 6 epochs without getting better"
    )
    falling = [8.0, 9.0, 7.0, 8.0, 6.0, 7.0, 5.0, 6.0, 4.0, 5.0, 3.0, 4.0]
    assert findings(run_of([90, *falling])) == {}
    small = [10.0, 10.5] * 6  # ups of 5 %
    assert findings(run_of([90, *small])) == {}


LABELS = {"kind": "labels", "epoch": -1, "label_share": 0.05, "filler_share": 0.02,
          "same_label_share": 0.1}  # fmt: skip
TEACHER = {"kind": "teacher", "epoch": -1, "cv_loss": 9.0, "cv_accuracy": 0.6,
           "cv_blank_share": 0.95, "cv_filler_share": 0.02}  # fmt: skip


def outputs_of(blank, filler=0.0, same=0.1, epochs=6):
    """A falling loss with these shares in every epoch."""
    shares = {"cv_blank_share": blank, "cv_filler_share": filler, "cv_same_output_share": same}
    losses = [30.0 - epoch for epoch in range(epochs + 1)]
    return [LABELS, TEACHER, *run_of(losses, **{k: [v] * epochs for k, v in shares.items()})]


def test_blanks_alone_are_a_collapse_once_the_beginning_is_over():
    # Labels and teacher have tokens in 5 % of the frames; a twentieth of that is 0.25 %.
    found = findings(outputs_of(0.998, same=0.9))
    assert found == {
        "blank_collapse": "blank is the best token of 99.80% of the frames; teacher and labels "
        "leave 95.00% to it"
    }
    assert findings(outputs_of(0.998, same=0.9, epochs=5)) == {}  # epoch 4: CTC begins so
    assert findings(outputs_of(0.997)) == {}


def test_filler_alone_is_a_collapse_of_its_own():
    # 0.1 % of other tokens; labels have them in 3 % of the frames, a twentieth is 0.15 %.
    found = findings(outputs_of(0.95, filler=0.049, same=0.9))
    assert list(found) == ["filler_collapse"]
    assert "best in 0.100% of the frames" in found["filler_collapse"]
    assert findings(outputs_of(0.95, filler=0.048)) == {}


def test_one_output_for_all_is_named_unless_the_labels_are_one_too():
    assert list(findings(outputs_of(0.9, same=0.85))) == ["same_output"]
    rows = outputs_of(0.9, same=0.85)
    rows[0] = {**LABELS, "same_label_share": 0.8}
    assert findings(rows) == {}


def test_shares_that_an_older_run_lacks_are_no_problem():
    rows = [row for row in outputs_of(0.999, same=1.0) if row["kind"] == "cv"]
    assert findings(rows) == {}


def distilled(losses, kd, accuracy=0.7, weighted_kd=1.0):
    rows = [TEACHER, *run_of(losses, cv_kd=kd)]
    for row in rows[2:]:
        row["cv_accuracy"] = accuracy
    return [*rows, step(len(kd) - 1, ctc=1.0, weighted_ctc=0.5, weighted_kd=weighted_kd)]


def test_a_teacher_below_its_student_is_named_twice_in_a_row():
    # The teacher has 9.0 and 60 %; 5 % below is 8.55.
    found = findings(distilled([90, 8.6, 8.5, 8.4], [3, 2, 1]))
    assert found["weak_teacher"] == (
        "the teacher is the weaker one on dev: cv loss 9.00 and accuracy 60.0%, the student's "
        "8.40 and 70.0%"
    )
    assert findings(distilled([90, 8.7, 8.6, 8.4], [3, 2, 1])) == {}  # only once
    assert findings(distilled([90, 8.6, 8.5, 8.4], [3, 2, 1], accuracy=0.5)) == {}
    assert findings(distilled([90, 8.6, 8.5, 8.4], [3, 2, 1], weighted_kd=0.0)) == {}


def test_kd_that_falls_alone_is_named_with_the_cosine():
    # KD: means 30 and 24, down 20 %. CTC: 12.0 and 12.2.
    rows = distilled([90, 12, 12, 12, 12.1, 12.2, 12.3], [32, 30, 28, 26, 24, 22], accuracy=0.5)
    gradient = {"kind": "gradient", "epoch": 5, "grad_cos_kd": -0.25}
    assert findings([*rows, gradient]) == {
        "task_left_behind": "kd on dev fell from 30.00 to 24.00 (3-epoch means), CTC went from "
        "12.00 to 12.20; the cosine of their gradients is -0.25"
    }
    both = distilled([90, 12, 12, 12, 11.5, 11.4, 11.3], [32, 30, 28, 26, 24, 22], accuracy=0.5)
    assert findings(both) == {}
    done = distilled([90, 8.8, 8.8, 8.8, 8.9, 8.9, 8.9], [32, 30, 28, 26, 24, 22], accuracy=0.5)
    assert findings(done) == {}  # at the teacher's level there is nothing left to follow


def layered(*norms, **more):
    """A falling loss with layer rows; norms: a mapping an epoch."""
    rows = run_of([90.0 - i for i in range(len(norms) + 1)])
    return rows + [
        {"kind": "layers", "epoch": epoch, "gradient": each, **more}
        for epoch, each in enumerate(norms)
    ]


def test_a_layer_without_gradient_is_named_after_two_epochs():
    good, faint = {"in": 2.0, "fsmn.0": 10.0}, {"in": 0.001, "fsmn.0": 10.0}
    assert findings(layered(good, faint, faint))["vanishing_gradient"] == (
        "the gradient vanishes: norm in 0.001; fsmn.0 has 10"
    )
    assert findings(layered(faint, good, faint)) == {}
    assert findings(layered(good, {"fsmn.0": 10.0}, {"fsmn.0": 10.0})) == {}  # frozen


def test_a_gradient_ten_times_the_usual_one_is_an_explosion():
    usual = {"in": 2.0, "out": 8.0}
    assert findings(layered(usual, usual, usual, {"in": 3.0, "out": 81.0})) == {
        "exploding_gradient": "the gradient explodes: norm out 81 (before 8)"
    }
    assert findings(layered(usual, usual, usual, {"in": 3.0, "out": 79.0})) == {}
    assert findings(layered(usual, usual, {"in": 3.0, "out": 81.0})) == {}  # too soon to say


@pytest.mark.parametrize(
    ("weight", "gradient", "weighted", "expected"),
    [
        (0.05, 1.0, 0.3, "adapters died: hidden.adapters.0: weights of norm 0.05, once 8"),
        (8.0, 1e-9, 0.3, "a gradient of norm 1e-09, the student's 4"),
        (8.0, 1e-9, 0.0, None),  # the term is off
        (0.5, 1.0, 0.3, None),
    ],
)
def test_an_adapter_that_shrank_or_gets_no_gradient_is_dead(weight, gradient, weighted, expected):
    rows = layered({"in": 4.0}, {"in": 4.0})
    for row, norm, slope in zip(rows[-2:], (8.0, weight), (1.0, gradient), strict=True):
        row["adapter_weight"] = {"hidden.adapters.0": norm}
        row["adapter_gradient"] = {"hidden.adapters.0": slope}
    found = findings([*rows, step(1, weighted_ctc=1.0, weighted_hidden=weighted)])
    assert (expected is None and found == {}) or expected in found["dead_adapter"]


def test_a_gate_is_judged_by_its_mean_over_the_epoch():
    rows = run_of([9.0, 8.0])
    closed = [step(0, gate_mean=0.05), step(0, gate_mean=0.03)]
    assert "closed: its mean is 0.040" in findings(rows + closed)["stuck_gate"]
    assert "wide open" in findings([*rows, step(0, gate_mean=0.99)])["stuck_gate"]
    assert findings([*rows, step(0, gate_mean=0.5)]) == {}


def test_a_problem_is_told_once_and_again_when_it_returns():
    usual, high = {"out": 8.0}, {"out": 100.0}
    norms = [usual, usual, usual, high, high, usual, usual, usual, high]
    rows, told = [], []
    for epoch, each in enumerate(norms):
        rows += [cv(epoch, cv_loss=20.0 - epoch)]
        rows += [{"kind": "layers", "epoch": epoch, "gradient": each}]
        new = changes(rows)
        rows += [{"kind": "health", **row} for row in new]
        told += [(row["epoch"], row["state"]) for row in new]
    # Epoch 4: the median of 8, 8, 100 is still 8. Epoch 8: of 8, 8, 8.
    assert told == [(3, "began"), (5, "ended"), (8, "began")]
    first, second = history(rows)
    assert (first.begin, first.end, second.begin, second.end) == (3, 5, 8, None)
    assert first.sentence().startswith("In epochs 3 to 4: the gradient explodes: norm out 100")
    assert first.sentence().endswith(RULES["exploding_gradient"].remedy)
    assert list(ongoing(rows)) == ["exploding_gradient"]
    # Resumed after epoch 3: its row is kept, so nothing is said again.
    assert changes([row for row in rows if row["epoch"] <= 3]) == []
