"""The diagnosis: why runs ended where they did, from their own files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wekws.distill.distill_rules import ALL_RULES
from wekws.errors import ConfigError
from wekws.report import diagnosis_detection as detection
from wekws.report import diagnosis_terms as terms
from wekws.report import diagnosis_training as training
from wekws.report.diagnosis_subject import MOVING, Subject, tail_slope
from wekws.report.document import Block, Bullets, Figure, Heading, Paragraph, Table, write_document
from wekws.report.model_folder import Model, read_model
from wekws.report.next_step import next_step
from wekws.runlog.health import problem_history, with_health_rows
from wekws.runlog.metrics_reader import read_metrics

_STARTS = {
    "teacher": "from the teacher",
    "checkpoint": "from weights of its size",
    "random": "random",
}
CURVES_CAPTION = (
    "Training curves; `start` is the cv pass before the first step. Dotted lines in the first "
    "panel: where each run ended, for the epoch at which another one was there."
)
CONFIDENCE_CAPTION = (
    "Share of positives (upwards) and of events on negatives (downwards) by confidence; dashed: "
    "each model's threshold."
)


def read_subject(name: str, exp_dir: Path, dataset: str) -> Subject:
    """Read a run's folder, with or without results, finished or not.

    A run that did not watch itself gets the problems that its rows show today.
    Raises: ConfigError if there is neither a log nor a result in it; DataError if a file is broken.
    """
    model = read_model(name, exp_dir, dataset, needs_results=False)
    rows = read_metrics(exp_dir)
    if not model.cv_rows and not model.results:
        raise ConfigError(
            f"{exp_dir}: neither metrics.jsonl nor {dataset}_*/summary.json; expected the folder "
            "of a run"
        )
    if not any(row.get("kind") == "layers" for row in rows):
        model = model.with_problems(problem_history(with_health_rows(rows, ALL_RULES), ALL_RULES))
    return Subject(model=model, rows=rows)


def find_teacher(subjects: Sequence[Subject]) -> Subject | None:
    """Return the run among them that the others name as their teacher."""
    for subject in subjects:
        folder = subject.model.exp_dir.resolve()
        for other in subjects:
            checkpoint = other.teacher_checkpoint
            if checkpoint is None or other is subject:
                continue
            # The last two names: both folders may have moved since.
            if checkpoint.parent.parts[-2:] == folder.parts[-2:]:
                return subject
    return None


def write_diagnosis(
    subjects: Sequence[Subject],
    teacher: Subject | None,
    figures: Mapping[str, Path],
    out_dir: Path,
) -> tuple[Path, Path]:
    """Write ``diagnosis.md`` and ``diagnosis.html``; return their paths.

    subjects: all runs, the teacher among them. figures: ``curves``, ``confidence``; may be missing.
    """
    return write_document(build_diagnosis(subjects, teacher, figures), out_dir, "diagnosis")


def build_diagnosis(
    subjects: Sequence[Subject], teacher: Subject | None, figures: Mapping[str, Path]
) -> list[Block]:
    """Return the diagnosis's blocks in order."""
    blocks: list[Block] = [Heading(_title(subjects), 1), _overview(subjects, teacher)]
    blocks += [Paragraph(text, "warning") for text in _cautions(subjects)]
    blocks += [Heading("What to do next"), Bullets(advice(subjects, teacher))]
    blocks += training.health(subjects)
    blocks += training.convergence(subjects)
    if "curves" in figures:
        blocks.append(Figure(figures["curves"], CURVES_CAPTION))
    for part in (
        training.start_gap,
        training.accuracy,
        terms.task_and_teacher,
        terms.stages,
    ):
        blocks += part(subjects)
    blocks += detection.confidences(subjects, teacher)
    if "confidence" in figures:
        blocks.append(Figure(figures["confidence"], CONFIDENCE_CAPTION))
    return blocks + detection.error_rates(subjects)


def _title(subjects: Sequence[Subject]) -> str:
    names = [subject.name for subject in subjects]
    return f"Diagnosis of {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}"


def _overview(subjects: Sequence[Subject], teacher: Subject | None) -> Table:
    header = ["Run", "Role", "Parameters", "Outputs", "Epochs", "Start", "Results"]
    rows = []
    for subject in subjects:
        model = subject.model
        role = "teacher" if subject is teacher else "student" if _is_student(subject) else "alone"
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


def _is_student(subject: Subject) -> bool:
    return subject.teacher_checkpoint is not None or bool(subject.newest("teacher"))


def _cautions(subjects: Sequence[Subject]) -> list[str]:
    found = [
        f"{model.name} has done {model.num_epochs} of {model.max_epoch} epochs: what is said of "
        "its end is said of where it stands."
        for model in (subject.model for subject in subjects)
        if model.cv_rows and model.max_epoch and model.num_epochs < model.max_epoch
    ]
    lists = {subject.model.run.get("cv_data") for subject in subjects} - {None}
    if len(lists) > 1:
        found.append(
            f"The runs were measured on {len(lists)} dev lists ({', '.join(sorted(lists))}): cv "
            "losses compare within a list only."
        )
    sets = {r.summary.get("dataset") for s in subjects for r in s.model.results} - {None}
    if len(sets) > 1:
        found.append(
            f"Results are of {len(sets)} sets ({', '.join(sorted(sets))}): error rates compare "
            "within a set only."
        )
    return found


def advice(subjects: Sequence[Subject], teacher: Subject | None) -> list[str]:
    """Return the next steps: the recipe's rule first, then what training showed."""
    judged = [s for s in subjects if s is not teacher] or list(subjects)
    said = []
    for subject in judged:
        if subject.model.results:
            has_scores = teacher is not None and teacher.model.results
            said += next_step(subject.model, teacher.model if has_scores else None)
        else:
            said.append(f"**{subject.name}** has no results: evaluate it (`bash evaluate.sh`).")
    for subject in subjects:
        ongoing = [problem for problem in subject.model.problems if problem.end_epoch is None]
        said += [f"**{subject.name}**: {p.finding}" for p in ongoing]
        moved = tail_slope(subject.trained)
        if moved and moved[1] < -MOVING:
            said.append(
                f"**{subject.name}** was still getting better, by {-100 * moved[1]:.2f} % of its "
                "cv loss an epoch: more epochs come before a larger model."
            )
    return list(dict.fromkeys(said))


def scored(subjects: Sequence[Subject]) -> list[Model]:
    """Return the models that have results."""
    return [subject.model for subject in subjects if subject.model.results]
