"""The diagnosis's part on training: convergence, the start, accuracy, health."""

from collections.abc import Sequence

from wekws.report.diagnosis_subject import (
    MOVING,
    TAIL,
    Subject,
    are_comparable,
    epochs_to,
    tail_slope,
)
from wekws.report.document import Block, Bullets, Heading, Paragraph, Table
from wekws.runlog.fields import BEFORE_FIRST_STEP
from wekws.runlog.metrics_reader import series

# Below this share of its peak a learning rate has come to its end.
SPENT_RATE = 0.05


def convergence(subjects: Sequence[Subject]) -> list[Block]:
    """Return how far each run came, whether it still moved, and who reached whose end when."""
    shown = [subject for subject in subjects if subject.trained]
    if not shown:
        return []
    header = ["Run", "Epochs", "cv loss: start", "after epoch 0", "best (epoch)", "end",
              f"slope, last {TAIL} epochs", "Learning rate: peak", "end"]  # fmt: skip
    caption = "cv loss: CTC, nats per utterance of dev; slope: least squares, per epoch."
    blocks: list[Block] = [Heading("Convergence")]
    blocks.append(Table(header, [_convergence_row(s) for s in shown], caption))
    if len(shown) > 1:
        names = [f"{s.name}'s end ({s.trained[-1]:.2f})" for s in shown]
        rows = [[a.name, *(_reached(a, b) for b in shown)] for a in shown]
        caption = "After how many epochs a run (row) was where another one (column) ended."
        blocks.append(Table(["Run", *names], rows, caption))
    said = [_moving(s) for s in shown]
    said += [text for a in shown for b in shown if (text := _faster(a, b))]
    return [*blocks, Bullets(said)]


def _convergence_row(subject: Subject) -> list[str]:
    losses, trained = subject.losses, subject.trained
    best = min(losses, key=losses.__getitem__)
    moved = tail_slope(trained)
    rates = series(list(subject.model.cv_rows), "lr")[1]
    of = f" of {subject.model.max_epoch}" if subject.model.max_epoch else ""
    return [
        subject.name,
        f"{len(trained)}{of}",
        f"{losses[BEFORE_FIRST_STEP]:.2f}" if BEFORE_FIRST_STEP in losses else "-",
        f"{trained[0]:.2f}",
        f"{losses[best]:.2f} ({'start' if best < 0 else best})",
        f"{trained[-1]:.2f}",
        f"{moved[0]:+.3f} ({100 * moved[1]:+.2f} %)" if moved else "-",
        f"{max(rates):.2g}" if rates else "-",
        f"{rates[-1]:.2g}" if rates else "-",
    ]


def _reached(first: Subject, second: Subject) -> str:
    if first is second:
        return "-"
    if not are_comparable(first, second):
        return "another dev set"
    found = epochs_to(first.trained, second.trained[-1])
    return "not reached" if found is None else f"{found} of {len(first.trained)}"


def _moving(subject: Subject) -> str:
    """Return whether the cv loss still moved at the end, and whether it could."""
    moved = tail_slope(subject.trained)
    if moved is None:
        return f"{subject.name}: {len(subject.trained)} epochs are too few for a slope."
    change, share = moved
    num = len(subject.trained[-TAIL:])
    text = f"{subject.name}: over its last {num} epochs the cv loss went by {change:+.3f} an epoch"
    text += f", {100 * share:+.2f} % of itself: "
    if abs(share) < MOVING:
        return text + f"within {100 * MOVING:.0f} %, it has converged."
    if share > 0:
        return text + "**it rises**; an earlier epoch, or an average around the best, is better."
    rates = series(list(subject.model.cv_rows), "lr")[1]
    if rates and rates[-1] < SPENT_RATE * max(rates):
        return text + "it still falls, though its learning rate is spent: a longer schedule."
    return text + "**it still falls**: more epochs."


def _faster(first: Subject, second: Subject) -> str:
    """Return how much sooner the first run was where the second ended, if it was."""
    if first is second or not are_comparable(first, second):
        return ""
    found = epochs_to(first.trained, second.trained[-1])
    if found is None or found >= len(second.trained):
        return ""
    ratio, epochs = len(second.trained) / found, "epoch" if found == 1 else "epochs"
    return (
        f"{first.name} needed {found} {epochs} for the {second.trained[-1]:.2f} that {second.name} "
        f"ended with after {len(second.trained)}: {ratio:.1f} times as fast."
    )


def start_gap(subjects: Sequence[Subject]) -> list[Block]:
    """Return how far from its teacher each student began and ended."""
    rows, said = [], []
    for subject in subjects:
        teacher, losses = subject.newest("teacher").get("cv_loss"), subject.losses
        if teacher is None or BEFORE_FIRST_STEP not in losses or not subject.trained:
            continue
        begun, ended = losses[BEFORE_FIRST_STEP], subject.trained[-1]
        found = subject.newest("start")
        random, closed = found.get("random"), found.get("gap_closed")
        rows.append(
            [
                subject.name,
                f"{teacher:.2f}",
                "-" if random is None else f"{random:.2f}",
                f"{begun:.2f}",
                "-" if closed is None else f"{100 * closed:.1f} %",
                f"{ended:.2f}",
                f"{ended - teacher:+.2f} ({100 * (ended / teacher - 1):+.1f} %)",
            ]
        )
        said.append(_gap_sentence(subject, teacher, begun, ended, closed))
    if not rows:
        return []
    header = ["Student", "teacher", "random", "start", "gap closed", "end", "end against teacher"]
    caption = "cv loss. Gap closed: (random - start) / (random - teacher), before the first step."
    return [Heading("The start, and the teacher"), Table(header, rows, caption), Bullets(said)]


def _gap_sentence(
    subject: Subject, teacher: float, begun: float, ended: float, closed: float | None
) -> str:
    text = f"{subject.name} began at {begun / teacher:.1f} times its teacher's cv loss"
    if closed is not None:
        text += f", with {100 * closed:.1f} % of the gap from a random start closed,"
    if ended <= teacher:
        return f"{text} and ended {100 * (1 - ended / teacher):.1f} % below it."
    won = (begun - ended) / (begun - teacher) if begun > teacher else 0.0
    tail = f"; training closed {100 * won:.1f} % of its distance" if won > 0 else ""
    return f"{text} and ended {100 * (ended / teacher - 1):.1f} % above it{tail}."


def accuracy(subjects: Sequence[Subject]) -> list[Block]:
    """Return how the accuracies went, and whether they still rose."""
    rows, said = [], []
    for subject in subjects:
        for key, of in (("cv_accuracy", "all"), ("cv_keyword_accuracy", "with a keyword")):
            epochs, values = series(list(subject.model.cv_rows), key)
            values = [v for e, v in zip(epochs, values, strict=True) if e > BEFORE_FIRST_STEP]
            if not values:
                continue
            moved = tail_slope(values)
            taught = subject.newest("teacher").get(key)
            third = values[(len(values) - 1) // 3]
            points = [f"{100 * value:.1f} %" for value in (values[0], third, values[-1])]
            best = max(values)
            rows.append(
                [
                    subject.name,
                    of,
                    *points,
                    f"{100 * best:.1f} % ({values.index(best)})",
                    f"{100 * moved[0]:+.2f}" if moved else "-",
                    "-" if taught is None else f"{100 * taught:.1f} %",
                ]
            )
            if taught is not None:
                how = "below" if values[-1] < taught else "above"
                said.append(
                    f"{subject.name}, {of}: {100 * values[-1]:.1f} % at the end, "
                    f"{100 * abs(values[-1] - taught):.1f} points {how} its teacher."
                )
    if not rows:
        return []
    header = ["Run", "cv utterances", "after epoch 0", "after a third", "end", "best (epoch)",
              f"points an epoch, last {TAIL}", "its teacher"]  # fmt: skip
    table = Table(header, rows, "1 - token errors / tokens, greedy.", text_columns=(1,))
    return [Heading("Accuracy"), table, *([Bullets(said)] if said else [])]


def health(subjects: Sequence[Subject]) -> list[Block]:
    """Return what went wrong, or that nothing did."""
    told = [f"**{s.name}**: {p.sentence()}" for s in subjects for p in s.model.problems]
    if told:
        return [Heading("Health"), Bullets(told)]
    return [Heading("Health"), Paragraph("The health checks found nothing in any of these runs.")]
