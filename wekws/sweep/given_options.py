"""First check of the options of ``run_distill.sh``: what can be said of them without torch.

Importing torch takes seconds; a mistyped option or path is answered before that.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from wekws.config import parse_section
from wekws.distill.weighting_conf import WeightingConfig
from wekws.errors import ConfigError, raise_all
from wekws.shell import UserPaths
from wekws.sweep.preset_files import PRESET_DIR, find_preset
from wekws.sweep.recipe_options import RecipeOptions, check_options
from wekws.yaml_files import parse_yaml_value

_FILE_OPTIONS = (
    "teacher_config",
    "student_config",
    "overlay",
    "student_overlay",
    "word_list",
    "lexicon",
    "voices",
    "extra_lists",
    "base_checkpoint",
    "base_dict",
    "teacher_checkpoint",
    "more_teachers",
    "baseline",
)


def check_given(options: RecipeOptions, paths: UserPaths) -> None:
    """Check each option by itself, the preset's name, and that the files are there.

    Raises: ConfigError naming every wrong option, what was found and what is expected.
    """
    raise_all(
        [
            lambda: check_options(options),
            lambda: preset_path(options.preset),
            *_file_checks(options, paths),
            lambda: _check_weights(options),
        ]
    )


def preset_path(preset: str) -> Path | None:
    """Return the file of ``--preset``; None if it names none.

    Raises: ConfigError for an unknown name, with a suggestion.
    """
    if preset in ("", "list", "ask"):
        return None
    return find_preset(PRESET_DIR, preset)


def _file_checks(options: RecipeOptions, paths: UserPaths) -> list[Callable[[], object]]:
    return [
        functools.partial(paths.find, path, f"--{name}")
        for name in _FILE_OPTIONS
        for path in _as_tuple(getattr(options, name))
        if path not in ("", "none")
    ]


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _check_weights(options: RecipeOptions) -> None:
    # The floor of alpha is a file's, and is checked with it.
    values: dict[str, object] = {"alpha_floor": 0.0}
    for name, text in (("alpha", options.alpha), ("temperature", options.temperature)):
        if text:
            try:
                values[name] = parse_yaml_value(text)
            except ConfigError as error:
                raise ConfigError(f"--{name} {text}: {error}") from error
    try:
        parse_section(WeightingConfig, values, "--")
    except ConfigError as error:
        raise ConfigError(str(error).replace("--: ", "--")) from None
