"""The diagnosis's part on what was learnt from whom: CTC beside KD, and stage by stage."""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from wekws.report.diagnosis_subject import Subject
from wekws.report.document import Block, Bullets, Heading, Table
from wekws.runlog.fields import BEFORE_FIRST_STEP
from wekws.runlog.metrics_reader import series


def task_and_teacher(subjects: Sequence[Subject]) -> list[Block]:
    """Return how CTC and KD went together, with the angle between their gradients."""
    rows, said = [], []
    for subject in subjects:
        _, kd = series([r for r in subject.model.cv_rows if r["epoch"] >= 0], "cv_kd")
        losses = subject.trained
        if len(kd) < 2 or len(kd) != len(losses) or not any(kd):
            continue
        is_taught = any(_weighs(row) for row in subject.model.cv_rows)
        late = len(kd) * 2 // 3 - 1
        falls = [_fall(values, at) for at in (0, max(late, 0)) for values in (losses, kd)]
        cosines = [row["grad_cos_kd"] for row in subject.rows if "grad_cos_kd" in row]
        shares = [row["grad_share_kd"] for row in subject.rows if "grad_share_kd" in row]
        rows.append(
            [
                subject.name,
                f"{losses[0]:.2f} to {losses[-1]:.2f}",
                f"{kd[0]:.2f} to {kd[-1]:.2f}",
                *(f"{100 * fall:+.1f} %" for fall in falls),
                f"{fmean(cosines):+.2f}" if cosines else "-",
                f"{100 * fmean(shares):.0f} %" if shares else "-",
            ]
        )
        said.append(_together(subject, falls, cosines) if is_taught else _apart(subject, falls))
    if not rows:
        return []
    header = ["Run", "CTC", "KD", "CTC since epoch 0", "KD", "CTC, last third", "KD",
              "cosine of gradients", "KD's share of the gradient"]  # fmt: skip
    table = Table(header, rows, "On dev, after each epoch; cosine and share: means over training.")
    return [Heading("CTC and KD together"), table, Bullets(said)]


def _weighs(row: dict[str, Any]) -> bool:
    """Whether the loss of an epoch held more than CTC."""
    ctc = row.get("train_ctc")
    return ctc is not None and abs(row["train_loss"] - ctc) > 1e-6 * abs(ctc)


def _fall(values: Sequence[float], since: int) -> float:
    return values[-1] / values[since] - 1.0


def _apart(subject: Subject, falls: Sequence[float]) -> str:
    return (
        f"{subject.name}: KD was measured but weighed nothing in its loss; it went by "
        f"{100 * falls[1]:+.1f} % since epoch 0 while CTC went by {100 * falls[0]:+.1f} %."
    )


def _together(subject: Subject, falls: Sequence[float], cosines: Sequence[float]) -> str:
    ctc, kd = falls[2:]
    text = f"{subject.name}: in the last third KD went by {100 * kd:+.1f} %, CTC by "
    text += f"{100 * ctc:+.1f} %: "
    if kd < -0.02 and ctc > -0.005:
        text += "**what the teacher teaches no longer helps the task**"
    elif kd > 0.02 and ctc < -0.005:
        text += "the student leaves its teacher for the labels"
    elif abs(kd) <= 0.02 and abs(ctc) <= 0.005:
        text += "both stand still"
    else:
        text += "they go together"
    if not cosines:
        return text + ". Gradients were not compared (`training_config.gradient_interval: 50`)."
    size = max(1, len(cosines) // 3)
    first, last = fmean(cosines[:size]), fmean(cosines[-size:])
    against = sum(cosine < 0 for cosine in cosines) / len(cosines)
    return text + (
        f". The cosine of their gradients went from {first:+.2f} to {last:+.2f} (means of a "
        f"third); teacher and labels pulled apart in {100 * against:.0f} % of the looks."
    )


def stages(subjects: Sequence[Subject]) -> list[Block]:
    """Return what each stage of a run improved, in percent."""
    rows, said = [], []
    for subject in subjects:
        told = [row for row in subject.model.cv_rows if "cv_loss" in row]
        before = next((row for row in told if row["epoch"] == BEFORE_FIRST_STEP), None)
        falls: dict[str, float] = {}
        staged = [row for row in told if row["epoch"] > BEFORE_FIRST_STEP and "stage" in row]
        for stage, group in groupby(staged, key=lambda row: row["stage"]):
            own = list(group)
            start = before or own[0]
            falls[str(stage)] = own[-1]["cv_loss"] / start["cv_loss"] - 1.0
            rows.append(
                [
                    subject.name,
                    str(stage),
                    f"{own[0]['epoch']} to {own[-1]['epoch']}",
                    f"{start['cv_loss']:.2f}",
                    f"{own[-1]['cv_loss']:.2f}",
                    f"{100 * falls[str(stage)]:+.1f} %",
                    _points(start, own[-1]),
                ]
            )
            before = own[-1]
        if len(falls) > 1:
            least = max(falls, key=falls.__getitem__)
            said.append(
                f"{subject.name}: stage {least} did least for the cv loss, "
                f"{100 * falls[least]:+.1f} %"
                + ("; **it made it worse**." if falls[least] > 0 else ".")
            )
    if not rows:
        return []
    header = ["Run", "Stage", "Epochs", "cv loss before", "after", "change", "accuracy, points"]
    found: list[Block] = [Heading("Stage by stage"), Table(header, rows, text_columns=(1,))]
    return [*found, *([Bullets(said)] if said else [])]


def _points(start: dict[str, Any], end: dict[str, Any]) -> str:
    if "cv_accuracy" not in start or "cv_accuracy" not in end:
        return "-"
    return f"{100 * (end['cv_accuracy'] - start['cv_accuracy']):+.1f}"
