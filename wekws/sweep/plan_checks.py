"""Part of the recipe's plan: what later stages would refuse is refused before the first one."""

from wekws.config import load_config
from wekws.dataset.manifest import SPLITS
from wekws.dataset.negatives import read_negatives
from wekws.dataset.vocabulary import MOBVOI_KEYWORDS, parse_keywords, read_keywords
from wekws.errors import ConfigError
from wekws.runlog.fields import METRICS_NAME
from wekws.score.negative_hours import hours_by_category
from wekws.score.thresholds import category_hours_from_text, require_categories
from wekws.sweep.begun_runs import require_resumable
from wekws.sweep.given_models import require_usable_models
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.recipe_plan import RecipePlan
from wekws.sweep.recording_checks import require_usable_recordings


def check_plan(plan: RecipePlan, options: RecipeOptions) -> None:
    """Check recordings, categories, feature teacher, given models and runs that have begun.

    Raises: ConfigError or DataError that names the option to change.
    """
    _require_recordings(plan, options)
    _require_same_keywords(plan, options)
    _require_feature_teacher(plan)
    _require_undistilled_first_models(plan)
    category_hours = category_hours_from_text(options.category_hours)
    if category_hours and options.stage > 1:  # earlier, stage 1 checks the lists that it has made
        dev_list = plan.lists / SPLITS[1] / "data.list"
        known = hours_by_category(dev_list, parse_keywords(options.keywords))
        require_categories(category_hours, known, dev_list)
    _require_baseline(plan)
    vocabulary = plan.tokens.vocabulary(options, plan.lists)
    require_usable_models(plan, parse_keywords(options.keywords), vocabulary)
    require_resumable(plan, options, vocabulary)


def _require_recordings(plan: RecipePlan, options: RecipeOptions) -> None:
    if not options.stage <= -1 <= options.stop_stage:
        return
    for folder in plan.negatives:
        read_negatives(folder)
    keywords = parse_keywords(options.keywords)
    if plan.data_dir is not None:
        require_usable_recordings(plan.data_dir, plan.lists, keywords)
    if plan.corpus == "mobvoi" and (absent := [k for k in keywords if k not in MOBVOI_KEYWORDS]):
        raise ConfigError(
            f"--keywords {','.join(absent)}: the corpus of --corpus mobvoi has "
            f"{' and '.join(MOBVOI_KEYWORDS)} alone"
        )


def _require_same_keywords(plan: RecipePlan, options: RecipeOptions) -> None:
    """Refuse other keywords than those of the lists, which an earlier stage has made."""
    made = plan.lists / "dict" / "keywords.txt"
    if options.stage <= 0 or not made.is_file():
        return
    known, given = read_keywords(made), parse_keywords(options.keywords)
    if sorted(known) != sorted(given):
        raise ConfigError(
            f"--keywords {','.join(given)}: the lists of this run are of {', '.join(known)} "
            f"({made}); give these, or another --name and begin with stage -2"
        )


def _require_undistilled_first_models(plan: RecipePlan) -> None:
    """Refuse stages of distillation for base and teacher, which have no teacher."""
    if plan.teacher_given:
        return
    stages = plan.teacher.config.stage_plan
    if stages is not None and stages.is_distilling:
        paths = load_config(plan.teacher_config, plan.overlays).origin("stages")
        raise ConfigError(
            f"--overlay {paths}: has stages of distillation (`stages`), and an overlay is laid "
            "over base and teacher too, which have no teacher; give it with --student_overlay"
        )


def _require_baseline(plan: RecipePlan) -> None:
    """Check that the folder that stage 5 compares the student with is one of a run."""
    folder = plan.baseline
    if folder is None or (folder / METRICS_NAME).is_file():
        return
    if not any(folder.glob(f"{SPLITS[2]}_*/summary.json")):
        raise ConfigError(
            f"--baseline {folder}: neither {METRICS_NAME} nor {SPLITS[2]}_*/summary.json; expected "
            "the folder of a run, such as exp/NAME/student"
        )


def _require_feature_teacher(plan: RecipePlan) -> None:
    models = {"teacher": plan.teacher, "student": plan.student}
    if plan.teacher_given:
        del models["teacher"]
    for model, length in models.items():
        if length.config.distill_conf.needs_feature_teacher and not plan.feature_teacher:
            raise ConfigError(
                f"--feature_teacher: missing; a term of the {model} has its outputs as targets "
                "(distill_conf); give it, or leave out the overlay with that term, such as "
                "conf/overlays/embedding.yaml"
            )
