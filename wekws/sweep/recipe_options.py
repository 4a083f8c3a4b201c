"""Options of ``run_distill.sh``: as they are given, and what each by itself must be."""

import contextlib
import dataclasses
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wekws.config import read_assignments
from wekws.decode.duration import max_duration_from_text
from wekws.errors import ConfigError, raise_all
from wekws.runlog.trackers import trackers_from_text
from wekws.score.det import budgets_from_text
from wekws.score.thresholds import SharedThreshold, ThresholdRule, category_hours_from_text
from wekws.train.seeds import MAX_SEED

LAST_STAGE = 6
"""The last stage of ``run_distill.sh``."""
_MIN_TOKENS = 3
_OTHER_MODELS = ("base", "teacher_init", "teacher", "report")
_OTHER_PREFIXES = ("teacher_", "report_")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Options of ``run_distill.sh`` as the user gave them; its ``--help`` explains each.

    None or an empty value: not given. The defaults stand in the script.
    """

    stage: int
    stop_stage: int
    dry_run: bool
    corpus: Literal["synth", "mobvoi", "kaldi"]
    from_text: bool
    size: str
    data_dir: str
    negatives: tuple[str, ...]
    negatives_text: Literal["auto", "use", "filler"]
    download_dir: str
    download_url: str
    keywords: str
    language: Literal["auto", "zh", "en"]
    synth_positives: int | None
    synth_for: Literal["base", "all"]
    voices: tuple[str, ...]
    engines: tuple[str, ...]
    word_list: str
    units: Literal["auto", "letters", "phonemes"]
    lexicon: str
    name: str
    num_tokens: str
    teacher_config: str
    student_config: str
    preset: str
    overlay: tuple[str, ...]
    student_overlay: tuple[str, ...]
    extra_lists: str
    base_checkpoint: str
    base_dict: str
    teacher_checkpoint: str
    more_teachers: tuple[str, ...]
    num_teachers: int
    feature_teacher: str
    init_from_teacher: bool
    alpha: str
    temperature: str
    base_epochs: int | None
    teacher_epochs: int | None
    student_epochs: int | None
    num_average: int | None
    average_best: Literal["auto", "true", "false"]
    budgets: str
    threshold_rule: ThresholdRule
    shared_threshold: SharedThreshold
    category_hours: str
    decoder: Literal["keyword", "prefix_beam"]
    max_duration_s: str
    corpus_seed: int
    seed: int
    num_workers: int | None
    num_threads: int
    num_processes: int | None
    device: Literal["auto", "cpu", "cuda"]
    bf16: Literal["auto", "true", "false"]
    tracker: str
    baseline: str
    student_name: str
    note: str
    wrong_choices: str = ""
    """No option: what is wrong with options that have a few choices, a line each. They count as the
    first of their choices until ``check_options`` raises it together with all else."""


def read_options(assignments: Iterable[str]) -> RecipeOptions:
    """Read the options of ``run_distill.sh``, see ``read_assignments``.

    Raises: ConfigError for wrong numbers and unknown options; wrong choices are raised by
    ``check_options``.
    """
    texts = list(assignments)
    try:
        return read_assignments(RecipeOptions, texts)
    except ConfigError as error:
        with contextlib.suppress(ConfigError):
            options = read_assignments(RecipeOptions, _with_first_choices(texts))
            return dataclasses.replace(options, wrong_choices=str(error))
        raise


def _with_first_choices(texts: Iterable[str]) -> list[str]:
    """Return the options with the first choice in place of each wrong one."""
    kinds, valid = typing.get_type_hints(RecipeOptions), []
    for text in texts:
        name, _, value = text.partition("=")
        choices = typing.get_args(kinds.get(name))
        is_choice = typing.get_origin(kinds.get(name)) is Literal
        valid.append(f"{name}={choices[0]}" if is_choice and value not in choices else text)
    return valid


def check_options(options: RecipeOptions) -> None:
    """Check what can be said of the options without looking at any file.

    Raises: ConfigError naming each wrong option, what was found and what is expected.
    """
    raise_all(
        [
            lambda: _check_choices(options),
            lambda: _check_numbers(options),
            lambda: _check_names(options),
            lambda: _check_corpus(options),
            lambda: budgets_from_text(options.budgets),
            lambda: max_duration_from_text(options.max_duration_s),
            lambda: trackers_from_text(options.tracker),
            lambda: category_hours_from_text(options.category_hours),
        ]
    )


def _check_choices(options: RecipeOptions) -> None:
    if options.wrong_choices:
        raise ConfigError(options.wrong_choices)


def _check_corpus(options: RecipeOptions) -> None:
    if options.size and (options.data_dir or options.corpus != "synth"):
        given = "--data_dir" if options.data_dir else f"--corpus {options.corpus}"
        raise ConfigError(
            f"--size {options.size}: is of the synthesised corpus, there is none with {given}; "
            "leave it out"
        )
    if options.data_dir and options.corpus == "mobvoi":
        raise ConfigError(
            "--corpus mobvoi: the corpus is that of --data_dir; leave out one of the two"
        )
    if options.base_dict and not options.base_checkpoint:
        raise ConfigError(
            f"--base_dict {options.base_dict}: is the dictionary of a given base; give "
            "--base_checkpoint too, or leave it out"
        )
    if options.from_text and (options.data_dir or options.corpus != "synth"):
        given = "--data_dir" if options.data_dir else f"--corpus {options.corpus}"
        raise ConfigError(f"--from_text: means that there are no recordings; leave out {given}")


def _check_numbers(options: RecipeOptions) -> None:
    least = {"base_epochs": 1, "teacher_epochs": 1, "student_epochs": 1, "num_average": 1}
    least |= {"num_workers": 0, "num_threads": 0, "num_processes": 1, "synth_positives": 0}
    least |= {"seed": 0, "corpus_seed": 0, "num_teachers": 1}
    values = {name: getattr(options, name) for name in least}
    problems = [
        f"--{name} {value}: expected at least {least[name]}"
        for name, value in values.items()
        if value is not None and value < least[name]
    ]
    problems += [
        f"--{name} {getattr(options, name)}: expected below {MAX_SEED}"
        for name in ("seed", "corpus_seed")
        if getattr(options, name) >= MAX_SEED
    ]
    if options.num_teachers > 1 and options.teacher_checkpoint:
        problems.append(
            f"--num_teachers {options.num_teachers}: none is trained with --teacher_checkpoint; "
            "leave out one of the two, or give further teachers with --more_teachers"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def _check_names(options: RecipeOptions) -> None:
    """Check the stages, and that the names of folders stay below data/ and exp/."""
    if not -2 <= options.stage <= min(options.stop_stage, LAST_STAGE):
        raise ConfigError(
            f"--stage {options.stage} --stop_stage {options.stop_stage}: no stage is left; "
            f"expected -2 <= stage <= stop_stage, at most {LAST_STAGE}"
        )
    if options.num_tokens != "all" and not (
        options.num_tokens.isdecimal() and int(options.num_tokens) >= _MIN_TOKENS
    ):
        raise ConfigError(
            f"--num_tokens {options.num_tokens}: expected `all` or a number from {_MIN_TOKENS}"
        )
    for flag, name in (("--name", options.name), ("--student_name", options.student_name)):
        if name and (name in (".", "..") or "/" in name):
            raise ConfigError(f"{flag} {name}: expected the name of a folder, without `/`")
    if options.student_name in _OTHER_MODELS or options.student_name.startswith(_OTHER_PREFIXES):
        raise ConfigError(
            f"--student_name {options.student_name}: is a folder of another part of the recipe; "
            "choose another name"
        )
