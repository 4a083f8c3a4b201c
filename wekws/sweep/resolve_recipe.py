"""From the options of ``run_distill.sh`` to its plan, before the first stage.

One rule decides each value: the flag, then an overlay, preset or configuration, then the default.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from wekws.config import load_config, to_mapping
from wekws.dataset.dataset_conf import load_dataset_config
from wekws.dataset.feature_teacher import is_description, load_feature_teacher
from wekws.dataset.manifest import SPLITS
from wekws.dataset.negatives import language_of
from wekws.dataset.vocabulary import Vocabulary, parse_keywords
from wekws.distill.methods import DistillConfig
from wekws.errors import ConfigError
from wekws.machine import has_bf16_instructions, usable_cores
from wekws.model.model_conf import config_beside
from wekws.shell import UserPaths
from wekws.sweep.given_options import preset_path
from wekws.sweep.preset_files import SHORT_TEACHERS
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.recipe_plan import RecipePlan
from wekws.sweep.synthesis_plan import SynthesisOptions, SynthesisPlan, corpus_name
from wekws.sweep.token_plan import TokenPlan, plan_tokens
from wekws.sweep.training_length import (
    OWN_WORD_BASE_EPOCHS,
    SYNTHESISED_BASE_EPOCHS,
    Length,
    student_length,
    teacher_lengths,
)
from wekws.train.distributed import choose_device

logger = logging.getLogger(__name__)

BACKGROUND_OVERLAY = Path("conf/overlays/background.yaml")
EMBEDDING_OVERLAY = Path("conf/overlays/embedding.yaml")
TEXT_OVERLAY = Path("conf/overlays/from_text.yaml")
QUICK_TEXT_OVERLAY = Path("conf/overlays/from_text_quick.yaml")
NEGATIVES_OVERLAY = Path("conf/overlays/own_word_negatives.yaml")
CHOSEN_TEACHERS = "teachers.txt"
DEFAULT_OVERLAYS: dict[str, tuple[str, ...]] = {
    "synth": ("conf/overlays/speed.yaml",),
    "kaldi": ("conf/overlays/own_word.yaml",),
    "mobvoi": (),
}
_CHOICES = {"true": True, "false": False}  # of options that may also be auto
_WITHOUT_KEYWORD_TERM = ("keyword_conf.weight=0", "keyword_conf.mined_share=0")
_TOKEN_STAGE, _BASE_STAGE = 0, 2
_MOST_CPU_PROCESSES = 4  # of one training: each has its own copy of lists and weights
_WITHOUT_JOINS = ("dataset_conf.join_prob=0",)


def resolve(options: RecipeOptions, paths: UserPaths) -> RecipePlan:
    """Resolve every option and check what the stages will read.

    options: what ``check_given`` lets pass.
    Raises: ConfigError for files that are missing, a configuration that cannot be used, or fewer
    epochs than are to be averaged.
    """
    device = choose_device(options.device, 0, options.num_processes or 1)
    speech = _synthesis_options(options, paths)
    data = _data(options, paths, speech)
    configs = _configurations(options, paths, speech, data)
    lengths = _lengths(options, data, configs)
    exp = configs.exp
    student_name = options.student_name or "student" + configs.preset_suffix
    report_suffix = "" if student_name == "student" else f"_{student_name.removeprefix('student_')}"
    base_checkpoint = paths.find_given(
        options.base_checkpoint, "--base_checkpoint", exp / "base" / "final.pt"
    )
    base_dict = base_checkpoint.with_name("dict.txt")
    if options.base_checkpoint and not options.base_dict and not base_dict.is_file():
        raise ConfigError(f"{base_dict}: no such file; give --base_dict")
    plan = RecipePlan(
        corpus=data.corpus,
        data_dir=data.data_dir,
        from_text=options.from_text,
        negatives=_negatives(options, paths),
        learns_transcripts=_learns_transcripts(options, data.tokens, data.language),
        language=data.language,
        lists=data.lists,
        exp=exp,
        download_dir=data.download_dir,
        synthesis=data.synthesis,
        tokens=data.tokens,
        extra_lists=_extra_lists(options, paths),
        overlays=configs.overlays,
        student_overlays=configs.student_overlays,
        front_end=_front_end(configs.teacher, configs.overlays),
        teacher_config=configs.teacher,
        student_config=configs.student,
        base_checkpoint=base_checkpoint,
        base_dict=paths.find_given(options.base_dict, "--base_dict", base_dict),
        base_given=bool(options.base_checkpoint),
        base=lengths.base,
        base_overrides=lengths.base_overrides,
        teacher_checkpoint=paths.find_given(
            options.teacher_checkpoint,
            "--teacher_checkpoint",
            exp / "teacher" / f"avg_{lengths.teacher.num_average}.pt",
        ),
        teacher_given=bool(options.teacher_checkpoint),
        teacher=lengths.teacher,
        more_teachers=paths.find_all(options.more_teachers, "--more_teachers"),
        num_teachers=options.num_teachers,
        feature_teacher=_feature_teacher(options.feature_teacher, paths),
        student_name=student_name,
        student=lengths.student,
        student_overrides=lengths.student_overrides,
        weighting=lengths.weighting,
        baseline=paths.find(options.baseline, "--baseline") if options.baseline else None,
        report_dir=exp / f"report{report_suffix}",
        num_workers=usable_cores() if options.num_workers is None else options.num_workers,
        num_processes=_num_processes(options, device),
        # From text, dev has another kind of speech than train: its loss does not choose epochs.
        average_best=_CHOICES.get(options.average_best, not options.from_text),
        bf16=_CHOICES.get(options.bf16),
        is_bf16_faster=device.type == "cpu" and has_bf16_instructions(),
        without_effect=_without_effect(options, data.lists),
    )
    _require_models(plan)
    _require_earlier_stages(plan, options)
    return plan


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Corpus, speech and tokens, and where they lie; the fields are those of RecipePlan."""

    corpus: str
    data_dir: Path | None
    language: str
    lists: Path
    download_dir: Path
    synthesis: SynthesisPlan | None
    tokens: TokenPlan

    @property
    def base_is_synthesised(self) -> bool:
        """Whether the base hears synthesised speech alone, beside recordings."""
        return self.synthesis is not None and self.synthesis.is_beside_recordings


def _data(options: RecipeOptions, paths: UserPaths, speech: SynthesisOptions) -> _Data:
    corpus = "kaldi" if options.data_dir else options.corpus
    data_dir = _data_dir(options, corpus, paths)
    keywords = _keywords(options)
    lists = Path("data") / _corpus_name(options, corpus, data_dir, keywords, speech)
    language = options.language
    if language == "auto":
        language = language_of(keywords)
    tokens = plan_tokens(options, paths, lists=lists, keywords=keywords, language=language)
    download_dir = paths.place(options.download_dir) if options.download_dir else lists / "corpus"
    has_base = bool(options.base_checkpoint or options.teacher_checkpoint)
    synthesis = speech.plan(
        corpus=corpus,
        keywords=keywords,
        language=language,
        lists=lists,
        download_dir=download_dir,
        has_negatives=bool(options.negatives),
        base_learns_phonemes=tokens.is_made and not has_base,
    )
    return _Data(
        corpus=corpus,
        data_dir=data_dir,
        language=language,
        lists=lists,
        download_dir=download_dir,
        synthesis=synthesis,
        tokens=tokens,
    )


@dataclass(frozen=True, kw_only=True)
class _Configurations:
    """The YAML files of the models, and the folder that a preset gives them."""

    teacher: Path
    student: Path
    overlays: tuple[Path, ...]
    student_overlays: tuple[Path, ...]
    short_teacher: tuple[int, int] | None
    """Epochs of base and teacher that a short preset asks for."""
    exp: Path
    preset_suffix: str
    """Of the student's folder; empty without a preset."""


def _configurations(
    options: RecipeOptions, paths: UserPaths, speech: SynthesisOptions, data: _Data
) -> _Configurations:
    preset = preset_path(options.preset)
    suffix = f"_{preset.stem}" if preset else ""
    short = _short_teacher(options, preset)
    names = options.overlay or _default_overlay(options, data.corpus, speech)
    overlays = paths.find_all([name for name in names if name != "none"], "--overlay")
    if options.feature_teacher:
        # Under those of the user, which may give the term another weight.
        overlays = (EMBEDDING_OVERLAY, *overlays)
    given = paths.find_all(options.student_overlay, "--student_overlay")
    return _Configurations(
        teacher=paths.find(options.teacher_config, "--teacher_config"),
        student=paths.find(options.student_config, "--student_config"),
        overlays=overlays,
        student_overlays=(*([preset] if preset else []), *given),
        short_teacher=short,
        # A short teacher has a folder of its own, so that no longer run continues it.
        exp=Path("exp") / (data.lists.name + (suffix if short else "")),
        preset_suffix=suffix,
    )


@dataclass(frozen=True, kw_only=True)
class _Lengths:
    """Training of each model; the fields are those of RecipePlan."""

    base: Length
    base_overrides: tuple[str, ...]
    teacher: Length
    student: Length
    student_overrides: tuple[str, ...]
    weighting: str


def _lengths(options: RecipeOptions, data: _Data, configs: _Configurations) -> _Lengths:
    usual_base = None
    if data.corpus == "kaldi" and not options.overlay:
        usual_base = SYNTHESISED_BASE_EPOCHS if data.base_is_synthesised else OWN_WORD_BASE_EPOCHS
    of_synthesised: tuple[str, ...] = _WITHOUT_JOINS if data.base_is_synthesised else ()
    if data.base_is_synthesised:
        of_synthesised += _noise_without_background(configs)
    base, teacher = teacher_lengths(
        options,
        configs.teacher,
        configs.overlays,
        configs.short_teacher,
        usual_base,
        of_synthesised,
    )
    layers = (*configs.overlays, *configs.student_overlays)
    overrides, weighting = _weighting(options, configs.student, layers)
    student = student_length(options, configs.student, layers, overrides)
    load_dataset_config(configs.teacher, configs.overlays).check_folders()
    load_dataset_config(configs.student, layers).check_folders()
    without_term = _WITHOUT_KEYWORD_TERM if base.config.keyword_conf.is_used else ()
    return _Lengths(
        base=base,
        base_overrides=(*without_term, *of_synthesised),
        teacher=teacher,
        student=student,
        student_overrides=tuple(overrides),
        weighting=weighting,
    )


def _noise_without_background(configs: _Configurations) -> tuple[str, ...]:
    """Return overrides that give a base the noise of the other overlays.

    Synthesised speech has no recordings of people as background, and the bases of the figures in
    examples/PEOPLE.md were trained with that noise.
    """
    background = BACKGROUND_OVERLAY.resolve()
    others = [path for path in configs.overlays if path.resolve() != background]
    if len(others) == len(configs.overlays):
        return ()
    usual = to_mapping(load_dataset_config(configs.teacher, others))["augment_conf"]
    changed = load_config(BACKGROUND_OVERLAY).content["dataset_conf"]["augment_conf"]
    return tuple(
        f"dataset_conf.augment_conf.{name}={json.dumps(usual[name])}" for name in sorted(changed)
    )


def _without_effect(options: RecipeOptions, lists: Path) -> tuple[str, ...]:
    """Return options that change nothing in this run, each with the reason."""
    names = []
    if options.teacher_checkpoint:
        names = ["base_checkpoint", "base_dict", "base_epochs", "teacher_epochs"]
    elif options.base_checkpoint:
        names = ["base_epochs"]
    given = [f"--{name}" for name in names if getattr(options, name) not in ("", None)]
    reasons = [f"{', '.join(given)}: no effect on a given model"] if given else []
    made, every = lists / "dict" / "dict.txt", lists / "dict" / "dict_all.txt"
    if options.stage > _TOKEN_STAGE and made.is_file() and every.is_file():
        size, most = Vocabulary.load(made).size, Vocabulary.load(every).size
        wanted = most if options.num_tokens == "all" else min(int(options.num_tokens), most)
        # Fewer than there are: the keywords may have needed them, or a default was not repeated.
        if wanted > size:
            reasons.append(
                f"--num_tokens {options.num_tokens}: {made} has {size} tokens; "
                f"stage {_TOKEN_STAGE} makes it"
            )
    return tuple(reasons)


def _require_earlier_stages(plan: RecipePlan, options: RecipeOptions) -> None:
    """Check that the stages before the first one have run.

    Raises: ConfigError naming the file that is missing and the stage that writes it.
    """
    several = plan.num_teachers > 1
    has_base = plan.base_given or plan.teacher_given or options.stage > _BASE_STAGE
    base_sets = () if has_base else plan.base_sets
    written = {
        -1: [plan.lists / "train" / "text", *(folder / "text" for folder in base_sets)],
        0: [plan.lists / "dict" / "dict.txt", *plan.tokens.made],
        1: [
            *(plan.lists / split / "data.list" for split in SPLITS),
            *(folder / "data.list" for folder in base_sets),
            plan.lists / "global_cmvn",
        ],
        2: [*plan.teacher_checkpoints, *([plan.exp / CHOSEN_TEACHERS] if several else [])],
        3: [plan.student_checkpoint],
    }
    for stage, paths in written.items():
        missing = [path for path in paths if not path.is_file()]
        if stage < options.stage and missing:
            raise ConfigError(f"{missing[0]}: no such file; stage {stage} writes it: run it first")


def _extra_lists(options: RecipeOptions, paths: UserPaths) -> Path | None:
    if not options.extra_lists:
        return None
    folder = paths.find(options.extra_lists, "--extra_lists")
    for table in ("text", "data.list"):
        if not (folder / "train" / table).is_file():
            raise ConfigError(
                f"--extra_lists {folder}: has no train/{table}; expected data/NAME of another "
                "corpus after its stage 1"
            )
    return folder


def _require_models(plan: RecipePlan) -> None:
    """Check that the checkpoints that are given are files with a configuration beside them."""
    models = [("--more_teachers", path) for path in plan.more_teachers]
    if plan.base_given:
        models.append(("--base_checkpoint", plan.base_checkpoint))
    if plan.teacher_given:
        models.append(("--teacher_checkpoint", plan.teacher_checkpoint))
    for flag, path in models:
        if not path.is_file():
            raise ConfigError(f"{flag} {path}: expected a checkpoint file")
        config_beside(path)


def _keywords(options: RecipeOptions) -> list[str]:
    try:
        return parse_keywords(options.keywords)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error


def _data_dir(options: RecipeOptions, corpus: str, paths: UserPaths) -> Path | None:
    if corpus != "kaldi":
        return None
    if not options.data_dir:
        raise ConfigError("--corpus kaldi: needs --data_dir, the folder of your recordings")
    # Later stages read the lists that stage -1 made of it.
    is_read = options.stage <= -1 <= options.stop_stage
    return paths.find(options.data_dir, "--data_dir") if is_read else paths.place(options.data_dir)


def _negatives(options: RecipeOptions, paths: UserPaths) -> tuple[Path, ...]:
    if options.stage <= -1 <= options.stop_stage:
        return paths.find_all(options.negatives, "--negatives")
    return tuple(map(paths.place, options.negatives))


def _learns_transcripts(options: RecipeOptions, tokens: TokenPlan, language: str) -> bool:
    has_phonemes = options.from_text and tokens.is_made and language == "en"
    return has_phonemes and bool(options.negatives) and options.negatives_text == "auto"


def _synthesis_options(options: RecipeOptions, paths: UserPaths) -> SynthesisOptions:
    words = options.word_list
    return SynthesisOptions(
        from_text=options.from_text,
        size=options.size,
        positives=options.synth_positives,
        joins_recordings=options.synth_for == "all",
        voices=paths.find_all(options.voices, "--voices"),
        engines=options.engines,
        word_list=paths.find(words, "--word_list") if words else None,
    )


def _corpus_name(
    options: RecipeOptions,
    corpus: str,
    data_dir: Path | None,
    keywords: Sequence[str],
    speech: SynthesisOptions,
) -> str:
    if options.name:
        return options.name
    if data_dir is not None:
        return data_dir.resolve().name
    if options.from_text:
        return corpus_name(keywords, speech.size_or_default())
    return f"synth_{speech.size_or_default()}" if corpus == "synth" else corpus


def _default_overlay(
    options: RecipeOptions, corpus: str, speech: SynthesisOptions
) -> tuple[str, ...]:
    if options.from_text:
        is_standard = speech.size_or_default() == "standard"
        return (str(TEXT_OVERLAY if is_standard else QUICK_TEXT_OVERLAY),)
    if corpus == "kaldi" and options.negatives:
        return (str(NEGATIVES_OVERLAY), str(BACKGROUND_OVERLAY))
    return DEFAULT_OVERLAYS[corpus]


def _num_processes(options: RecipeOptions, device: torch.device) -> int:
    """Return the processes of a training; warn of more than there are cores for.

    By default several on the CPU: threads of one process share its steps poorly.
    """
    if device.type != "cpu":
        return options.num_processes or 1
    fitting = max(1, usable_cores() // (options.num_threads or 1))
    if options.num_processes and options.num_processes > fitting:
        logger.warning(
            "--num_processes %d: %d cores run %d at a time; more slow each other down",
            options.num_processes,
            usable_cores(),
            fitting,
        )
    return options.num_processes or min(_MOST_CPU_PROCESSES, fitting)


def _feature_teacher(name: str, paths: UserPaths) -> str:
    """Return the description's path or the bundle's name; load it, so that it works later."""
    if name and is_description(name):
        name = str(paths.find(name, "--feature_teacher"))
    if name:
        load_feature_teacher(name)
    return name


def _short_teacher(options: RecipeOptions, preset: Path | None) -> tuple[int, int] | None:
    """Return the epochs of base and teacher of a short preset that trains them; else None."""
    if preset is None or options.teacher_checkpoint or options.teacher_epochs is not None:
        return None
    return SHORT_TEACHERS.get(preset.stem)


def _weighting(
    options: RecipeOptions, config: Path, overlays: Sequence[Path]
) -> tuple[list[str], str]:
    """Return overrides of the student, and what weighs labels and teacher.

    Stages weigh them themselves. An alpha of a file below (a preset's) gives way to them.
    Raises: ConfigError if the command line gives alpha besides.
    """
    loaded = load_config(config, overlays)
    value = loaded.content.get("distill_conf", {}).get("alpha")
    alpha = loaded.origin("distill_conf", "alpha") if value is not None else None
    if not loaded.content.get("stages"):
        value, source = (value, alpha) if alpha else (DistillConfig().alpha, "default")
        if options.alpha:
            value, source = options.alpha, "--alpha"
        return [], f"alpha {value} for the labels, 1 - alpha for distillation ({source})"
    stages = loaded.origin("stages")
    if options.alpha:
        raise ConfigError(
            f"--alpha {options.alpha}: the student has stages ({stages}), which weigh labels and "
            "teacher themselves; leave out --alpha or the stages"
        )
    usual = DistillConfig()
    overrides = [f"distill_conf.{name}={getattr(usual, name)}" for name in ("alpha", "alpha_floor")]
    instead = f"; they replace alpha of {alpha}" if alpha and alpha != stages else ""
    return (overrides if instead else []), f"by stage ({stages}){instead}"


def _front_end(config: Path, overlays: Sequence[Path]) -> str:
    section = to_mapping(load_dataset_config(config, overlays))
    return hashlib.sha256(yaml.safe_dump(section).encode()).hexdigest()[:16]
