"""Table of the presets from their runs: size, speed, FRR beside the teacher's, training time."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wekws.errors import DataError
from wekws.files import read_json
from wekws.report.comparison import Group, GroupFigures, compare_groups, signed, with_interval
from wekws.report.document import Block, Paragraph, Table
from wekws.report.format import count, duration
from wekws.report.model_folder import TrainedModel, read_model
from wekws.score.det import Budget
from wekws.score.results import read_result
from wekws.sweep.plan_table import FIGURES_NAME
from wekws.sweep.preset_files import SHORT_TEACHERS
from wekws.sweep.speed_record import known_speed

TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class PresetRuns:
    """The runs of one preset; they differ in the seed alone."""

    preset: str
    """Name of the preset."""
    teacher: Path
    """Scored test set of its teacher."""
    results: tuple[Path, ...]
    """Scored test set of each run; the run is the folder above it."""


def find_preset_runs(exp_dir: Path, presets: Sequence[str], dataset: str) -> list[PresetRuns]:
    """Return the runs of each preset that has any.

    exp_dir: ``exp/NAME`` of run_distill.sh with ``student_PRESET`` and, for further seeds,
    ``student_PRESET_X``; or the folder of an ablation whose variants are called like the presets.
    dataset: the set whose results count, in a folder of the recipe.
    Raises: DataError if there is no run of any preset.
    """
    if not exp_dir.is_dir():
        raise DataError(
            f"--exp_dir {exp_dir}: no such folder; expected exp/NAME of run_distill.sh, or the "
            "folder of an ablation"
        )
    if (exp_dir / FIGURES_NAME).exists():
        found = _of_ablation(exp_dir, presets)
    else:
        found = [runs for preset in presets for runs in _of_recipe(exp_dir, preset, dataset)]
    if not found:
        raise DataError(
            f"{exp_dir}: no scored run of a preset: neither student_PRESET/{dataset}_* nor "
            f"{FIGURES_NAME} of an ablation; train one: bash run_distill.sh --preset {presets[0]}"
        )
    return found


def _of_ablation(folder: Path, presets: Sequence[str]) -> list[PresetRuns]:
    record = read_json(folder / FIGURES_NAME)
    results, teachers = record.get("results"), record.get("teachers")
    if not results or not teachers:
        raise DataError(
            f"{folder / FIGURES_NAME}: names no results; run the same `ablate` command again"
        )
    return [
        PresetRuns(preset=name, teacher=Path(teachers[0]), results=tuple(map(Path, results[name])))
        for name in presets
        if name in results
    ]


def _of_recipe(exp_dir: Path, preset: str, dataset: str) -> list[PresetRuns]:
    """Return the runs of a preset; one that trains short teachers has a folder of its own."""
    places = [exp_dir.with_name(f"{exp_dir.name}_{preset}")] if preset in SHORT_TEACHERS else []
    for place in (*places, exp_dir):
        folders = [place / f"student_{preset}", *sorted(place.glob(f"student_{preset}_*"))]
        scored = [folder for folder in folders if any(folder.glob(f"{dataset}_*/summary.json"))]
        if scored and any((place / TEACHER).glob(f"{dataset}_*/summary.json")):
            return [
                PresetRuns(
                    preset=preset,
                    teacher=_headline(place / TEACHER, dataset),
                    results=tuple(_headline(folder, dataset) for folder in scored),
                )
            ]
    return []


def _headline(folder: Path, dataset: str) -> Path:
    return Path(read_model(folder.name, folder, dataset).headline.result_dir)


def preset_results_blocks(
    found: Sequence[PresetRuns], presets: Sequence[str], budget: Budget
) -> list[Block]:
    """Return the table of the presets, and what is not in it.

    Speeds that are not known yet are measured on this machine.
    Raises: DataError if a result cannot be read.
    """
    header = [
        "preset", "runs", "parameters", "compression", "speed-up", "epochs", "training time",
        f"FRR % at {budget.label}", f"its teacher's FRR % at {budget.label}", "difference, points",
    ]  # fmt: skip
    caption = (
        "Compression: ratio of parameters. Speed-up: ratio of CPU times of a forward pass on one "
        "thread. FRR: mean of the keywords at equal false alarms, on the own DET curve of each "
        "model, with 95 % intervals; the difference is paired. Training time: of one student, "
        "base and teacher not included."
    )
    blocks: list[Block] = [Table(header, [_row(runs, budget) for runs in found], caption)]
    missing = [name for name in presets if name not in {runs.preset for runs in found}]
    if missing:
        commands = ", ".join(f"`bash run_distill.sh --preset {name}`" for name in missing)
        blocks.append(
            Paragraph(
                f"Not trained yet: {commands}; add the options that the others were trained with "
                "(--size, --name, --data_dir, --keywords)."
            )
        )
    return blocks


def _row(runs: PresetRuns, budget: Budget) -> list[str]:
    groups = [Group(TEACHER, [runs.teacher]), Group(runs.preset, runs.results)]
    teacher, student = compare_groups(groups, [budget], TEACHER)
    models = [read_model(path.parent.name, path.parent, "", [path]) for path in runs.results]
    return [
        runs.preset,
        str(len(runs.results)),
        count(student.params),
        _ratio(teacher.params, student.params),
        _speed_up(runs, models),
        str(max(model.num_epochs for model in models)),
        _training_time(models),
        _frr(student, budget),
        _frr(teacher, budget),
        signed(student.difference[budget.label]),
    ]


def _ratio(teacher: int | None, student: int | None) -> str:
    return f"{teacher / student:.1f} x" if teacher and student else "-"


def _speed_up(runs: PresetRuns, models: Sequence[TrainedModel]) -> str:
    """Return the mean speed-up of the runs whose checkpoints still exist."""
    teacher_path = read_result(TEACHER, runs.teacher).summary.get("checkpoint")
    ratios = [
        known_speed(Path(teacher_path), Path(path))["speed_up"]
        for model in models
        if (path := model.headline.summary.get("checkpoint")) and Path(path).exists()
        if teacher_path and Path(teacher_path).exists()
    ]
    return f"{statistics.fmean(ratios):.1f} x" if ratios else "-"


def _training_time(models: Sequence[TrainedModel]) -> str:
    known = [model.train_seconds for model in models if model.train_seconds is not None]
    return duration(statistics.fmean(known)) if known else "-"


def _frr(figures: GroupFigures, budget: Budget) -> str:
    rates = [100 * rate for rate in figures.frr_of_runs[budget.label]]
    return with_interval(rates, figures.frr[budget.label])
