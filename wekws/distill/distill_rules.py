"""Health rules of distillation as a whole: the teacher, KD against the task, adapters.

A rule about one method is in the file of that method. Thresholds were checked as those in
``wekws.runlog.health_rules``.
"""

import math
import statistics
from collections.abc import Sequence

from wekws.distill.methods import METHOD_RULES, TERM_GROUPS
from wekws.runlog.fields import Row
from wekws.runlog.health import HealthRule, RunLog
from wekws.runlog.health_rules import GENERAL_RULES

# A student may pass its teacher by chance, but not by this share of the loss twice in a row.
WEAKER_SHARE, WEAKER_EPOCHS = 0.05, 2
# Means over 3 epochs against the 3 before. A healthy task loss falls a fifth as fast as KD; one
# that falls less than a tenth as fast (by logarithms) is left behind.
APART_EPOCHS, APART_FALL, APART_RATIO = 3, 0.05, 0.1
# An adapter starts as the identity; weight decay or a wrong sign can shrink it to nothing.
DEAD_WEIGHT_SHARE, DEAD_GRADIENT_SHARE = 0.01, 1e-6


def active_terms(log: RunLog) -> list[str]:
    """Return the distillation terms with a weight other than 0 in the last epoch."""
    return [
        name
        for name, group in TERM_GROUPS.items()
        if group != "task" and log.mean(f"weighted_{name}")
    ]


def weak_teacher(log: RunLog) -> str | None:
    """Find a student that is distilled from a teacher worse than itself."""
    recent = log.epochs[-WEAKER_EPOCHS:]
    if len(recent) < WEAKER_EPOCHS or not active_terms(log):
        return None
    if any("cv_loss" not in row or "cv_accuracy" not in row for row in (log.teacher, *recent)):
        return None
    loss, accuracy = log.teacher["cv_loss"], log.teacher["cv_accuracy"]
    if any(
        row["cv_loss"] > (1.0 - WEAKER_SHARE) * loss or row["cv_accuracy"] <= accuracy
        for row in recent
    ):
        return None
    row = recent[-1]
    return (
        f"the teacher is worse than the student on dev: cv loss {loss:.2f} and accuracy "
        f"{accuracy:.1%}, the student's {row['cv_loss']:.2f} and {row['cv_accuracy']:.1%}"
    )


def task_left_behind(log: RunLog) -> str | None:
    """Find a distillation loss that falls and leaves CTC behind, short of the teacher's level."""
    names = [name for name in active_terms(log) if log.series(f"cv_{name}")]
    losses = log.series("cv_loss")
    if not names or len(losses) < 2 * APART_EPOCHS:
        return None
    name = names[0]
    distances = log.series(f"cv_{name}")
    if len(distances) < len(losses) or has_reached_teacher(losses, log.teacher):
        return None
    (far, near), (then, now) = recent_means(distances), recent_means(losses)
    if far <= 0 or then <= 0:
        return None
    if near > (1.0 - APART_FALL) * far or not is_left_behind(now / then, near / far):
        return None
    text = (
        f"{name} on dev fell from {far:.2f} to {near:.2f} ({APART_EPOCHS}-epoch means), CTC went "
        f"from {then:.2f} to {now:.2f}"
    )
    cosine = log.gradient.get(f"grad_cos_{name}")
    return text if cosine is None else f"{text}; the cosine of their gradients is {cosine:.2f}"


def has_reached_teacher(losses: Sequence[float], teacher: Row) -> bool:
    """Say whether a cv loss ended at the teacher's level, so that CTC has little left to gain."""
    return losses[-1] <= teacher.get("cv_loss", 0.0)


def is_left_behind(task_ratio: float, kd_ratio: float) -> bool:
    """Say whether CTC fell less than a tenth as fast as KD; both as ratios, later over earlier."""
    if kd_ratio >= 1.0:
        return False
    if kd_ratio <= 0.0 or task_ratio <= 0.0:
        return task_ratio >= 1.0
    return math.log(task_ratio) > APART_RATIO * math.log(kd_ratio)


def recent_means(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over the 3 epochs before the last 3, and over the last 3."""
    before, recent = values[-2 * APART_EPOCHS : -APART_EPOCHS], values[-APART_EPOCHS:]
    return statistics.fmean(before), statistics.fmean(recent)


def dead_adapter(log: RunLog) -> str | None:
    """Find adapters of active terms whose weights or gradients are close to 0."""
    if not log.layers:
        return None
    row, found = log.layers[-1], []
    largest = max(row["gradient"].values(), default=0.0)
    active = active_terms(log)
    for name, weight in row.get("adapter_weight", {}).items():
        if not _is_trained(name, active):
            continue
        highest = max(each.get("adapter_weight", {}).get(name, 0.0) for each in log.layers)
        gradient = row["adapter_gradient"].get(name, largest)  # a frozen adapter has none
        if weight < DEAD_WEIGHT_SHARE * highest:
            found.append(f"{name}: weights of norm {weight:.2g}, once {highest:.2g}")
        elif gradient < DEAD_GRADIENT_SHARE * largest:
            found.append(f"{name}: a gradient of norm {gradient:.2g}, the student's {largest:.2g}")
    return f"adapters died: {'; '.join(found)}" if found else None


def _is_trained(adapter: str, active: Sequence[str]) -> bool:
    """Return whether an active term uses an adapter such as ``inner.linear``."""
    section = adapter.split(".")[0]
    if section == "layer_pairs":
        return any(TERM_GROUPS[term] == "feature" for term in active)
    return any(term.split("_")[0] == section for term in active)


DISTILLATION_RULES = (
    HealthRule(
        "weak_teacher",
        weak_teacher,
        "Train the teacher longer, or give the labels more weight (`--alpha`).",
    ),
    HealthRule(
        "task_left_behind",
        task_left_behind,
        "Give the labels more weight towards the end (`alpha: cosine_growth`), or compare "
        "non-blank frames only (`distill_conf.kd.frames: widened`).",
    ),
    HealthRule(
        "dead_adapter", dead_adapter, "Lower `weight_decay`, or give the term more weight."
    ),
)  # fmt: skip

ALL_RULES = (*GENERAL_RULES, *DISTILLATION_RULES, *METHOD_RULES)
"""The rules that training applies and that reports explain."""
