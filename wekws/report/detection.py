"""Detection figures of a report: error rates, confidences, confusions."""

from collections.abc import Sequence
from typing import Any

from wekws.report.document import Block, Bullets, Heading, Paragraph, Table
from wekws.report.format import percent
from wekws.report.model_folder import TrainedModel, checkpoint_label, is_average
from wekws.report.next_step import worst_keyword
from wekws.score.det import budget_from_label
from wekws.score.intervals import poisson_exact
from wekws.score.pinyin import with_pinyin
from wekws.score.results import CurvePoint, Result, all_keywords
from wekws.score.summary import is_unsupported, misses_budget
from wekws.score.threshold_names import how_chosen, threshold_name


def at_a_glance(models: Sequence[TrainedModel], budget: str) -> Table:
    """Return one row per model: size and the worst keyword's FRR at the budget."""
    reference = models[0].params
    rows = []
    for model in models:
        worst = worst_keyword(model, budget)
        share = f"{model.params / reference:.0%}" if model.params and reference else "-"
        cost = model.cost or {}
        rows.append(
            [
                model.name,
                _own_rate(worst.point) if worst else "-",
                *(_at_dev_threshold(model, worst.keyword, budget) if worst else ("-", "-")),
                f"{model.params:,}" if model.params else "-",
                share.replace("%", " %"),
                f"{cost['macs_per_second'] / 1e6:.2f} M" if cost else "-",
                with_pinyin(worst.keyword) if worst else "-",
                checkpoint_label(model.headline),
            ]
        )
    header = [
        "Model", f"FRR at {budget}, own curve (95 %)", f"FRR at the {_threshold(models, budget)}",
        "False alarms/h there", "Parameters", f"of {models[0].name}", "MACs per second",
        "Worst keyword", "Checkpoint",
    ]  # fmt: skip
    caption = (
        "FRR: share of the utterances with the keyword that are missed, with 95 % interval. Own "
        f"curve: at {budget} on this set, where models are compared. Thresholds are dev's, as in "
        "use, with the false alarms per hour that they give on this set. Budgets are false alarms "
        "on audio without a keyword, per hour (1/h) or in the whole set (1 in all)."
    )
    return Table(header, rows, caption, text_columns=(7, 8))


def _threshold(models: Sequence[TrainedModel], budget: str) -> str:
    return threshold_name([model.headline for model in models], [budget])


def _own_rate(point: CurvePoint | None) -> str:
    if point is None:
        return "-"
    return f"{percent(point.frr)} ({100 * point.low:.2f}-{100 * point.high:.2f})"


def _at_dev_threshold(model: TrainedModel, keyword: str, budget: str) -> tuple[str, str]:
    """Return FRR and false alarms per hour at the threshold from dev, as texts."""
    point = model.headline.operating_point(keyword, budget) or {}
    if point.get("chosen_on") != "dev" or not point.get("misses"):
        return "-", "-"
    return _rate(point["misses"]), _alarm_rate(point["false_alarms"])


def caution_blocks(models: Sequence[TrainedModel], budget: str) -> list[Block]:
    """Return the limits of the figures that a reader must know."""
    texts = []
    entries = [model.headline.entry(k) for model in models for k in model.headline.keywords]
    points = [point for entry in entries for point in entry.get("operating_points") or []]
    if any(point.get("chosen_on", "dev") != "dev" for point in points):
        texts.append(
            "There are no dev scores, so thresholds were chosen on the test set itself: these "
            "figures are a little better than those of a detector in use."
        )
    unsupported = [point for point in points if is_unsupported(point)]
    if unsupported:
        budgets = ", ".join(dict.fromkeys(point["budget"] for point in unsupported))
        supported = max(point["dev_upper_per_hour"] for point in unsupported)
        texts.append(
            f"Dev has too few hours of negatives for {budgets}: it supports {supported:.2f}/h at "
            "best (95 %). The thresholds shown for these budgets are the strictest that it "
            "supports. More negatives (`--negatives`) help."
        )
    hours = [entry["negative_hours"] for entry in entries if entry.get("negative_hours")]
    if hours and min(hours) < 1:
        texts.append(_short_negatives(min(hours), budget))
    if not any(is_average(model.headline) for model in models):
        texts.append("No averaged checkpoint was evaluated: the figures are of single epochs.")
    for model in models:
        for entry in model.headline.summary.get("not_evaluated") or []:
            keyword = with_pinyin(str(entry.get("keyword")))
            texts.append(f"{model.name}, {keyword}: not evaluated. {entry.get('problem')}.")
    return [Paragraph(text, "note") for text in texts]


def missed_budget_blocks(models: Sequence[TrainedModel]) -> list[Block]:
    """Return a warning per threshold from dev that exceeds its budget on this set."""
    return [
        Paragraph(
            f"{model.name}, {with_pinyin(keyword)}: the threshold from dev for {point['budget']} "
            f"gives {point['false_alarms']['per_hour']:.2f} false alarms per hour on this set "
            f"({point['false_alarms']['low']:.2f}-{point['false_alarms']['high']:.2f}). The FRR at "
            f"this threshold is not an FRR at {point['budget']}.",
            "warning",
        )
        for model in models
        for keyword in model.headline.keywords
        for point in model.headline.entry(keyword).get("operating_points") or []
        if misses_budget(point)
    ]


def _short_negatives(hours: float, budget: str) -> str:
    _, highest = poisson_exact(0, hours)
    allowed = budget_from_label(budget).allowed(hours)
    alarms = "no false alarm" if not allowed else f"{allowed} false alarm{'s' * (allowed > 1)}"
    return (
        f"The negatives last {hours:.2f} h: a single false alarm is {1 / hours:.1f}/h, the budget "
        f"{budget} allows {alarms}, and a count of 0 is compatible with up to {highest:.1f}/h "
        "(95 %)."
    )


def detection_blocks(models: Sequence[TrainedModel], budget: str) -> list[Block]:
    """Return a table of all checkpoints and budgets per keyword, and comparisons at the budget."""
    blocks: list[Block] = []
    for keyword in all_keywords([model.headline for model in models]):
        blocks += [Heading(with_pinyin(keyword), 3), _keyword_table(models, keyword)]
        comparisons = [_comparison(models[0], other, keyword, budget) for other in models[1:]]
        texts = [text for text in [*comparisons, *_notes(models, keyword)] if text]
        blocks += [Bullets(texts)] if texts else []
    return blocks


def _keyword_table(models: Sequence[TrainedModel], keyword: str) -> Table:
    points = [
        (model, result, point)
        for model in models
        for result in model.results
        for point in result.entry(keyword).get("operating_points") or []
    ]
    budgets = list(dict.fromkeys(str(point.get("budget")) for _, _, point in points))
    points.sort(key=lambda found: budgets.index(str(found[2].get("budget"))))
    header = [
        "Budget", "Model", "FRR on this set's own curve (95 %)", "FRR at the threshold (95 %)",
        "Missed", "False alarms/h there (95 %)", "Count", "Threshold", "chosen on",
    ]  # fmt: skip
    rows = [_point_row(model, result, keyword, point) for model, result, point in points]
    return Table(header, rows, _set_size(models, keyword), text_columns=(1, 8))


def _notes(models: Sequence[TrainedModel], keyword: str) -> list[str]:
    """Return the notes of ``summary.json`` on this keyword."""
    return [
        f"{model.name}: {note}."
        for model in models
        for note in model.headline.entry(keyword).get("notes") or []
    ]


def category_blocks(models: Sequence[TrainedModel], budget: str) -> list[Block]:
    """Return the false alarms at the budget by the kind of audio, if the set has categories."""
    rows: list[tuple[str, str, dict[str, Any]]] = []
    hours: dict[str, float] = {}
    for keyword in all_keywords([model.headline for model in models]):
        for model in models:
            point = model.headline.operating_point(keyword, budget) or {}
            found = point.get("by_category") or []
            sizes = model.headline.entry(keyword).get("categories") or []
            hours |= {size["category"]: size["hours"] for size in sizes}
            by_category = {row["category"]: row for row in found}
            rows.append((with_pinyin(keyword), model.name, by_category))
    if not hours:
        return []
    cells = [
        [keyword, name, *(_rate_of_category(found.get(category)) for category in hours)]
        for keyword, name, found in rows
    ]
    header = ["Keyword", "Model", *(f"{name}, {h:.2f} h" for name, h in hours.items())]
    caption = (
        f"False alarms per hour (95 %) by the kind of audio, at the {_threshold(models, budget)}. "
        "A high rate on one kind says which negatives are missing from training."
    )
    return [Heading("False alarms by kind of audio"), Table(header, cells, caption, (1,))]


def _rate_of_category(row: dict[str, Any] | None) -> str:
    return f"{row['per_hour']:.2f} ({row['low']:.2f}-{row['high']:.2f})" if row else "-"


def _set_size(models: Sequence[TrainedModel], keyword: str) -> str:
    sizes = {
        (entry.get("positives"), entry.get("negative_hours"), entry.get("negatives"))
        for model in models
        if (entry := model.headline.entry(keyword))
    }
    texts = []
    for positives, hours, negatives in sorted(sizes, key=str):
        hours_text = "unknown hours" if hours is None else f"{hours:.2f} h"
        of = f" in {negatives:,} utterances" if negatives is not None else ""
        texts.append(f"{positives or 0:,} positives, {hours_text} of negatives{of}")
    return " | ".join(texts) + ("" if len(texts) < 2 else " (the models were scored on other sets)")


def _point_row(
    model: TrainedModel, result: Result, keyword: str, point: dict[str, Any]
) -> list[str]:
    budget = str(point.get("budget"))
    own = _own_rate(result.own_curve(keyword, budget))
    row = [budget, f"{model.name}, {checkpoint_label(result)}", own]
    if point.get("threshold") is None or not point.get("misses"):
        return [*row, *["-"] * 5, how_chosen(point)]
    return [
        *row,
        _rate(point["misses"]),
        f"{point['misses']['count']:,}",
        _alarm_rate(point["false_alarms"]),
        f"{point['false_alarms']['count']:,}",
        f"{point['threshold']:.4f}",
        how_chosen(point),
    ]


def _rate(misses: dict[str, Any]) -> str:
    low, high = 100 * misses["low"], 100 * misses["high"]
    return f"{percent(misses['rate'])} ({low:.2f}-{high:.2f})"


def _alarm_rate(alarms: dict[str, Any]) -> str:
    return f"{alarms['per_hour']:.2f} ({alarms['low']:.2f}-{alarms['high']:.2f})"


def _comparison(first: TrainedModel, second: TrainedModel, keyword: str, budget: str) -> str:
    """Say whether the FRR intervals of two models overlap at the budget."""
    points = [model.headline.own_curve(keyword, budget) for model in (first, second)]
    if points[0] is None or points[1] is None:
        return ""
    figures = (
        f"At {budget} on this set's own curve, the FRR of {first.name} is {percent(points[0].frr)} "
        f"and that of {second.name} {percent(points[1].frr)}"
    )
    if points[1].low <= points[0].high and points[0].low <= points[1].high:
        return (
            f"{figures}: the 95 % intervals **overlap**, so this set is too small to show a "
            "difference."
        )
    better = second.name if points[1].frr < points[0].frr else first.name
    return f"{figures}: the 95 % intervals **do not overlap**; {better} is better."


def confidence_table(models: Sequence[TrainedModel], budget: str) -> Table:
    """Return the median of positives and the upper tail of negatives for each model."""
    rows = []
    for keyword in all_keywords([model.headline for model in models]):
        for model in models:
            stats = model.headline.stats.get(keyword)
            if stats is None:
                continue
            entry = model.headline.entry(keyword)
            high = stats.negative_quantile(0.99)
            point = model.headline.operating_point(keyword, budget) or {}
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
        _threshold(models, budget).capitalize(),
    ]  # fmt: skip
    return Table(header, rows, text_columns=(1,))


def confusion_blocks(models: Sequence[TrainedModel], budget: str) -> list[Block]:
    """Return detections on utterances of another keyword, counted apart from false alarms."""
    rows = []
    for keyword in all_keywords([model.headline for model in models]):
        for model in models:
            others = model.headline.entry(keyword).get("confusions") or {}
            point = model.headline.operating_point(keyword, budget) or {}
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
        "Detections of a keyword on utterances of another keyword, at the "
        f"{_threshold(models, budget)}. They are not counted as false alarms."
    )
    header = ["Keyword", "Model", "Confusions", "Utterances", "Hours"]
    return [Heading("Confusions"), Table(header, rows, caption, text_columns=(1,))]
