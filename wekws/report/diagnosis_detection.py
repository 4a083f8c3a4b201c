"""Diagnosis of detection: confidences and why they differ, and error rates."""

from collections.abc import Sequence

from wekws.report.detection import detection_blocks
from wekws.report.diagnosis_run import DiagnosedRun
from wekws.report.document import Block, Bullets, Heading, Table
from wekws.score.pinyin import with_pinyin
from wekws.score.results import Stats, all_keywords
from wekws.score.threshold_names import threshold_name

# Two ratios within this factor of each other count as similar.
SIMILAR = 1.25


def confidences(
    runs: Sequence[DiagnosedRun], teacher: DiagnosedRun | None, budget: str
) -> list[Block]:
    """Return each model's confidences, and why a student's differ from its teacher's."""
    shown = [run for run in runs if run.model.results]
    blocks: list[Block] = []
    for keyword in all_keywords([run.model.headline for run in shown]):
        rows = [_row(run, keyword, budget) for run in shown if keyword in run.model.headline.stats]
        header = ["Run", "5 % of positives", "50 % of positives", "99 % of negatives",
                  threshold_name([run.model.headline for run in shown], [budget]),
                  "median / threshold"]  # fmt: skip
        caption = "Confidence below which the given share of positives, or of events on negatives, "
        caption += "lies."
        blocks += [Heading(with_pinyin(keyword), 3), Table(header, rows, caption)]
    texts = _dev_confidences(runs)
    if teacher is not None and teacher.model.results:
        texts += [text for run in shown if run is not teacher for text in _separation(run, teacher)]
    blocks += [Bullets(texts)] if texts else []
    return [Heading("Confidences"), *blocks] if blocks else []


def _row(run: DiagnosedRun, keyword: str, budget: str) -> list[str]:
    stats = run.model.headline.stats[keyword]
    median, alarm = stats.positive_quantile(0.5), stats.negative_quantile(0.99)
    point = run.model.headline.operating_point(keyword, budget) or {}
    threshold = point.get("threshold")
    return [
        run.name,
        f"{stats.positive_quantile(0.05):.4f}",
        f"{median:.4f}",
        "-" if alarm is None else f"{alarm:.4f}",
        "-" if threshold is None else f"{threshold:.4f}",
        f"{median / threshold:.1f}" if threshold else "-",
    ]


def _dev_confidences(runs: Sequence[DiagnosedRun]) -> list[str]:
    """Return the figures of each teacher's check on dev before training, once per teacher."""
    texts = []
    for run in runs:
        name = run.teacher_checkpoint or f"that of {run.name}"
        for keyword, found in (run.newest("teacher").get("confidences") or {}).items():
            text = (
                f"The teacher, {name}, on dev, {with_pinyin(keyword)}: median confidence "
                f"{found['median']:.3g} on {found['positives']:,} positives"
            )
            if "separation" in found:
                text += (
                    f" and {found['negative_median']:.3g} on {found['negatives']:,} negatives; a "
                    f"positive scores above a negative in {100 * found['separation']:.1f} % of the "
                    "pairs"
                )
            texts.append(text + ".")
    return list(dict.fromkeys(texts))


def _separation(student: DiagnosedRun, teacher: DiagnosedRun) -> list[str]:
    """Return the ratio of positives to negatives, student against teacher, and what else differs.

    The ratio is that of the confidence of the lowest 5 % of positives to that of the highest 1 %
    of events on negatives.
    """
    texts = []
    student_stats, teacher_stats = student.model.headline.stats, teacher.model.headline.stats
    for keyword in (keyword for keyword in student_stats if keyword in teacher_stats):
        found = [_tails(stats[keyword]) for stats in (student_stats, teacher_stats)]
        (low, high), (teacher_low, teacher_high) = found
        if not (low and high and teacher_low and teacher_high):
            continue
        ratio, teacher_ratio = low / high, teacher_low / teacher_high
        text = (
            f"{student.name}, {with_pinyin(keyword)}: the lowest 5 % of positives lie below "
            f"{low:.3f}, the highest 1 % of events on negatives above {high:.3f}, a ratio of "
            f"{ratio:.1f}; for the teacher {teacher_low:.3f} and {teacher_high:.3f}, "
            f"{teacher_ratio:.1f}"
        )
        if max(ratio, teacher_ratio) / min(ratio, teacher_ratio) <= SIMILAR:
            texts.append(f"{text}: similar.")
        else:
            how = "less" if ratio < teacher_ratio else "more"
            texts.append(f"{text}: it separates them **{how}** clearly.")
    return [*texts, *_differences(student, teacher)] if texts else []


def _tails(stats: Stats) -> tuple[float, float | None]:
    return stats.positive_quantile(0.05), stats.negative_quantile(0.99)


def _differences(student: DiagnosedRun, teacher: DiagnosedRun) -> list[str]:
    """Return what may explain other confidences: outputs, fit to the labels, temperature."""
    found = []
    small, large = student.model.num_outputs, teacher.model.num_outputs
    if small and large and small == large:
        found.append(f"both have {small} outputs, so that does not explain a difference")
    elif small and large:
        found.append(
            f"they have {small} and {large} outputs, and the probability that other tokens take "
            "from a keyword's tokens differs with that"
        )
    student_fit, teacher_fit = _fit(student), _fit(teacher)
    if student_fit and teacher_fit:
        how = "worse" if student_fit[0] > teacher_fit[0] else "better"
        found.append(
            f"the student fits the labels {how} (CTC {student_fit[0]:.2f} in training and "
            f"{student_fit[1]:.2f} on dev, the teacher {teacher_fit[0]:.2f} and "
            f"{teacher_fit[1]:.2f})"
        )
    temperature = student.newest("step").get("temperature")
    if temperature:
        found.append(f"its targets were softened at a temperature of {temperature:g}")
    if not found:
        return []
    return [
        f"{student.name} and its teacher: {'; '.join(found)}. A threshold is valid for one model "
        "only."
    ]


def _fit(run: DiagnosedRun) -> tuple[float, float] | None:
    """Return CTC in training and on dev after the last epoch."""
    row = run.newest("cv")
    if "train_ctc" not in row or "cv_loss" not in row:
        return None
    return row["train_ctc"], row["cv_loss"]


def error_rates(runs: Sequence[DiagnosedRun], budget: str) -> list[Block]:
    """Return FRR at every budget, with intervals, of the runs that have results."""
    models = [run.model for run in runs if run.model.results]
    return [Heading("FRR at the budgets"), *detection_blocks(models, budget)] if models else []
