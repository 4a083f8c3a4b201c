"""Diagnosis of training: convergence, initialisation, accuracy, health."""

from collections.abc import Sequence

from wekws.report.diagnosis_run import (
    LAST_EPOCHS,
    MOVING,
    TAIL,
    DiagnosedRun,
    are_comparable,
    epochs_to,
    has_short_schedule,
    relative_change,
    still_falls,
    tail_slope,
)
from wekws.report.document import Block, Bullets, Heading, Paragraph, Table
from wekws.report.format import number
from wekws.runlog.fields import BEFORE_FIRST_STEP
from wekws.runlog.metrics_reader import series

# A learning rate below this share of its peak no longer changes the model much.
SPENT_RATE = 0.05


def convergence(runs: Sequence[DiagnosedRun], teacher: DiagnosedRun | None = None) -> list[Block]:
    """Return losses and slopes of each run, and when each reached the final loss of the others.

    Speeds are compared only between runs without problems, and not with the teacher: its students
    begin with what it has learned.
    """
    shown = [run for run in runs if run.trained_losses]
    if not shown:
        return []
    header = ["Run", "Epochs", "cv loss: start", "after epoch 0", "best (epoch)", "end",
              f"slope, last {TAIL} epochs", "Learning rate: peak", "end"]  # fmt: skip
    caption = "cv loss: CTC, nats per utterance of dev; slope: least squares, per epoch."
    blocks: list[Block] = [Heading("Convergence")]
    blocks.append(Table(header, [_convergence_row(run) for run in shown], caption))
    if len(shown) > 1:
        names = [f"final loss of {run.name} ({run.trained_losses[-1]:.2f})" for run in shown]
        rows = [[a.name, *(_epochs_needed(a, b) for b in shown)] for a in shown]
        caption = "Epochs that a run (row) needed to reach the final loss of another (column)."
        blocks.append(Table(["Run", *names], rows, caption))
    texts = [_convergence_sentence(run) for run in shown]
    compared = [run for run in shown if run is not teacher and not run.model.problems]
    texts += [text for a in compared for b in compared if (text := _speed_sentence(a, b))]
    return [*blocks, Bullets(texts)]


def _convergence_row(run: DiagnosedRun) -> list[str]:
    losses, trained = run.losses, run.trained_losses
    best = min(losses, key=losses.__getitem__)
    moved = tail_slope(trained)
    rates = series(run.model.cv_rows, "lr")[1]
    of = f" of {run.model.max_epoch}" if run.model.max_epoch else ""
    return [
        run.name,
        f"{len(trained)}{of}",
        f"{losses[BEFORE_FIRST_STEP]:.2f}" if BEFORE_FIRST_STEP in losses else "-",
        f"{trained[0]:.2f}",
        f"{losses[best]:.2f} ({'start' if best < 0 else best})",
        f"{trained[-1]:.2f}",
        f"{moved[0]:+.3f} ({100 * moved[1]:+.2f} %)" if moved else "-",
        f"{max(rates):.2g}" if rates else "-",
        f"{rates[-1]:.2g}" if rates else "-",
    ]


def _epochs_needed(first: DiagnosedRun, second: DiagnosedRun) -> str:
    if first is second:
        return "-"
    if not are_comparable(first, second):
        return "another dev set or other tokens"
    found = epochs_to(first.trained_losses, second.trained_losses[-1])
    return "not reached" if found is None else f"{found} of {len(first.trained_losses)}"


def _convergence_sentence(run: DiagnosedRun) -> str:
    """Say whether the cv loss still changed at the end, and what follows."""
    losses = run.trained_losses
    moved = tail_slope(losses)
    if moved is None:
        return f"{run.name}: {len(losses)} epochs are too few for a slope."
    change, share = moved
    text = (
        f"{run.name}: over the last {len(losses[-TAIL:])} epochs the cv loss changed by "
        f"{change:+.3f} per epoch ({100 * share:+.2f} %): "
    )
    if any(p.name == "loss_flat" and p.end_epoch is None for p in run.model.problems):
        return text + "**it has been flat since the first epoch and learns nothing**."
    if abs(share) < MOVING:
        return text + f"less than {100 * MOVING:.0f} %, so it has converged."
    if share > 0:
        return text + "**it rises**; use an earlier epoch, or an average around the best one."
    if not still_falls(losses):
        return text + _stood_still(losses)
    rates = series(run.model.cv_rows, "lr")[1]
    if rates and rates[-1] < SPENT_RATE * max(rates):
        return text + (
            "it still falls although the learning rate is close to 0: use a longer schedule."
        )
    return text + "**it still falls**: train more epochs."


def _stood_still(losses: Sequence[float]) -> str:
    text = f"it no longer falls in the last {LAST_EPOCHS} of them"
    if has_short_schedule(losses):
        return (
            f"{text}, but the schedule of {len(losses)} epochs was short: a longer one may end "
            "lower."
        )
    return f"{text}, so it has converged."


def _speed_sentence(first: DiagnosedRun, second: DiagnosedRun) -> str:
    """Say how much sooner the first run reached the final loss of the second, if it did."""
    goal, num_epochs = second.trained_losses[-1], len(second.trained_losses)
    if first is second or goal <= 0 or not are_comparable(first, second):
        return ""
    found = epochs_to(first.trained_losses, goal)
    if found is None or found >= num_epochs:
        return ""
    epochs = "epoch" if found == 1 else "epochs"
    return (
        f"{first.name} reached the final loss of {second.name}, {goal:.2f}, after {found} {epochs} "
        f"instead of {num_epochs}: {num_epochs / found:.1f} times as fast."
    )


def losses_by_epoch(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return the losses of each run at some epochs."""
    rows = []
    for run in runs:
        for field, name in _LOSS_FIELDS.items():
            epochs, values = series(run.model.cv_rows, field)
            found = {e: v for e, v in zip(epochs, values, strict=True) if e > BEFORE_FIRST_STEP}
            if not any(found.values()):
                continue
            last = max(found)
            cells = [number(found.get(epoch)) for epoch in _SHOWN_EPOCHS]
            rows.append([run.name, name, *cells, f"{found[last]:.2f} ({last})"])
    if not rows:
        return []
    header = ["Run", "Loss", *(f"epoch {epoch}" for epoch in _SHOWN_EPOCHS), "last (epoch)"]
    caption = "Nats per utterance; - : the run has no such epoch or did not log it."
    return [Heading("Losses by epoch"), Table(header, rows, caption, text_columns=(1,))]


_SHOWN_EPOCHS = (0, 3, 5, 10)
_LOSS_FIELDS = {
    "cv_loss": "CTC, dev", "train_ctc": "CTC, training", "train_loss": "whole loss, training",
    "cv_kd": "KD, dev", "train_kd": "KD, training",
}  # fmt: skip


def start_gap(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return each student's cv loss before and after training, against its teacher's."""
    rows, texts = [], []
    for run in runs:
        teacher, losses = run.newest("teacher").get("cv_loss"), run.losses
        if not teacher or BEFORE_FIRST_STEP not in losses or not run.trained_losses:
            continue
        start, end = losses[BEFORE_FIRST_STEP], run.trained_losses[-1]
        transplant = run.newest("start")
        random, closed = transplant.get("random"), transplant.get("gap_closed")
        rows.append(
            [
                run.name,
                f"{teacher:.2f}",
                "-" if random is None else f"{random:.2f}",
                f"{start:.2f}",
                "-" if closed is None else f"{100 * closed:.1f} %",
                f"{end:.2f}",
                f"{end - teacher:+.2f} ({100 * relative_change(teacher, end):+.1f} %)",
            ]
        )
        texts.append(_gap_sentence(run, teacher, start, end, closed))
    if not rows:
        return []
    header = ["Student", "teacher", "random", "start", "gap closed", "end", "end against teacher"]
    caption = "cv loss. Gap closed: (random - start) / (random - teacher), before the first step."
    return [
        Heading("Initialisation, and the teacher"),
        Table(header, rows, caption),
        Bullets(texts),
    ]


def _gap_sentence(
    run: DiagnosedRun, teacher: float, start: float, end: float, closed: float | None
) -> str:
    text = f"{run.name} began at {start / teacher:.1f} times its teacher's cv loss"
    if closed is not None:
        text += f", with {100 * closed:.1f} % of the gap from random weights closed,"
    if end <= teacher:
        return f"{text} and ended {100 * (1 - end / teacher):.1f} % below it."
    won = (start - end) / (start - teacher) if start > teacher else 0.0
    tail = f"; training closed {100 * won:.1f} % of the distance" if won > 0 else ""
    return f"{text} and ended {100 * (end / teacher - 1):.1f} % above it{tail}."


def accuracy(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return the accuracies over training, against the teacher's."""
    rows, texts = [], []
    for run in runs:
        for key, subset in (("cv_accuracy", "all"), ("cv_keyword_accuracy", "with a keyword")):
            epochs, values = series(run.model.cv_rows, key)
            values = [v for e, v in zip(epochs, values, strict=True) if e > BEFORE_FIRST_STEP]
            if not values:
                continue
            moved = tail_slope(values)
            teacher = run.newest("teacher").get(key)
            third = values[(len(values) - 1) // 3]
            points = [f"{100 * value:.1f} %" for value in (values[0], third, values[-1])]
            best = max(values)
            rows.append(
                [
                    run.name,
                    subset,
                    *points,
                    f"{100 * best:.1f} % ({values.index(best)})",
                    f"{100 * moved[0]:+.2f}" if moved else "-",
                    "-" if teacher is None else f"{100 * teacher:.1f} %",
                ]
            )
            if teacher is not None:
                side = "below" if values[-1] < teacher else "above"
                texts.append(
                    f"{run.name}, {_SUBSETS[subset]}: {100 * values[-1]:.1f} % at the end, "
                    f"{100 * abs(values[-1] - teacher):.1f} points {side} its teacher."
                )
    if not rows:
        return []
    header = ["Run", "cv utterances", "after epoch 0", "after a third", "end", "best (epoch)",
              f"points per epoch, last {TAIL}", "its teacher"]  # fmt: skip
    caption = "Greedy decoding; accuracy: 1 - token errors / tokens."
    table = Table(header, rows, caption, text_columns=(1,))
    return [Heading("Accuracy"), table, *([Bullets(texts)] if texts else [])]


_SUBSETS = {"all": "all utterances", "with a keyword": "utterances with a keyword"}


def health(runs: Sequence[DiagnosedRun]) -> list[Block]:
    """Return the problems in training, or that there were none."""
    found = [f"**{run.name}**: {p.sentence()}" for run in runs for p in run.model.problems]
    if found:
        return [Heading("Health"), Bullets(found)]
    return [Heading("Health"), Paragraph("The health checks found no problem in these runs.")]
