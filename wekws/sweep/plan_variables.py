"""From the options of ``run_distill.sh`` to the variables that the script goes on with."""

from collections.abc import Iterable
from pathlib import Path

from wekws.shell import UserPaths
from wekws.sweep.plan_checks import check_plan
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.recipe_plan import RecipePlan
from wekws.sweep.recipe_time import time_lines
from wekws.sweep.resolve_recipe import resolve


def plan_variables(options: RecipeOptions, paths: UserPaths) -> dict[str, object]:
    """Resolve the options, check what later stages will read, and return the script's variables.

    Those that end in ``_flags`` are arrays of flags; ``plan_summary`` is the plan in lines for the
    user, its estimated time included.
    options: what ``check_given`` lets pass.
    Raises: ConfigError or DataError, see ``resolve`` and ``check_plan``.
    """
    plan = resolve(options, paths)
    summary = [plan.summary(range(options.stage, options.stop_stage + 1))]
    if options.preset not in ("list", "ask"):  # these show times of their own
        check_plan(plan, options)
        summary += time_lines(plan, options)
    return {
        "corpus": plan.corpus,
        "data_dir": plan.data_dir,
        "negatives": ",".join(map(str, plan.negatives)),
        "negative_dirs": plan.negatives,
        "negative_flags": _negative_flags(plan),
        "language": plan.language,
        "lists": plan.lists,
        "exp": plan.exp,
        "download_dir": plan.download_dir,
        "synthesis_dir": plan.synthesis.out_dir if plan.synthesis else None,
        "synthesis_flags": plan.synthesis.flags if plan.synthesis else (),
        "lexicon": plan.tokens.lexicon,
        "make_lexicon": plan.tokens.is_made,
        "extra_lists": plan.extra_lists,
        "base_sets": plan.base_sets,
        "synthesised": plan.speech_beside_recordings,
        "synthesis_joins": plan.synthesis is not None and plan.synthesis.joins_recordings,
        "front_end": plan.front_end,
        "teacher_config": plan.teacher_config,
        "student_config": plan.student_config,
        "base_given": plan.base_given,
        "base_checkpoint": plan.base_checkpoint,
        "base_dict": plan.base_dict,
        "teacher_given": plan.teacher_given,
        "teacher_dir": plan.teacher_checkpoint.parent,
        "teacher_checkpoint": plan.teacher_checkpoint,
        "teacher_checkpoints": plan.teacher_checkpoints,
        "teacher_average": plan.teacher.num_average,
        "student_name": plan.student_name,
        "student_dir": plan.student_checkpoint.parent,
        "student_checkpoint": plan.student_checkpoint,
        "student_average": plan.student.num_average,
        "baseline": plan.baseline,
        "report_dir": plan.report_dir,
        "num_workers": plan.num_workers,
        "num_processes": plan.num_processes,
        "average_best": plan.average_best,
        "overlay_flags": _repeat("--overlay", plan.overlays),
        "student_overlay_flags": _repeat("--overlay", plan.student_overlays),
        "feature_teacher": plan.feature_teacher,
        "more_teacher_flags": _repeat("--teacher_checkpoint", plan.more_teachers),
        "base_flags": [
            *_repeat("--override", plan.base_overrides),
            *plan.base.flags,
            *_precision(plan, plan.base_checkpoint),
        ],
        "teacher_flags": [*plan.teacher.flags, *_precision(plan, plan.teacher_checkpoint)],
        "student_flags": [
            *_repeat("--override", plan.student_overrides),
            *plan.student.flags,
            *_precision(plan, plan.student_checkpoint),
        ],
        "plan_summary": "\n".join(summary),
    }


def _precision(plan: RecipePlan, checkpoint: Path) -> list[str]:
    return ["--bf16"] if plan.uses_bf16(checkpoint.parent) else []


def _negative_flags(plan: RecipePlan) -> list[str]:
    flags = _repeat("--negatives", plan.negatives)
    if plan.learns_transcripts:
        flags.append("--phonemes")
    return [*flags, "--train_as_dev"] if flags and plan.from_text else flags


def _repeat(flag: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (flag, str(value))]
