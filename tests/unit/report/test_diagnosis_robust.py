"""The diagnosis of whatever a log holds; tables by epoch and stage; the verdict on a baseline."""

import json

import fake_results as fake
import pytest
from test_diagnosis import KEYWORDS, run_of, said, write_run
from test_distillation_report import model

from wekws.bin.diagnose import main
from wekws.report.diagnosis import build_diagnosis, read_run
from wekws.report.diagnosis_detection import confidences
from wekws.report.diagnosis_terms import stage_terms
from wekws.report.diagnosis_training import losses_by_epoch
from wekws.report.diagnosis_verdict import verdicts
from wekws.report.document import to_markdown


def rows_of_everything(num_epochs=8):
    """A log with every kind of row that the diagnosis and the health rules read."""
    figures = {"cv_loss": 9.0, "cv_accuracy": 0.6, "cv_keyword_accuracy": 0.7,
               "cv_blank_share": 0.9, "cv_filler_share": 0.02, "cv_same_output_share": 0.1,
               "cv_kd": 30.0, "cv_hidden": 4.0}  # fmt: skip
    rows = [
        {"kind": "labels", "step": 0, "epoch": -1, "label_share": 0.05, "filler_share": 0.02,
         "same_label_share": 0.1},
        {"kind": "teacher", "step": 0, "epoch": -1, **figures,
         "confidences": {"A": {"positives": 9, "negatives": 5, "median": 0.8,
                               "negative_median": 0.01, "separation": 0.9}}},
        {"kind": "cv", "step": 0, "epoch": -1, **figures},
        {"kind": "start", "step": 0, "epoch": -1, "random": 300.0, "transplant": 20.0,
         "teacher": 9.0, "gap_closed": 0.97},
    ]  # fmt: skip
    for epoch in range(num_epochs):
        step = {"step": 10 * epoch, "epoch": epoch}
        rows += [
            {"kind": "stage", **step, "name": "a" if epoch < 4 else "b", "num_epochs": 4},
            {"kind": "step", **step, "loss": 20.0, "ctc": 9.0, "kd": 30.0, "weighted_kd": 15.0,
             "weighted_ctc": 4.5, "temperature": 2.0, "alpha": 0.5, "lr": 1e-3, "grad_norm": 2.0},
            {"kind": "gradient", **step, "grad_cos_kd": 0.1, "grad_share_kd": 0.4},
            {"kind": "layers", **step, "gradient": {"a": 1.0, "b": 0.5},
             "adapter_gradient": {"kd.x": 0.1}, "adapter_weight": {"kd.x": 1.0}},
            {"kind": "cv", **step, **figures, "cv_loss": 9.0 - 0.5 * epoch,
             "cv_kd": 30.0 - 2 * epoch, "train_ctc": 8.0, "train_loss": 20.0, "train_kd": 31.0,
             "lr": 1e-3, "seconds": 3.0, "stage": "a" if epoch < 4 else "b"},
        ]  # fmt: skip
    return rows


FIELDS = sorted({key for row in rows_of_everything() for key in row} - {"kind", "epoch", "step"})
EVERY_NUMBER = {
    "zero": 0.0, "not a number": float("nan"), "huge": 1e30, "null": None,
}  # fmt: skip


def diagnose(exp_dir, rows):
    """Diagnose a log as it is, and without its gradients: then the health rules run now."""
    if any(row["kind"] == "layers" for row in rows):
        diagnose(exp_dir, [row for row in rows if row["kind"] != "layers"])
    exp_dir.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (exp_dir / "metrics.jsonl").write_text(text)
    run = read_run("s", exp_dir, "test")
    return to_markdown(build_diagnosis([run], None, {}), exp_dir)


def test_a_log_without_any_one_field_is_diagnosed(tmp_path):
    """As those of earlier versions are."""
    for field in FIELDS:
        rows = [{k: v for k, v in row.items() if k != field} for row in rows_of_everything()]
        assert "# Diagnosis of s" in diagnose(tmp_path / "run", rows)
    oldest = [{"kind": "cv", "epoch": e, "cv_loss": 9.0 - e} for e in range(-1, 7)]
    assert "## Convergence" in diagnose(tmp_path / "run", oldest)


@pytest.mark.parametrize("value", EVERY_NUMBER.values(), ids=EVERY_NUMBER)
def test_a_log_in_which_every_number_is_the_same_is_diagnosed(tmp_path, value):
    """All zero; collapsed to NaN; null, as other writers put it."""

    def replaced(found):
        if isinstance(found, dict):
            return found if value is None else {k: replaced(v) for k, v in found.items()}
        return value if isinstance(found, float) else found

    rows = [{k: replaced(v) for k, v in row.items()} for row in rows_of_everything()]
    assert "# Diagnosis of s" in diagnose(tmp_path / "run", rows)


@pytest.mark.parametrize("num_epochs", [0, 1, 2])
def test_a_run_of_few_epochs_is_diagnosed(tmp_path, num_epochs):
    assert "# Diagnosis of s" in diagnose(tmp_path / "run", rows_of_everything(num_epochs))


def test_losses_at_epochs_0_3_5_10_and_the_last(tmp_path):
    run = write_run(tmp_path / "s", [20.0 - epoch for epoch in range(13)])
    table = losses_by_epoch([run_of(run)])[1]
    assert table.header[2:] == ["epoch 0", "epoch 3", "epoch 5", "epoch 10", "last (epoch)"]
    assert table.rows == [["s", "CTC, dev", "20.00", "17.00", "15.00", "10.00", "8.00 (12)"]]


def test_kd_and_feature_terms_by_stage(tmp_path):
    stage = ["align", "align", "tune", "tune"]
    run = write_run(
        tmp_path / "s", [9.0, 8.0, 7.0, 6.0], stage=stage, cv_hidden=[8.0, 4.0, 4.0, 4.4],
        cv_kd=[0.0, 0.0, 30.0, 15.0],
    )  # fmt: skip
    assert stage_terms([run_of(run)])[1].rows == [
        ["s", "align", "hidden", "0 to 1", "8", "4", "-50.0 %"],
        ["s", "tune", "kd", "2 to 3", "30", "15", "-50.0 %"],
        ["s", "tune", "hidden", "2 to 3", "4", "4.4", "+10.0 %"],
    ]


@pytest.mark.parametrize(
    ("frr", "word"), [(0.02, "better than"), (0.099, "no difference from"), (0.2, "worse than")]
)
def test_the_verdict_is_by_frr_with_its_interval(tmp_path, frr, word):
    model(tmp_path, "student", frr), model(tmp_path, "old", 0.1)
    runs = [read_run(name, tmp_path / name, "test") for name in ("student", "old")]
    text = said(verdicts(runs[:1], runs[1], "1/h"))
    assert text.startswith(f"student: **{word} the baseline") and "against 10.0 %" in text


def test_the_verdict_without_results_is_by_cv_loss(tmp_path):
    good, old = (write_run(tmp_path / n, x) for n, x in (("good", [9, 4, 3]), ("old", [9, 8, 4])))
    out = tmp_path / "out"
    assert main([str(good), "--baseline", str(old), "--out_dir", str(out)]) == 0
    text = (out / "diagnosis.md").read_text()
    assert (
        "good: **better than the baseline**. cv loss at the end 3.00 against 4.00 (-25.0 %); the"
        in text
    )
    assert "the baseline's final loss after 2 of its 3 epochs" in text


def test_20_against_440_outputs_are_a_cause_of_other_confidences(tmp_path):
    made = []
    for name, outputs, quality in (("student", 20, 2.0), ("teacher", 440, 3.5)):
        exp_dir = write_run(tmp_path / name, [5.0, 4.0, 3.0], outputs=outputs)
        fake.make_result(exp_dir / "test_avg_3", KEYWORDS, quality=quality)
        made.append(run_of(exp_dir))
    text = said(confidences(made, made[1], "1/h"))
    assert "they have 20 and 440 outputs, and the probability that other tokens take" in text
