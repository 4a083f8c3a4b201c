"""Rules on constructed runs; every number is worked out beside its test."""

import subprocess
import sys

from fake_metrics import TEACHER, cv, layered, run_of

from wekws.runlog.health import (
    HealthRule,
    find_problems,
    health_changes,
    ongoing_problems,
    problem_history,
)
from wekws.runlog.health_rules import GENERAL_RULES


def found_in(rows):
    return find_problems(rows, GENERAL_RULES)


HEALTHY = [400.0, 31.0, 21.1, 19.8, 16.9, 16.3, 16.1, 15.8, 15.8, 15.7, 15.5, 15.3, 15.1]


def test_a_healthy_run_yields_nothing_at_any_epoch():
    rows = run_of(HEALTHY)
    for end in range(1, len(rows) + 1):
        assert found_in(rows[:end]) == {}


def test_no_rows_and_a_run_before_its_first_step_yield_nothing():
    assert found_in([]) == {} and health_changes([], GENERAL_RULES) == []
    assert found_in([cv(-1, cv_loss=3.0)]) == {}


def test_a_loss_that_rises_and_stays_up_is_named_with_the_cause():
    # Best 5.00 in epoch 2, no upward step before it: the margin is 5 %, 5.25.
    losses = [90, 9.0, 6.0, 5.0, 5.3, 5.5, 5.8, 6.1]
    overfit = run_of(losses, train_ctc=[8.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0])
    text = found_in(overfit)["loss_rising"]
    assert text == (
        "cv loss 6.10, above its best, 5.00, for 4 epochs, while CTC in training fell from 4.00 "
        "to 2.00: it overfits"
    )
    assert found_in(overfit[:-1]) == {}  # three epochs are not yet four
    diverged = run_of(losses, train_ctc=[8.0, 5.0, 4.0, 4.5, 5.0, 5.5, 6.0])
    assert found_in(diverged)["loss_rising"].endswith("rose from 4.00 to 6.00: it diverges")


def test_a_rise_within_the_runs_own_noise_is_none():
    # Up by 0.5 on the way to the best one, 4.7: only what stays above 4.7 + 3 x 0.5 is a rise.
    losses = [90, 6.0, 6.5, 4.7, 5.1, 5.6, 6.1, 5.9]
    assert found_in(run_of(losses)) == {}
    assert "loss_rising" in found_in(run_of([90, 6.0, 6.5, 4.7, 6.3, 6.4, 6.5, 6.6]))


def test_a_stage_is_judged_by_its_own_epochs():
    rows = run_of([90, 9.0, 6.0, 5.0, 5.3, 5.5, 5.8, 6.1])
    for row in rows:
        row["stage"] = "align" if row["epoch"] < 3 else "tune"
    assert found_in(rows) == {}


def test_swings_without_progress_are_an_oscillation_and_with_progress_are_none():
    # Changes +1 -1 +1 ...: ups of 1 on a mean of 4.5 are 22 %; six turn round five times.
    assert found_in(run_of([90] + [4.0, 5.0] * 6))["loss_oscillating"] == (
        "cv loss swings between 4.00 and 5.00 in 6 epochs without improving"
    )
    falling = [8.0, 9.0, 7.0, 8.0, 6.0, 7.0, 5.0, 6.0, 4.0, 5.0, 3.0, 4.0]
    assert found_in(run_of([90, *falling])) == {}
    small = [10.0, 10.5] * 6  # ups of 5 %
    assert found_in(run_of([90, *small])) == {}


LABELS = {"kind": "labels", "epoch": -1, "label_share": 0.05, "filler_share": 0.02,
          "same_label_share": 0.1}  # fmt: skip


def outputs_of(blank, filler=0.0, same=0.1, epochs=6):
    """A falling loss with these shares in every epoch."""
    shares = {"cv_blank_share": blank, "cv_filler_share": filler, "cv_same_output_share": same}
    losses = [30.0 - epoch for epoch in range(epochs + 1)]
    return [LABELS, TEACHER, *run_of(losses, **{k: [v] * epochs for k, v in shares.items()})]


def test_blanks_alone_are_a_collapse_once_the_beginning_is_over():
    # Labels and teacher have tokens in 5 % of the frames; a twentieth of that is 0.25 %.
    found = found_in(outputs_of(0.998, same=0.9))
    assert found == {
        "blank_collapse": "blank is the best token in 99.80% of the frames; going by teacher and "
        "labels it should be 95.00%"
    }
    assert found_in(outputs_of(0.998, same=0.9, epochs=5)) == {}  # epoch 4: CTC begins so
    assert found_in(outputs_of(0.997)) == {}


def test_filler_alone_is_a_collapse_of_its_own():
    # 0.1 % of other tokens; labels have them in 3 % of the frames, a twentieth is 0.15 %.
    found = found_in(outputs_of(0.95, filler=0.049, same=0.9))
    assert list(found) == ["filler_collapse"]
    assert "best in 0.100% of the frames" in found["filler_collapse"]
    assert found_in(outputs_of(0.95, filler=0.048)) == {}


def test_one_output_for_all_is_named_unless_the_labels_are_one_too():
    assert list(found_in(outputs_of(0.9, same=0.85))) == ["same_output"]
    rows = outputs_of(0.9, same=0.85)
    rows[0] = {**LABELS, "same_label_share": 0.8}
    assert found_in(rows) == {}


def test_shares_that_an_older_run_lacks_are_no_problem():
    rows = [row for row in outputs_of(0.999, same=1.0) if row["kind"] == "cv"]
    assert found_in(rows) == {}


def test_a_layer_without_gradient_is_named_after_two_epochs():
    good, faint = {"in": 2.0, "fsmn.0": 10.0}, {"in": 0.001, "fsmn.0": 10.0}
    assert found_in(layered(good, faint, faint))["vanishing_gradient"] == (
        "the gradient vanishes: norm in 0.001; fsmn.0 has 10"
    )
    assert found_in(layered(faint, good, faint)) == {}
    assert found_in(layered(good, {"fsmn.0": 10.0}, {"fsmn.0": 10.0})) == {}  # frozen


def test_a_gradient_ten_times_the_usual_one_is_an_explosion():
    usual = {"in": 2.0, "out": 8.0}
    assert found_in(layered(usual, usual, usual, {"in": 3.0, "out": 81.0})) == {
        "exploding_gradient": "the gradient explodes: norm out 81 (before 8)"
    }
    assert found_in(layered(usual, usual, usual, {"in": 3.0, "out": 79.0})) == {}
    assert found_in(layered(usual, usual, {"in": 3.0, "out": 81.0})) == {}  # too soon to say


def test_a_problem_is_told_once_and_again_when_it_returns():
    usual, high = {"out": 8.0}, {"out": 100.0}
    norms = [usual, usual, usual, high, high, usual, usual, usual, high]
    rows, told = [], []
    for epoch, each in enumerate(norms):
        rows += [cv(epoch, cv_loss=20.0 - epoch)]
        rows += [{"kind": "layers", "epoch": epoch, "gradient": each}]
        new = health_changes(rows, GENERAL_RULES)
        rows += [{"kind": "health", **row} for row in new]
        told += [(row["epoch"], row["state"]) for row in new]
    # Epoch 4: the median of 8, 8, 100 is still 8. Epoch 8: of 8, 8, 8.
    assert told == [(3, "began"), (5, "ended"), (8, "began")]
    first, second = problem_history(rows, GENERAL_RULES)
    assert (first.first_epoch, first.end_epoch, second.first_epoch, second.end_epoch) == (
        3,
        5,
        8,
        None,
    )
    assert first.sentence().startswith(
        "In epochs 3 to 4, not at the end: the gradient explodes: norm"
    )
    assert first.sentence().endswith(
        next(r.remedy for r in GENERAL_RULES if r.name == "exploding_gradient")
    )
    assert list(ongoing_problems(rows)) == ["exploding_gradient"]
    # Resumed after epoch 3: its row is kept, so nothing is said again.
    assert health_changes([row for row in rows if row["epoch"] <= 3], GENERAL_RULES) == []


def test_a_problem_of_another_version_has_no_remedy_and_no_error():
    began = {"kind": "health", "epoch": 2, "problem": "too_quiet", "state": "began", "text": "hush"}
    (problem,) = problem_history([began], GENERAL_RULES)
    assert (problem.finding, problem.sentence()) == ("hush.", "From epoch 2 on: hush.")


def test_rules_of_the_caller_are_applied_beside_the_general_ones():
    toy = HealthRule("too_low", lambda log: "low" if log.series("cv_loss")[-1] < 5 else None, "Up.")
    rows = run_of([9.0, 4.0])
    assert found_in(rows) == {}
    assert find_problems(rows, [*GENERAL_RULES, toy]) == {"too_low": "low"}


def test_reading_a_log_does_not_import_torch():
    code = (
        "import sys, wekws.runlog.health_rules, wekws.runlog.metrics_reader as reader, "
        "wekws.runlog.metrics_writer; reader.read_metrics('.'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
