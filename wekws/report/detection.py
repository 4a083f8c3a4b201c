"""The report's part on detection: error rates, confidences, confusions."""

from collections.abc import Sequence
from typing import Any

from wekws.report.document import Block, Bullets, Heading, Paragraph, Table
from wekws.report.model_folder import Model, checkpoint_label, is_average
from wekws.report.next_step import BUDGET, percent, worst_keyword
from wekws.score.intervals import poisson_exact
from wekws.score.pinyin import with_pinyin
from wekws.score.results import Result, all_keywords


def at_a_glance(models: Sequence[Model]) -> Table:
    """Return one row a model: size and the worst keyword's FRR."""
    reference = models[0].params
    rows = []
    for model in models:
        worst = worst_keyword(model)
        share = f"{model.params / reference:.0%}" if model.params and reference else "-"
        cost = model.cost or {}
        rows.append(
            [
                model.name,
                _rate(worst.point["misses"]) if worst else "-",
                f"{model.params:,}" if model.params else "-",
                share.replace("%", " %"),
                f"{cost['macs_per_second'] / 1e6:.2f} M" if cost else "-",
                with_pinyin(worst.keyword) if worst else "-",
                checkpoint_label(model.headline),
            ]
        )
    header = [
        "Model", f"FRR at {BUDGET} (95 %)", "Parameters", f"of {models[0].name}", "MACs per second",
        "Worst keyword", "Checkpoint",
    ]  # fmt: skip
    return Table(header, rows, text_columns=(5, 6))


def caution_blocks(models: Sequence[Model]) -> list[Block]:
    """Return what a reader must know before believing the figures."""
    texts = []
    entries = [model.headline.entry(k) for model in models for k in model.headline.keywords]
    points = [point for entry in entries for point in entry.get("operating_points") or []]
    if any(point.get("chosen_on", "dev") != "dev" for point in points):
        texts.append(
            "Thresholds were chosen on the set that they are reported on, for want of dev scores: "
            "these figures are a little better than a detector in use would show."
        )
    hours = [entry["negative_hours"] for entry in entries if entry.get("negative_hours")]
    if hours and min(hours) < 1:
        _, highest = poisson_exact(0, min(hours))
        texts.append(
            f"The negatives last {min(hours):.2f} h: a single false alarm is "
            f"{1 / min(hours):.1f}/h, so the budget {BUDGET} allows none at all, and no false "
            f"alarm heard is compatible with up to {highest:.1f}/h (95 %)."
        )
    if not any(is_average(model.headline) for model in models):
        texts.append("No averaged checkpoint was evaluated: the figures are of single epochs.")
    for model in models:
        for entry in model.headline.summary.get("not_evaluated") or []:
            keyword = with_pinyin(str(entry.get("keyword")))
            texts.append(f"{model.name}, {keyword}: not evaluated. {entry.get('problem')}.")
    return [Paragraph(text, "note") for text in texts]


def detection_blocks(models: Sequence[Model]) -> list[Block]:
    """Return, for each keyword, a table of all checkpoints and budgets and what they say."""
    blocks: list[Block] = []
    for keyword in all_keywords([model.headline for model in models]):
        blocks += [Heading(with_pinyin(keyword), 3), _keyword_table(models, keyword)]
        verdicts = [_comparison(models[0], student, keyword) for student in models[1:]]
        said = [text for text in [*verdicts, *_notes(models, keyword)] if text]
        blocks += [Bullets(said)] if said else []
    return blocks


def _keyword_table(models: Sequence[Model], keyword: str) -> Table:
    points = [
        (model, result, point)
        for model in models
        for result in model.results
        for point in result.entry(keyword).get("operating_points") or []
    ]
    budgets = list(dict.fromkeys(str(point.get("budget")) for _, _, point in points))
    points.sort(key=lambda found: budgets.index(str(found[2].get("budget"))))
    header = [
        "Budget", "Model", "FRR (95 %)", "Missed", "False alarms/h (95 %)", "Count", "Threshold",
        "chosen on",
    ]  # fmt: skip
    rows = [_point_row(*found) for found in points]
    return Table(header, rows, _set_size(models, keyword), text_columns=(1,))


def _notes(models: Sequence[Model], keyword: str) -> list[str]:
    """Return what scoring had to remark on this keyword."""
    return [
        f"{model.name}: {note}."
        for model in models
        for note in model.headline.entry(keyword).get("notes") or []
    ]


def _set_size(models: Sequence[Model], keyword: str) -> str:
    sizes = {
        (entry.get("positives"), entry.get("negative_hours"), entry.get("negatives"))
        for model in models
        if (entry := model.headline.entry(keyword))
    }
    texts = []
    for positives, hours, negatives in sorted(sizes, key=str):
        hours_text = "unknown" if hours is None else f"{hours:.2f} h"
        of = f" in {negatives:,} utterances" if negatives is not None else ""
        texts.append(f"{positives or 0:,} positives, {hours_text} of negatives{of}")
    return " | ".join(texts) + ("" if len(texts) < 2 else " (the models heard different sets)")


def _point_row(model: Model, result: Result, point: dict[str, Any]) -> list[str]:
    row = [str(point.get("budget")), f"{model.name}, {checkpoint_label(result)}"]
    if point.get("threshold") is None or not point.get("misses"):
        return [*row, *["-"] * 5, str(point.get("chosen_on") or "-")]
    alarms = point["false_alarms"]
    return [
        *row,
        _rate(point["misses"]),
        f"{point['misses']['count']:,}",
        f"{alarms['per_hour']:.2f} ({alarms['low']:.2f}-{alarms['high']:.2f})",
        f"{alarms['count']:,}",
        f"{point['threshold']:.4f}",
        str(point.get("chosen_on") or "-"),
    ]


def _rate(misses: dict[str, Any]) -> str:
    low, high = 100 * misses["low"], 100 * misses["high"]
    return f"{percent(misses['rate'])} ({low:.2f}-{high:.2f})"


def _comparison(teacher: Model, student: Model, keyword: str) -> str:
    """Return whether the intervals of two models overlap at the budget, in a sentence."""
    points = [model.headline.operating_point(keyword, BUDGET) for model in (teacher, student)]
    if not all(point and point.get("misses") for point in points):
        return ""
    theirs, ours = (point["misses"] for point in points if point)
    figures = (
        f"At {BUDGET}, {teacher.name} misses {percent(theirs['rate'])} and {student.name} "
        f"{percent(ours['rate'])}"
    )
    if ours["low"] <= theirs["high"] and theirs["low"] <= ours["high"]:
        verdict = "**overlap**, so this set is too small to tell them apart"
        return f"{figures}: the 95 % intervals {verdict}."
    better = student.name if ours["rate"] < theirs["rate"] else teacher.name
    return f"{figures}: the 95 % intervals **do not overlap**; {better} is better."


def confidence_table(models: Sequence[Model]) -> Table:
    """Return the middle of the positives and the upper end of the negatives for each model."""
    rows = []
    for keyword in all_keywords([model.headline for model in models]):
        for model in models:
            stats = model.headline.stats.get(keyword)
            if stats is None:
                continue
            entry = model.headline.entry(keyword)
            high = stats.negative_quantile(0.99)
            point = model.headline.operating_point(keyword, BUDGET) or {}
            threshold = point.get("threshold")
            rows.append(
                [
                    with_pinyin(keyword),
                    model.name,
                    "-" if entry.get("positives") == 0 else f"{stats.positive_quantile(0.5):.3f}",
                    "-" if high is None else f"{high:.3f}",
                    "-" if threshold is None else f"{threshold:.3f}",
                ]
            )
    header = [
        "Keyword", "Model", "Median of positives", "99th percentile of events on negatives",
        f"Threshold for {BUDGET}",
    ]  # fmt: skip
    return Table(header, rows, text_columns=(1,))


def confusion_table(models: Sequence[Model]) -> list[Block]:
    """Return how often utterances of another keyword set one off, apart from false alarms."""
    rows = []
    for keyword in all_keywords([model.headline for model in models]):
        for model in models:
            others = model.headline.entry(keyword).get("confusions") or {}
            point = model.headline.operating_point(keyword, BUDGET) or {}
            found = point.get("confusions")
            if not others.get("utterances") or not found:
                continue
            rows.append(
                [
                    with_pinyin(keyword),
                    model.name,
                    f"{found['count']:,}",
                    f"{others['utterances']:,}",
                    f"{others.get('hours') or 0:.2f}",
                ]
            )
    if not rows:
        return []
    caption = (
        f"Utterances of another keyword that set this one off, at the threshold for {BUDGET}. They "
        "are not among the false alarms."
    )
    header = ["Keyword", "Model", "Confusions", "Utterances", "Hours"]
    return [Heading("Confusions"), Table(header, rows, caption, text_columns=(1,))]
