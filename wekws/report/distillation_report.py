"""Report on a teacher and its students: figures, training, size, corpus, next step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wekws.report.detection import (
    at_a_glance,
    category_blocks,
    caution_blocks,
    confidence_table,
    confusion_blocks,
    detection_blocks,
    missed_budget_blocks,
)
from wekws.report.document import (
    Block,
    Bullets,
    Code,
    Figure,
    Heading,
    Link,
    Paragraph,
    Table,
    write_document,
)
from wekws.report.format import count, duration, number, percent
from wekws.report.model_folder import TrainedModel
from wekws.report.next_step import next_step
from wekws.report.savings import savings_blocks
from wekws.runlog.fields import BEFORE_FIRST_STEP
from wekws.runlog.metrics_reader import series
from wekws.score.pinyin import with_pinyin
from wekws.score.results import headline_budget


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Content of a report."""

    title: str
    """Heading of the page."""
    teacher: TrainedModel | None
    """The model that the students are compared with."""
    students: Sequence[TrainedModel]
    """One or more models."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """Paths of ``det``, ``confidence``, ``curves``, ``durations``; any may be missing."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """Content of ``validation.json``."""
    notes: Sequence[str] = ()
    """Texts shown at the top."""
    commands: Sequence[str] = ()
    """Commands that reproduce the results, shown at the end."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Further pages: address, relative to the report, by what they show."""

    @property
    def models(self) -> list[TrainedModel]:
        """The teacher, then the students."""
        return [*([self.teacher] if self.teacher else []), *self.students]


def write_report(inputs: ReportInputs, out_dir: Path) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html`` with the same content; return their paths."""
    return write_document(build_report(inputs), out_dir, "report")


def build_report(inputs: ReportInputs) -> list[Block]:
    """Return the blocks of the report, in order."""
    models, teacher = inputs.models, inputs.teacher
    budget = headline_budget(model.headline for model in models)
    advice = [text for student in inputs.students for text in next_step(student, teacher, budget)]
    blocks: list[Block] = [Heading(inputs.title, 1)]
    blocks += [Paragraph(note, "warning") for note in [*inputs.notes, *_short_runs(models)]]
    blocks += missed_budget_blocks(models)
    blocks += [at_a_glance(models, budget), *caution_blocks(models, budget)]
    blocks += savings_blocks(teacher, inputs.students, budget)
    blocks += [Heading("What to do next"), Bullets(list(dict.fromkeys(advice)))]
    blocks += [Link(text, target) for text, target in inputs.links.items()]
    blocks += [Heading("Detection"), *_figure(inputs, "det", _DET_CAPTION)]
    blocks += detection_blocks(models, budget)
    blocks += category_blocks(models, budget)
    blocks += [Heading("Confidences"), *_figure(inputs, "confidence", _CONFIDENCE_CAPTION)]
    blocks += [confidence_table(models, budget), *confusion_blocks(models, budget)]
    blocks += (
        _training_blocks(inputs)
        + health_blocks(models)
        + _size_blocks(models)
        + _corpus_blocks(inputs)
    )
    return blocks + _command_blocks(inputs)


_DET_CAPTION = (
    "FRR against false alarms per hour on the utterances without a keyword; lower and further left "
    "is better. The shaded strip at the left stands for 0 false alarms; bands are 95 % intervals."
)
_CONFIDENCE_CAPTION = (
    "Share of positives (upwards) and of events on negatives (downwards) by confidence, on "
    "logarithmic axes that show single utterances; dashed lines are the thresholds. A threshold is "
    "valid for one model only: confidences of two models cannot be compared."
)
_CURVES_CAPTION = "Training curves; `start` is the cv pass before the first step."
_DURATIONS_CAPTION = "Durations of the utterances of each split."


def _figure(inputs: ReportInputs, name: str, caption: str) -> list[Block]:
    path = inputs.figures.get(name)
    return [Figure(Path(path), caption)] if path else []


def _short_runs(models: Sequence[TrainedModel]) -> list[str]:
    return [
        f"{model.name} was trained for {model.num_epochs} of the {model.max_epoch} epochs of its "
        "configuration: its figures are those of an unfinished run."
        for model in models
        if model.cv_rows and model.max_epoch and model.num_epochs < model.max_epoch
    ]


def _training_blocks(inputs: ReportInputs) -> list[Block]:
    trained = [model for model in inputs.models if model.cv_rows]
    if not trained:
        return []
    header = [
        "Model", "cv loss before the first step", "after epoch 0", "at the end", "best (epoch)",
        "cv accuracy", "on keyword utterances", "Epochs", "Time",
    ]  # fmt: skip
    caption = "cv loss: CTC, nats per utterance. Accuracies: 1 - token errors / tokens, at the end."
    table = Table(header, [_training_row(model) for model in trained], caption)
    starts = [
        f"{model.name} {'was initialised' if model.was_initialised else 'was not initialised'} "
        "from the teacher"
        for model in inputs.students
        if model.cv_rows
    ]
    texts = [Paragraph("; ".join(starts) + ".")] if starts else []
    return [Heading("Training"), table, *texts, *_figure(inputs, "curves", _CURVES_CAPTION)]


def health_blocks(models: Sequence[TrainedModel]) -> list[Block]:
    """Return the problems that occurred in training; nothing if there were none."""
    found = [f"**{model.name}**: {p.sentence()}" for model in models for p in model.problems]
    return [Heading("Health"), Bullets(found)] if found else []


def _training_row(model: TrainedModel) -> list[str]:
    epochs, losses = series(model.cv_rows, "cv_loss")
    by_epoch = dict(zip(epochs, losses, strict=True))
    best = min(by_epoch, key=by_epoch.__getitem__, default=None)
    seconds = model.train_seconds
    last = model.cv_rows[-1]
    return [
        model.name,
        number(by_epoch.get(BEFORE_FIRST_STEP)),
        number(by_epoch.get(0)),
        number(losses[-1] if losses else None),
        "-" if best is None else f"{by_epoch[best]:.2f} ({'start' if best < 0 else best})",
        _share(last.get("cv_accuracy")),
        _share(last.get("cv_keyword_accuracy")),
        str(model.num_epochs),
        "-" if seconds is None else duration(seconds),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _size_blocks(models: Sequence[TrainedModel]) -> list[Block]:
    costed = [model for model in models if model.cost]
    if not costed:
        return []
    header = [
        "Model", "Parameters", "fp32", "fp16", "int8", "MACs per second of audio",
        "Receptive field", "Look-ahead", "State",
    ]  # fmt: skip
    rows = []
    for model in costed:
        cost = model.cost or {}
        sizes = [f"{cost['size_bytes'][kind] / 1000:,.0f} kB" for kind in ("fp32", "fp16", "int8")]
        rows.append(
            [
                model.name,
                f"{cost['params']:,}",
                *sizes,
                f"{cost['macs_per_second'] / 1e6:.2f} M",
                f"{cost['receptive_field_ms']:,.0f} ms",
                f"{cost['lookahead_ms']:,.0f} ms",
                f"{cost['state_bytes'] / 1000:,.1f} kB",
            ]
        )
    files = [
        f"**{model.name}**: {name}, {size / 1000:,.0f} kB"
        for model in models
        for name, size in model.exported_bytes.items()
    ]
    blocks: list[Block] = [Heading("Size and cost"), Table(header, rows)]
    blocks += [Paragraph("Exported files:"), Bullets(files)] if files else []
    return blocks + _detector_blocks(models)


def _detector_blocks(models: Sequence[TrainedModel]) -> list[Block]:
    """Return the measured cost of whole detectors; nothing if it was not measured."""
    header = [
        "Detector", "Real-time factor, chunks of 1 frame", "of 10 frames", "ms per frame: median",
        "95 %", "99 %",
    ]  # fmt: skip
    rows = [
        [
            row["name"],
            f"{row['real_time_factor']:.4f}",
            f"{row['real_time_factor_10_frames']:.4f}",
            *(f"{row['chunk_ms'][q]:.3f}" for q in ("p50", "p95", "p99")),
        ]
        for model in models
        for row in model.detector_cost.get("systems") or []
    ]
    caption = (
        "CPU time on one thread from samples to detections, features included: per second of audio "
        "(real-time factor), and per frame in chunks of one frame."
    )
    return [Table(header, rows, caption)] if rows else []


def _corpus_blocks(inputs: ReportInputs) -> list[Block]:
    splits = inputs.validation.get("splits") or {}
    figure = _figure(inputs, "durations", _DURATIONS_CAPTION)
    if not splits:
        return [Heading("Corpus"), *figure] if figure else []
    counts = {name: split.get("keywords") or {} for name, split in splits.items()}
    keywords = list(dict.fromkeys(keyword for split in counts.values() for keyword in split))
    rows = []
    for name, split in splits.items():
        num_utterances = split.get("num_utterances", len(split.get("durations") or []))
        hours = split.get("hours")
        rows.append(
            [
                name,
                count(num_utterances),
                count(split.get("num_speakers") or None),
                number(hours),
                *(count(counts[name].get(keyword, 0)) for keyword in keywords),
                count(split.get("negatives")),
            ]
        )
    per_keyword = [f"with {with_pinyin(keyword)}" for keyword in keywords]
    header = ["Split", "Utterances", "Speakers", "Hours", *per_keyword, "without keyword"]
    table = Table(header, rows)
    return [Heading("Corpus"), table, *figure]


def _command_blocks(inputs: ReportInputs) -> list[Block]:
    commands = [*inputs.commands]
    commands += [f"# {model.name}\n{model.command}" for model in inputs.models if model.command]
    return (
        [Heading("Commands that produced these results"), Code("\n".join(commands))]
        if commands
        else []
    )
