"""Advice on the next step: one action per run, the first of these that applies.

1. finish a run that was stopped; 2. solve a problem that lasted to its end; 3. go on with a loss
that still falls; 4. get the audio that the budget needs; 5. improve a teacher that is no better
than its student; 6. lengthen a short schedule; 7. FRR under 5 %: done, 5 to 15 %: the transplant,
above 15 %: a larger student. A teacher is ready below 5 %; above that it is trained longer or on
more data.
FRR is that of the worst keyword on the test set's own curve, where student and teacher have the
same rate of false alarms. A student under 5 % is done, also if 2, 3 or 6 apply. Thresholds from dev
that miss their budget on test are named before anything else.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wekws.errors import DataError
from wekws.model.model_conf import FSMNConfig
from wekws.report.diagnosis_run import has_short_schedule, still_falls, tail_slope
from wekws.report.format import percent
from wekws.report.model_folder import TrainedModel
from wekws.report.training_again import flags_beside, flags_for_epochs
from wekws.runlog.fields import BEFORE_FIRST_STEP
from wekws.runlog.metrics_reader import series
from wekws.score.det import budget_from_label
from wekws.score.paired import Bootstrap, Estimate, estimate, read_trials
from wekws.score.pinyin import with_pinyin
from wekws.score.results import CurvePoint
from wekws.score.scores import SCORE_INFO_NAME
from wekws.score.summary import is_unsupported, misses_budget

logger = logging.getLogger(__name__)

DONE_BELOW = 0.05
RETRAIN_BELOW = 0.15
LOW_ACCURACY = 0.5
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
    point: CurvePoint
    """Its point on the set's own curve."""

    @property
    def frr(self) -> float:
        """Share of positives missed."""
        return self.point.frr


def worst_keyword(model: TrainedModel, budget: str) -> WorstKeyword | None:
    """Return the keyword with the highest FRR at the budget; None if there is no FRR at all."""
    if not model.results:
        return None
    points = [(k, model.headline.own_curve(k, budget)) for k in model.headline.keywords]
    measured = [WorstKeyword(k, p) for k, p in points if p is not None]
    return max(measured, key=lambda worst: worst.frr, default=None)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A student beside its teacher, at the same rate of false alarms."""

    student: TrainedModel
    """The student, or the only model."""
    teacher: TrainedModel | None
    """Its teacher, if there is one with a log or results."""
    budget: str
    """Budget of the figures, such as ``1/h``."""
    worst: WorstKeyword | None
    """The student's worst keyword; None without results."""
    teacher_point: CurvePoint | None
    """The teacher's point for this keyword."""
    difference: Estimate | None
    """FRR of the student minus that of the teacher, for this keyword."""

    @property
    def is_done(self) -> bool:
        """Whether the worst FRR is low enough."""
        return self.worst is not None and self.worst.frr < DONE_BELOW


def next_step(student: TrainedModel, teacher: TrainedModel | None, budget: str) -> list[str]:
    """Return the next step, then what limits the advice; one or two sentences each.

    teacher: not used for a model that was not distilled.
    """
    return advise(compare(student, teacher if student.role == "student" else None, budget))


def compare(student: TrainedModel, teacher: TrainedModel | None, budget: str) -> Standing:
    """Return where a student stands against its teacher."""
    worst = worst_keyword(student, budget)
    point = None
    if worst is not None and teacher is not None and teacher.results:
        point = teacher.headline.own_curve(worst.keyword, budget)
    return Standing(
        student=student,
        teacher=teacher,
        budget=budget,
        worst=worst,
        teacher_point=point,
        difference=_difference(student, teacher, worst, point, budget),
    )


def _difference(
    student: TrainedModel,
    teacher: TrainedModel | None,
    worst: WorstKeyword | None,
    point: CurvePoint | None,
    budget: str,
) -> Estimate | None:
    if teacher is None or worst is None or point is None:
        return None
    dirs = [model.headline.result_dir for model in (student, teacher)]
    if all((folder / SCORE_INFO_NAME).is_file() for folder in dirs):
        try:
            runs = [read_trials(folder) for folder in dirs]
            rule = budget_from_label(budget)
            bootstrap = Bootstrap(runs[0].keys)
            first, second = (bootstrap.frr([run], worst.keyword, rule) for run in runs)
            return estimate(first - second)
        except (DataError, FileNotFoundError) as error:
            logger.warning("no paired comparison of teacher and student: %s", error)
    return _unpaired(worst.point, point)


def _unpaired(first: CurvePoint, second: CurvePoint) -> Estimate:
    """Return the difference of two FRRs with its interval, as if from different utterances.

    Source: Newcombe 1998, Statistics in Medicine 17, 873, method 10.
    """
    value = first.frr - second.frr
    low = value - math.hypot(first.frr - first.low, second.high - second.frr)
    high = value + math.hypot(first.high - first.frr, second.frr - second.low)
    return Estimate(value, float(np.clip(low, -1, 1)), float(np.clip(high, -1, 1)))


def advise(standing: Standing) -> list[str]:
    """Return the first step that applies, then what limits the advice."""
    name = standing.student.name
    for step in (_unfinished, _problem, _falling):
        if step is not _unfinished and standing.is_done:
            continue
        if text := step(standing):
            return [f"**{name}**: {text}"]
    if standing.worst is None:
        return [f"**{name}** has no FRR at {standing.budget}: evaluate it (`bash evaluate.sh`)."]
    later: tuple[Callable[[Standing], str], ...] = (
        _too_little_data,
        _weak_teacher,
        _short_schedule,
        _by_frr,
    )
    action = next(text for step in later if (text := step(standing)))
    texts = [_over_budget(standing), _figures(standing), action]
    return [f"**{name}**: {' '.join(filter(None, texts))}", *_limits(standing)]


def _missed_budgets(standing: Standing) -> dict[str, float]:
    """Return the false alarms per hour of the keywords whose threshold misses the budget here."""
    headline = standing.student.headline
    points = {k: headline.operating_point(k, standing.budget) for k in headline.keywords}
    missed = {k: point for k, point in points.items() if point is not None and misses_budget(point)}
    return {keyword: point["false_alarms"]["per_hour"] for keyword, point in missed.items()}


def _over_budget(standing: Standing) -> str:
    """Return the keywords whose threshold from dev misses the budget here."""
    rates = [f"{with_pinyin(k)} {rate:.2f}" for k, rate in _missed_budgets(standing).items()]
    if not rates:
        return ""
    return (
        f"with the thresholds from dev for {standing.budget} it gives more false alarms per hour "
        f"here ({', '.join(rates)});"
    )


def _figures(standing: Standing) -> str:
    """Return the FRRs of student and teacher at the same rate of false alarms."""
    worst = standing.worst
    assert worst is not None
    text = (
        f"its worst keyword, {with_pinyin(worst.keyword)}, has an FRR of {_share(worst.point)} at "
        f"{standing.budget} on this set's own curve"
    )
    if standing.teacher_point is not None and standing.difference is not None:
        found = standing.difference
        text += (
            f", its teacher {_share(standing.teacher_point)}; difference "
            f"{100 * found.value:+.2f} points ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
        )
    return text + "."


def _share(point: CurvePoint) -> str:
    return f"{percent(point.frr)} ({100 * point.low:.2f}-{100 * point.high:.2f})"


def _unfinished(standing: Standing) -> str:
    """Advise to finish a run; the teacher's comes first, the student depends on it."""
    for model, whose in ((standing.teacher, "its teacher"), (standing.student, "it")):
        if model is None or not model.cv_rows or not model.max_epoch:
            continue
        if model.num_epochs >= model.max_epoch:
            continue
        losses = _trained_losses(model)
        moved = f" (cv loss {losses[0]:.2f} to {losses[-1]:.2f} so far)" if losses else ""
        return (
            f"{whose} has finished {model.num_epochs} of {model.max_epoch} epochs{moved}: **finish "
            f"the epochs**. {_how_to_continue(standing, model)} Until then, the figures are those "
            "of an unfinished run."
        )
    return ""


def _how_to_continue(standing: Standing, model: TrainedModel) -> str:
    """Say what continues a run; a student of an unfinished teacher has to be trained anew."""
    text = "The same command continues after the last one"
    if model is standing.teacher:
        flags = flags_beside(standing.student)
        return f"{text}; add `{flags}`, since this student was distilled from the earlier epochs."
    if model.role == "teacher":
        return f"{text}; with a new `--student_name`, if a student was distilled from it before."
    return f"{text}."


def _problem(standing: Standing) -> str:
    """Return a problem of training that lasted to the end, with its remedy."""
    for model, whose in ((standing.teacher, "in its teacher, "), (standing.student, "")):
        for problem in model.problems if model is not None else ():
            if problem.end_epoch is None:
                return f"a problem lasted to the end of training: {whose}{problem.finding}"
    accuracy = series(standing.student.cv_rows, "cv_keyword_accuracy")[1]
    if accuracy and accuracy[-1] < LOW_ACCURACY:
        return (
            f"at the end, {percent(accuracy[-1])} of the tokens in dev utterances with a keyword "
            "are right, less than half: **check labels and dictionary**, then train longer."
        )
    return ""


def _falling(standing: Standing) -> str:
    """Advise to train longer while the cv loss still falls."""
    for model, whose in ((standing.teacher, "its teacher's"), (standing.student, "its")):
        losses = _trained_losses(model) if model is not None else []
        moved = tail_slope(losses)
        if model is not None and moved is not None and still_falls(losses):
            return (
                f"{whose} cv loss still fell by {-100 * moved[1]:.1f} % per epoch at the end: "
                "**train it longer**, such as with "
                f"`{flags_for_epochs(model, 2 * model.num_epochs)}` added to the command that "
                "trained it (a new folder: the schedules follow the number of epochs). Keep it if "
                "`wekws.bin.compare_runs` finds fewer misses: a lower cv loss does not promise it."
            )
    return ""


def _trained_losses(model: TrainedModel) -> list[float]:
    epochs, losses = series(model.cv_rows, "cv_loss")
    return [x for epoch, x in zip(epochs, losses, strict=True) if epoch > BEFORE_FIRST_STEP]


def _too_little_data(standing: Standing) -> str:
    """Advise to get more audio if the set cannot answer at this budget."""
    worst, budget = standing.worst, standing.budget
    assert worst is not None
    entry = standing.student.headline.entry(worst.keyword)
    point = standing.student.headline.operating_point(worst.keyword, budget) or {}
    if worst.point.low < DONE_BELOW and worst.point.high >= RETRAIN_BELOW:
        return (
            f"{entry.get('positives')} positives cannot tell under 5 % from above 15 %: **test on "
            "more recordings of the keyword** before anything is retrained."
        )
    per_hour, hours = budget_from_label(budget).per_hour, entry.get("negative_hours") or 0.0
    if per_hour and hours * per_hour < 1:
        return (
            f"The {hours:.2f} h of negatives allow no false alarm at {budget}: **test on more "
            "negatives** (`--negatives DIR`)."
        )
    if standing.is_done:
        return ""
    if misses_budget(point) or is_unsupported(point):
        why = "Dev is too small for a threshold at this budget"
        if misses_budget(point):
            why = "The threshold from dev does not keep its budget"
        return f"{why}: **add negatives** (`--negatives DIR`), for dev and for training."
    return ""


def _weak_teacher(standing: Standing) -> str:
    """Advise to improve a teacher that limits its student."""
    point, found = standing.teacher_point, standing.difference
    if standing.is_done or point is None or found is None or point.frr < DONE_BELOW:
        return ""
    if found.low > 0 and point.frr < RETRAIN_BELOW:
        return ""
    if found.low <= 0 < found.value and found.high >= DONE_BELOW and point.frr < RETRAIN_BELOW:
        assert standing.worst is not None
        positives = standing.student.headline.entry(standing.worst.keyword).get("positives")
        return (
            f"{positives} positives cannot tell whether the teacher is better: **test on more "
            "recordings of the keyword** before anything is retrained."
        )
    how = "no better than the student" if found.low <= 0 else "above 15 % itself"
    teacher, longer = standing.teacher, "more epochs"
    if teacher is not None and has_short_schedule(_trained_losses(teacher)):
        longer += f" (`{flags_for_epochs(teacher, 2 * teacher.num_epochs)}`)"
    return (
        f"The teacher is {how}: **improve the teacher first** (more data, {longer}, or a second "
        "one, `--more_teachers`). A larger student would not help."
    )


def _short_schedule(standing: Standing) -> str:
    """Advise a longer schedule where a short one ended while the cv loss fell."""
    model = standing.student
    needs_start = model.role == "student" and not model.was_initialised
    if standing.is_done or needs_start or not has_short_schedule(_trained_losses(model)):
        return ""
    return (
        f"Its schedule of {model.num_epochs} epochs was short, a longer one may end lower: "
        f"**train it longer** (`{flags_for_epochs(model, 2 * model.num_epochs)}`) before "
        "anything else is changed."
    )


def _by_frr(standing: Standing) -> str:
    """Return the rule of 5 and 15 %."""
    worst, student = standing.worst, standing.student
    assert worst is not None
    is_mid = is_mid_size(student.backbone)
    if student.role != "student":
        return _teacher_by_frr(worst)
    if worst.frr < DONE_BELOW:
        found = standing.difference
        gap = ", although the teacher is better" if found is not None and found.low > 0 else ""
        if _missed_budgets(standing):
            return (
                f"That is under 5 %: the student is done{gap}, its thresholds are not: **choose "
                "them on more negatives** (`--negatives DIR`)."
            )
        return f"That is under 5 %: **done**{gap}."
    band = _band(worst)
    if not student.was_initialised:
        return (
            f"That is {band}: **initialise the student from the teacher and retrain** "
            "(`--init_from_teacher`)."
        )
    if worst.frr < RETRAIN_BELOW:
        return (
            f"That is {band}, and it was initialised from the teacher already: **train longer or "
            "on more, more varied data**."
        )
    if is_mid:
        return (
            f"That is {band} although it has the mid size and was initialised from the teacher: "
            "**check the data** before training a larger student."
        )
    return (
        f"That is {band}, and it was initialised from the teacher already: **train the mid "
        f"student**, `{MID_CONFIG}`."
    )


def _teacher_by_frr(worst: WorstKeyword) -> str:
    """Return the rule for a model that has no teacher, but may be one."""
    if worst.frr < DONE_BELOW:
        return "That is under 5 %: **done**; a student can be distilled from it."
    return (
        f"That is {_band(worst)}: **train it longer or on more, more varied data** before a "
        "student is distilled from it."
    )


def _band(worst: WorstKeyword) -> str:
    return "between 5 and 15 %" if worst.frr < RETRAIN_BELOW else "above 15 %"


def _limits(standing: Standing) -> list[str]:
    """Return what makes the advice uncertain."""
    worst = standing.worst
    assert worst is not None
    crossed = [x for x in (DONE_BELOW, RETRAIN_BELOW) if worst.point.low < x <= worst.point.high]
    if len(crossed) != 1:
        return []
    return [
        f"The 95 % interval of the FRR of {standing.student.name} contains "
        f"{100 * crossed[0]:.0f} %: the advice needs more positives to be certain.",
    ]
