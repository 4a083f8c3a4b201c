"""The diagnosis's part on detection: confidences and why they differ, and error rates."""

from collections.abc import Sequence

from wekws.report.detection import detection_blocks
from wekws.report.diagnosis_subject import Subject
from wekws.report.document import Block, Bullets, Heading, Table
from wekws.report.next_step import BUDGET
from wekws.score.pinyin import with_pinyin
from wekws.score.results import all_keywords

# Ratios within this factor of each other are called alike.
ALIKE = 1.25


def confidences(subjects: Sequence[Subject], teacher: Subject | None) -> list[Block]:
    """Return where each model's confidences lie, and why a student's are not its teacher's."""
    shown = [subject for subject in subjects if subject.model.results]
    blocks: list[Block] = []
    for keyword in all_keywords([subject.model.headline for subject in shown]):
        rows = [_row(s, keyword) for s in shown if keyword in s.model.headline.stats]
        header = ["Run", "positives: 5 %", "median", "negatives: 99 %", f"threshold at {BUDGET}",
                  "median / threshold"]  # fmt: skip
        caption = (
            "Confidence that the given share of positives, or of events on negatives, is under."
        )
        blocks += [Heading(with_pinyin(keyword), 3), Table(header, rows, caption)]
    said = _dev_confidences(subjects)
    if teacher is not None and teacher.model.results:
        said += [text for s in shown if s is not teacher for text in _reasons(s, teacher)]
    blocks += [Bullets(said)] if said else []
    return [Heading("Confidences"), *blocks] if blocks else []


def _row(subject: Subject, keyword: str) -> list[str]:
    stats = subject.model.headline.stats[keyword]
    median, alarm = stats.positive_quantile(0.5), stats.negative_quantile(0.99)
    point = subject.model.headline.operating_point(keyword, BUDGET) or {}
    threshold = point.get("threshold")
    return [
        subject.name,
        f"{stats.positive_quantile(0.05):.4f}",
        f"{median:.4f}",
        "-" if alarm is None else f"{alarm:.4f}",
        "-" if threshold is None else f"{threshold:.4f}",
        f"{median / threshold:.1f}" if threshold else "-",
    ]


def _dev_confidences(subjects: Sequence[Subject]) -> list[str]:
    """Return what the check before training said of each teacher, once."""
    said = []
    for subject in subjects:
        name = subject.teacher_checkpoint or f"that of {subject.name}"
        for keyword, found in (subject.newest("teacher").get("confidences") or {}).items():
            text = (
                f"The teacher, {name}, on dev, {with_pinyin(keyword)}: median confidence "
                f"{found['median']:.3g} of {found['positives']:,} positives"
            )
            if "separation" in found:
                text += (
                    f", {found['negative_median']:.3g} of {found['negatives']:,} negatives; a "
                    f"positive is above a negative in {100 * found['separation']:.1f} % of pairs"
                )
            said.append(text + ".")
    return list(dict.fromkeys(said))


def _reasons(student: Subject, teacher: Subject) -> list[str]:
    """Return how far confidences lie apart, the teacher's too, and what differs with that."""
    ours, theirs = student.model.headline.stats, teacher.model.headline.stats
    said = []
    for keyword in (keyword for keyword in ours if keyword in theirs):
        lows = [stats[keyword].positive_quantile(0.05) for stats in (ours, theirs)]
        highs = [stats[keyword].negative_quantile(0.99) for stats in (ours, theirs)]
        if not all(lows) or not all(highs):
            continue
        own, other = (low / high for low, high in zip(lows, highs, strict=True))
        text = (
            f"{student.name}, {with_pinyin(keyword)}: the lowest 5 % of positives end at "
            f"{lows[0]:.3f}, the highest 1 % of events on negatives begin at {highs[0]:.3f}, a "
            f"ratio of {own:.1f}; with the teacher {lows[1]:.3f} and {highs[1]:.3f}, {other:.1f}"
        )
        if max(own, other) / min(own, other) <= ALIKE:
            said.append(f"{text}: alike.")
        else:
            how = "less" if own < other else "more"
            said.append(f"{text}: it tells them apart **{how}** clearly.")
    return [*said, *_causes(student, teacher)] if said else []


def _causes(student: Subject, teacher: Subject) -> list[str]:
    """Return what else is not the same: outputs, how well training fits, what it was taught."""
    found = []
    small, large = student.model.num_outputs, teacher.model.num_outputs
    if small and large and small == large:
        found.append(f"both choose among {small} outputs, so that is no reason for a difference")
    elif small and large:
        found.append(
            f"they choose among {small} and {large} outputs, and what the other tokens take from "
            "a keyword's differs with that"
        )
    fits = [_fit(subject) for subject in (student, teacher)]
    if None not in fits:
        (own, own_cv), (other, other_cv) = fits
        how = "less" if own > other else "more"
        found.append(
            f"it fits the labels {how} sharply (CTC {own:.2f} in training and {own_cv:.2f} on "
            f"dev, the teacher {other:.2f} and {other_cv:.2f})"
        )
    temperature = student.newest("step").get("temperature")
    if temperature:
        found.append(f"it was taught by posteriors softened at T = {temperature:g}")
    if not found:
        return []
    return [f"{student.name} and its teacher: {'; '.join(found)}. A threshold belongs to a model."]


def _fit(subject: Subject) -> tuple[float, float] | None:
    row = subject.newest("cv")
    if "train_ctc" not in row or "cv_loss" not in row:
        return None
    return row["train_ctc"], row["cv_loss"]


def error_rates(subjects: Sequence[Subject]) -> list[Block]:
    """Return FRR at every budget, with intervals, of the runs that have results."""
    models = [subject.model for subject in subjects if subject.model.results]
    return [Heading("FRR at the budgets"), *detection_blocks(models)] if models else []
