"""Diagnosis of the loss terms: CTC beside KD, and stage by stage."""

from collections.abc import Sequence
from itertools import groupby, takewhile
from statistics import fmean

from wekws.distill.distill_rules import (
    APART_EPOCHS,
    APART_FALL,
    has_reached_teacher,
    is_left_behind,
    recent_means,
)
from wekws.distill.methods import TERM_GROUPS
from wekws.report.diagnosis_run import DiagnosedRun, relative_change
from wekws.report.document import Block, Bullets, Heading, Table
from wekws.runlog.fields import BEFORE_FIRST_STEP, Row
from wekws.runlog.metrics_reader import series

# A change of CTC over the last epochs that counts as none; of KD it is the health rule's.
CTC_STILL = 0.005


def ctc_and_kd(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return how CTC and KD changed together, with the cosine between their gradients."""
    rows, texts = [], []
    for run in runs:
        _, kd = series([r for r in run.model.cv_rows if r["epoch"] > BEFORE_FIRST_STEP], "cv_kd")
        ctc = run.trained_losses
        if len(kd) < 2 or len(kd) != len(ctc) or not any(kd):
            continue
        overall = [relative_change(values[0], values[-1]) for values in (ctc, kd)]
        # Of the last stage alone, as the health rule judges.
        has_recent = _last_stage_epochs(run.model.cv_rows) >= 2 * APART_EPOCHS
        recent = [relative_change(*recent_means(v)) for v in (ctc, kd)] if has_recent else []
        cosines = [row["grad_cos_kd"] for row in run.rows if "grad_cos_kd" in row]
        shares = [row["grad_share_kd"] for row in run.rows if "grad_share_kd" in row]
        rows.append(
            [
                run.name,
                f"{ctc[0]:.2f} to {ctc[-1]:.2f}",
                f"{kd[0]:.2f} to {kd[-1]:.2f}",
                *(f"{100 * change:+.1f} %" for change in overall),
                *([f"{100 * change:+.1f} %" for change in recent] or ["-", "-"]),
                f"{fmean(cosines):+.2f}" if cosines else "-",
                f"{100 * fmean(shares):.0f} %" if shares else "-",
            ]
        )
        if any(_has_distillation_loss(row) for row in run.model.cv_rows):
            texts.append(_kd_sentence(run, recent, cosines))
        else:
            texts.append(
                f"{run.name}: KD was measured but had no weight in the loss; it changed by "
                f"{100 * overall[1]:+.1f} % since epoch 0 while CTC changed by "
                f"{100 * overall[0]:+.1f} %."
            )
    if not rows:
        return []
    header = ["Run", "CTC", "KD", "CTC since epoch 0", "KD since epoch 0", "CTC, last epochs",
              "KD, last epochs", "cosine of gradients", "KD's share of the gradient"]  # fmt: skip
    table = Table(
        header,
        rows,
        f"On dev. Last epochs: the mean of {APART_EPOCHS}, against that of the {APART_EPOCHS} "
        "before. Cosine and share: means over training.",
    )
    return [Heading("CTC and KD together"), table, Bullets(texts)]


def _last_stage_epochs(cv_rows: Sequence[Row]) -> int:
    stages = [row.get("stage") for row in cv_rows if row["epoch"] > BEFORE_FIRST_STEP]
    return len(list(takewhile(lambda stage: stage == stages[-1], reversed(stages))))


def _has_distillation_loss(row: Row) -> bool:
    """Say whether the loss of an epoch had terms besides CTC."""
    ctc = row.get("train_ctc")
    loss = row.get("train_loss")
    return ctc is not None and loss is not None and abs(loss - ctc) > 1e-6 * abs(ctc)


def _kd_sentence(run: DiagnosedRun, recent: Sequence[float], cosines: Sequence[float]) -> str:
    """Say how CTC and KD changed in the last epochs, in the terms of the health rule on them."""
    if recent:
        text = f"{run.name}: {_recent_change(run, *recent)}"
    else:
        text = (
            f"{run.name}: fewer than {2 * APART_EPOCHS} epochs (of the last stage) do not tell how "
            "CTC and KD change together"
        )
    if not cosines:
        return text + ". Gradients were not compared (`training_config.gradient_interval: 50`)."
    size = max(1, len(cosines) // 3)
    first, last = fmean(cosines[:size]), fmean(cosines[-size:])
    against = sum(cosine < 0 for cosine in cosines) / len(cosines)
    return text + (
        f". The cosine of their gradients went from {first:+.2f} in the first third to {last:+.2f} "
        f"in the last; the gradients were opposed in {100 * against:.0f} % of the probes."
    )


def _recent_change(run: DiagnosedRun, ctc: float, kd: float) -> str:
    text = f"in the last {APART_EPOCHS} epochs KD changed by {100 * kd:+.1f} %, CTC by "
    text += f"{100 * ctc:+.1f} %: "
    if kd < -APART_FALL and is_left_behind(1 + ctc, 1 + kd):
        if has_reached_teacher(run.trained_losses, run.newest("teacher")):
            text += "KD still falls, and CTC is at the teacher's level already"
        else:
            text += "**KD still falls but CTC does not**, or less than a tenth as fast"
    elif kd > APART_FALL and ctc < -CTC_STILL:
        text += "CTC falls while KD rises: the student follows the labels rather than the teacher"
    elif abs(kd) <= APART_FALL and abs(ctc) <= CTC_STILL:
        text += "neither changes any more"
    elif kd <= APART_FALL and ctc > CTC_STILL:
        text += "CTC rises"
    else:
        text += "they change together"
    return text


def stages(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return the improvement in each stage of a run, in percent."""
    rows, texts = [], []
    for run in runs:
        cv_rows = [row for row in run.model.cv_rows if "cv_loss" in row]
        before = next((row for row in cv_rows if row["epoch"] == BEFORE_FIRST_STEP), None)
        changes: dict[str, float] = {}
        staged = [row for row in cv_rows if row["epoch"] > BEFORE_FIRST_STEP and "stage" in row]
        for stage, group in groupby(staged, key=lambda row: str(row["stage"])):
            epochs = list(group)
            start = before or epochs[0]
            changes[stage] = relative_change(start["cv_loss"], epochs[-1]["cv_loss"])
            rows.append(
                [
                    run.name,
                    stage,
                    f"{epochs[0]['epoch']} to {epochs[-1]['epoch']}",
                    f"{start['cv_loss']:.2f}",
                    f"{epochs[-1]['cv_loss']:.2f}",
                    f"{100 * changes[stage]:+.1f} %",
                    _accuracy_points(start, epochs[-1]),
                ]
            )
            before = epochs[-1]
        if len(changes) > 1:
            least = max(changes, key=changes.__getitem__)
            texts.append(
                f"{run.name}: stage {least} improved the cv loss least, "
                f"{100 * changes[least]:+.1f} %"
                + ("; **it made it worse**." if changes[least] > 0 else ".")
            )
    if not rows:
        return []
    header = ["Run", "Stage", "Epochs", "cv loss before", "cv loss after", "change",
              "accuracy, points"]  # fmt: skip
    blocks: list[Block] = [Heading("Stage by stage"), Table(header, rows, text_columns=(1,))]
    return [*blocks, *([Bullets(texts)] if texts else [])]


def stage_terms(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return how the distillation terms changed on dev in each stage of a run."""
    names = [name for name, group in TERM_GROUPS.items() if group != "task"]
    rows = []
    for run in runs:
        trained = [row for row in run.model.cv_rows if row["epoch"] > BEFORE_FIRST_STEP]
        for stage, group in groupby(trained, key=lambda row: str(row.get("stage", "all"))):
            epochs = list(group)
            for name in names:
                found, values = series(epochs, f"cv_{name}")
                if len(values) < 2 or not any(values):
                    continue
                change = relative_change(values[0], values[-1])
                rows.append(
                    [
                        run.name, stage, name, f"{found[0]} to {found[-1]}",
                        f"{values[0]:.4g}", f"{values[-1]:.4g}", f"{100 * change:+.1f} %",
                    ]
                )  # fmt: skip
    if not rows:
        return []
    header = ["Run", "Stage", "Term", "Epochs", "first", "last", "change"]
    caption = "Distillation terms on dev, unweighted, after the first and last epoch of each stage."
    return [Heading("Distillation terms"), Table(header, rows, caption, text_columns=(1, 2))]


def _accuracy_points(start: Row, end: Row) -> str:
    if "cv_accuracy" not in start or "cv_accuracy" not in end:
        return "-"
    return f"{100 * (end['cv_accuracy'] - start['cv_accuracy']):+.1f}"
