"""What to do next, by the student's FRR at one false alarm per hour."""

from dataclasses import dataclass
from typing import Any

from wekws.report.model_folder import Model
from wekws.score.pinyin import with_pinyin

BUDGET = "1/h"
DONE_BELOW = 0.05
RETRAIN_BELOW = 0.15
MID_CONFIG = "conf/fsmn_ctc_student_mid.yaml"
# Between the mini student (135,636) and the mid student (243,316).
_MID_PARAMS = 240_000


@dataclass(frozen=True)
class WorstKeyword:
    """The keyword that a model misses most at the budget, with its operating point."""

    keyword: str
    point: dict[str, Any]

    @property
    def frr(self) -> float:
        """Share of positives missed."""
        return self.point["misses"]["rate"]


def worst_keyword(model: Model, budget: str = BUDGET) -> WorstKeyword | None:
    """Return the keyword with the highest FRR at the budget; None if none was measured."""
    points = [(k, model.headline.operating_point(k, budget)) for k in model.headline.keywords]
    measured = [WorstKeyword(k, p) for k, p in points if p and p.get("misses")]
    return max(measured, key=lambda worst: worst.frr, default=None)


def percent(share: float) -> str:
    """Return a share as a percentage: two decimals below 10 %, one above."""
    return f"{100 * share:.2f} %" if share < 0.0995 else f"{100 * share:.1f} %"


def next_step(student: Model, teacher: Model | None) -> list[str]:
    """Return what to do next, a sentence or two each: the rule first, cautions after it."""
    worst = worst_keyword(student)
    if worst is None:
        return [f"{student.name}: no FRR at {BUDGET}, so the next step cannot be read off."]
    said = [
        f"**{student.name}**: its worst keyword, {with_pinyin(worst.keyword)}, is missed in "
        f"{percent(worst.frr)} of cases at {BUDGET}. {_advice(student, worst.frr)}"
    ]
    low, high = worst.point["misses"]["low"], worst.point["misses"]["high"]
    crossed = [limit for limit in (DONE_BELOW, RETRAIN_BELOW) if low < limit <= high]
    if crossed:
        limits = " and ".join(f"{100 * limit:.0f} %" for limit in crossed)
        said.append(
            f"The 95 % interval of that figure, {percent(low)} to {percent(high)}, reaches across "
            f"{limits}: more positives would be needed to be sure of the step."
        )
    teacher_worst = worst_keyword(teacher) if teacher else None
    if worst.frr >= DONE_BELOW and teacher_worst and teacher_worst.frr >= DONE_BELOW:
        said.append(
            f"The teacher itself misses {percent(teacher_worst.frr)} of "
            f"{with_pinyin(teacher_worst.keyword)}: a student learns from it and seldom does "
            "better, so a better teacher (more data, more epochs) comes first."
        )
    return said


def _advice(student: Model, frr: float) -> str:
    is_mid = (student.params or 0) >= _MID_PARAMS
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
            + ("help, look at the data." if is_mid else f"help, the mid student, `{MID_CONFIG}`.")
        )
    if not student.was_initialised:
        after = "" if is_mid else f"; if it stays above 15 %, the mid student, `{MID_CONFIG}`"
        return (
            "That is above 15 %: **initialise it from the teacher** (`--init_from_teacher`) and "
            f"retrain{after}."
        )
    if is_mid:
        return (
            "That is above 15 % although it is of the mid size and was initialised from the "
            "teacher: **look at the data and at the teacher** before a larger student."
        )
    return (
        "That is above 15 %, and it was initialised from the teacher already: **train the mid "
        f"student**, `{MID_CONFIG}`."
    )
