"""Diagnosis of runs from their own files: convergence, start, accuracy, health, confidences."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wekws.distill.distill_rules import ALL_RULES
from wekws.errors import ConfigError
from wekws.report import diagnosis_detection as detection
from wekws.report import diagnosis_terms as terms
from wekws.report import diagnosis_training as training
from wekws.report.diagnosis_run import DiagnosedRun
from wekws.report.diagnosis_verdict import verdicts
from wekws.report.document import Block, Bullets, Figure, Heading, Paragraph, Table, write_document
from wekws.report.model_folder import TrainedModel, read_model
from wekws.report.next_step import next_step
from wekws.runlog.health import problem_history, with_health_rows
from wekws.runlog.metrics_reader import read_metrics
from wekws.score.results import headline_budget

_STARTS = {
    "teacher": "from the teacher",
    "checkpoint": "from a checkpoint of its size",
    "random": "random",
}
CURVES_CAPTION = (
    "Training curves; `start` is the cv pass before the first step. Dotted lines in the first "
    "panel mark the last cv loss of each run."
)
CONFIDENCE_CAPTION = (
    "Share of positives (upwards) and of events on negatives (downwards) by confidence; dashed: "
    "the threshold of each model."
)


def read_run(name: str, exp_dir: Path, dataset: str) -> DiagnosedRun:
    """Read a run's folder, with or without results, finished or not.

    The health rules are applied now to a run that was trained without them.
    Raises: ConfigError if the folder has neither a log nor a result; DataError if a file is
    damaged.
    """
    model = read_model(name, exp_dir, dataset, needs_results=False)
    rows = read_metrics(exp_dir)
    if not model.cv_rows and not model.results:
        raise ConfigError(
            f"{exp_dir}: neither metrics.jsonl nor {dataset}_*/summary.json; expected the folder "
            "of a run"
        )
    if not any(row.get("kind") == "layers" for row in rows):
        problems = problem_history(with_health_rows(rows, ALL_RULES), ALL_RULES)
        model = dataclasses.replace(model, problems=problems)
    return DiagnosedRun(model=model, rows=rows)


def find_teacher(runs: Sequence[DiagnosedRun]) -> DiagnosedRun | None:
    """Return the run among them from which another one was distilled."""
    for run in runs:
        if any(other is not run and other.model.has_teacher(run.model) for other in runs):
            return run
    return None


def write_diagnosis(
    runs: Sequence[DiagnosedRun],
    teacher: DiagnosedRun | None,
    figures: Mapping[str, Path],
    out_dir: Path,
    *,
    baseline: DiagnosedRun | None = None,
) -> tuple[Path, Path]:
    """Write ``diagnosis.md`` and ``diagnosis.html``; return their paths.

    runs: all runs, the teacher and the baseline among them.
    baseline: the run that the others are judged by; None: no verdict.
    figures: paths of the figures ``curves`` and ``confidence``; either may be missing.
    """
    blocks = build_diagnosis(runs, teacher, figures, baseline=baseline)
    return write_document(blocks, out_dir, "diagnosis")


def build_diagnosis(
    runs: Sequence[DiagnosedRun],
    teacher: DiagnosedRun | None,
    figures: Mapping[str, Path],
    *,
    baseline: DiagnosedRun | None = None,
) -> list[Block]:
    """Return the blocks of the diagnosis, in order."""
    budget = headline_budget(model.headline for model in scored_models(runs))
    blocks: list[Block] = [Heading(_title(runs), 1), _overview(runs, teacher)]
    blocks += [Paragraph(text, "warning") for text in _warnings(runs)]
    judged = [run for run in runs if run is not baseline]
    blocks += [Heading("What to do next"), Bullets(advice(judged, teacher, budget))]
    if baseline is not None:
        blocks += verdicts([run for run in judged if run is not teacher], baseline, budget)
    blocks += training.health(runs)
    blocks += training.convergence(runs, teacher)
    if "curves" in figures:
        blocks.append(Figure(figures["curves"], CURVES_CAPTION))
    blocks += training.losses_by_epoch(runs)
    blocks += training.start_gap(runs)
    blocks += training.accuracy(runs)
    blocks += terms.ctc_and_kd(runs)
    blocks += terms.stages(runs)
    blocks += terms.stage_terms(runs)
    blocks += detection.confidences(runs, teacher, budget)
    if "confidence" in figures:
        blocks.append(Figure(figures["confidence"], CONFIDENCE_CAPTION))
    return blocks + detection.error_rates(runs, budget)


def _title(runs: Sequence[DiagnosedRun]) -> str:
    names = [run.name for run in runs]
    return f"Diagnosis of {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}"


def _overview(runs: Sequence[DiagnosedRun], teacher: DiagnosedRun | None) -> Table:
    header = ["Run", "Role", "Parameters", "Outputs", "Epochs", "Initialised", "Results"]
    rows = []
    for run in runs:
        model = run.model
        role = "teacher" if run is teacher else model.role
        of = f" of {model.max_epoch}" if model.max_epoch else ""
        start = _STARTS.get(model.run.get("start", ""), "-")
        rows.append(
            [
                model.name,
                role,
                f"{model.params:,}" if model.params else "-",
                str(model.num_outputs or "-"),
                f"{model.num_epochs}{of}",
                start,
                ", ".join(result.result_dir.name for result in model.results) or "none",
            ]
        )
    return Table(header, rows, text_columns=(1, 5, 6))


def _warnings(runs: Sequence[DiagnosedRun]) -> list[str]:
    found = [
        f"{model.name} has finished {model.num_epochs} of {model.max_epoch} epochs: figures at "
        "the end are figures of its last epoch so far."
        for model in (run.model for run in runs)
        if model.cv_rows and model.max_epoch and model.num_epochs < model.max_epoch
    ]
    lists = _distinct(run.model.run.get("cv_data") for run in runs)
    if len(lists) > 1:
        found.append(
            f"The runs were measured on {len(lists)} dev lists ({', '.join(lists)}): compare cv "
            "losses only within one list."
        )
    sets = _distinct(result.summary.get("dataset") for run in runs for result in run.model.results)
    if len(sets) > 1:
        found.append(
            f"The results come from {len(sets)} test sets ({', '.join(sets)}): compare error "
            "rates only within one set."
        )
    return found


def _distinct(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})


def advice(runs: Sequence[DiagnosedRun], teacher: DiagnosedRun | None, budget: str) -> list[str]:
    """Return the next step of each run, the teacher's only if it is the only one."""
    judged = [run for run in runs if run is not teacher] or list(runs)
    teacher_model = teacher.model if teacher is not None and teacher not in judged else None
    texts = [text for run in judged for text in next_step(run.model, teacher_model, budget)]
    return list(dict.fromkeys(texts))


def scored_models(runs: Sequence[DiagnosedRun]) -> list[TrainedModel]:
    """Return the models that have results."""
    return [run.model for run in runs if run.model.results]
