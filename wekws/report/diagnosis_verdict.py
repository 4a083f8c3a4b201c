"""Verdict of a diagnosis: each run against a named baseline run."""

from collections.abc import Sequence

from wekws.report.diagnosis_run import MOVING, DiagnosedRun, are_comparable, epochs_to
from wekws.report.document import Block, Bullets, Heading
from wekws.report.format import percent
from wekws.report.next_step import compare
from wekws.score.pinyin import with_pinyin


def verdicts(runs: Sequence[DiagnosedRun], baseline: DiagnosedRun, budget: str) -> list[Block]:
    """Return one verdict per run: by FRR if both runs have results, else by cv loss."""
    texts = [_verdict(run, baseline, budget) for run in runs]
    return [Heading(f"Against {baseline.name}"), Bullets(texts)] if texts else []


def _verdict(run: DiagnosedRun, baseline: DiagnosedRun, budget: str) -> str:
    standing = compare(run.model, baseline.model, budget)
    found, parts = "no verdict: there is no common figure", []
    losses, others = run.trained_losses, baseline.trained_losses
    if losses and others and others[-1] and are_comparable(run, baseline):
        change = losses[-1] / others[-1] - 1
        found = _word(change < -MOVING, change > MOVING)
        parts.append(
            f"cv loss at the end {losses[-1]:.2f} against {others[-1]:.2f} ({100 * change:+.1f} %)"
        )
        reached = epochs_to(losses, others[-1])
        if reached is not None and reached < len(others):
            parts.append(f"the baseline's final loss after {reached} of its {len(others)} epochs")
    difference, worst, point = standing.difference, standing.worst, standing.teacher_point
    if difference is not None and worst is not None and point is not None:
        found = _word(difference.high < 0, difference.low > 0)
        parts.append(
            f"FRR of {with_pinyin(worst.keyword)} at {budget} on the set's own curve "
            f"{percent(worst.frr)} against {percent(point.frr)}, difference "
            f"{100 * difference.value:+.2f} points ({100 * difference.low:+.2f} to "
            f"{100 * difference.high:+.2f})"
        )
    return f"{run.name}: **{found}**. {'; '.join(parts)}".rstrip(". ") + "."


def _word(is_better: bool, is_worse: bool) -> str:
    if is_better:
        return "better than the baseline"
    return "worse than the baseline" if is_worse else "no difference from the baseline is shown"
