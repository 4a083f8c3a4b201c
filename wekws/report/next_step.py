"""Advice on the next step, from the student's FRR at the headline budget."""

from dataclasses import dataclass
from typing import Any

from wekws.model.fsmn import FSMNConfig
from wekws.report.format import percent
from wekws.report.model_folder import TrainedModel
from wekws.score.pinyin import with_pinyin

DONE_BELOW = 0.05
RETRAIN_BELOW = 0.15
MID_CONFIG = "conf/fsmn_ctc_student_mid.yaml"
# Sizes of the mid student's backbone, as in MID_CONFIG.
MID_SIZES = {
    "input_affine_dim": 112,
    "num_layers": 4,
    "linear_dim": 192,
    "proj_dim": 96,
    "output_affine_dim": 112,
}


def is_mid_size(backbone: FSMNConfig | None) -> bool:
    """Say whether a backbone is at least as large as the mid student's in every dimension."""
    if backbone is None:
        return False
    return all(getattr(backbone, name) >= size for name, size in MID_SIZES.items())


@dataclass(frozen=True)
class WorstKeyword:
    """The keyword with a model's highest FRR at a budget."""

    keyword: str
    """The keyword."""
    point: dict[str, Any]
    """Its operating point, as in ``summary.json``."""

    @property
    def frr(self) -> float:
        """Share of positives missed."""
        return self.point["misses"]["rate"]


def worst_keyword(model: TrainedModel, budget: str) -> WorstKeyword | None:
    """Return the keyword with the highest FRR at the budget; None if there is no FRR at all."""
    points = [(k, model.headline.operating_point(k, budget)) for k in model.headline.keywords]
    measured = [WorstKeyword(k, p) for k, p in points if p and p.get("misses")]
    return max(measured, key=lambda worst: worst.frr, default=None)


def next_step(student: TrainedModel, teacher: TrainedModel | None, budget: str) -> list[str]:
    """Return the next step, one or two sentences each: first the rule, then cautions."""
    worst = worst_keyword(student, budget)
    if worst is None:
        return [f"{student.name}: no FRR at {budget} was measured, so there is no advice on it."]
    texts = [
        f"**{student.name}**: its worst keyword, {with_pinyin(worst.keyword)}, has an FRR of "
        f"{percent(worst.frr)} at {budget}. {_advice(student, worst.frr)}"
    ]
    low, high = worst.point["misses"]["low"], worst.point["misses"]["high"]
    crossed = [limit for limit in (DONE_BELOW, RETRAIN_BELOW) if low < limit <= high]
    if crossed:
        limits = " and ".join(f"{100 * limit:.0f} %" for limit in crossed)
        texts.append(
            f"The 95 % interval of that FRR, {percent(low)} to {percent(high)}, contains "
            f"{limits}: the advice needs more positives to be certain."
        )
    teacher_worst = worst_keyword(teacher, budget) if teacher else None
    if worst.frr >= DONE_BELOW and teacher_worst and teacher_worst.frr >= DONE_BELOW:
        texts.append(
            f"The teacher itself has an FRR of {percent(teacher_worst.frr)} on "
            f"{with_pinyin(teacher_worst.keyword)}. A student is seldom better than its teacher, "
            "so improve the teacher first (more data, more epochs)."
        )
    return texts


def _advice(student: TrainedModel, frr: float) -> str:
    is_mid = is_mid_size(student.backbone)
    if frr < DONE_BELOW:
        return "That is under 5 %: **done**."
    if frr < RETRAIN_BELOW:
        if not student.was_initialised:
            return (
                "That is between 5 and 15 %: **initialise the student from the teacher and "
                "retrain** (`--init_from_teacher`)."
            )
        return (
            "That is between 5 and 15 %, and it was initialised from the teacher already: **train "
            "longer or on more, more varied data, and average more checkpoints**; if that does not "
            + (
                "help, check the data."
                if is_mid
                else f"help, train the mid student, `{MID_CONFIG}`."
            )
        )
    if not student.was_initialised:
        after = (
            "" if is_mid else f"; if FRR stays above 15 %, train the mid student, `{MID_CONFIG}`"
        )
        return (
            "That is above 15 %: **initialise it from the teacher** (`--init_from_teacher`) and "
            f"retrain{after}."
        )
    if is_mid:
        return (
            "That is above 15 % although it has the mid size and was initialised from the "
            "teacher: **check the data and the teacher** before training a larger student."
        )
    return (
        "That is above 15 %, and it was initialised from the teacher already: **train the mid "
        f"student**, `{MID_CONFIG}`."
    )
