"""Detections in long recordings, counted against reference events.

A detection of a keyword is a hit if it ends between the start of a reference of this keyword, less
the tolerance, and its end, plus the tolerance. Each reference takes the first such detection; it is
missed if there is none. A detection that no reference takes is a false alarm, or a confusion if it
ends that close to a reference of another keyword. The latency of a hit is the time of its decision
less the end of the reference.

Axes: D detections, R references.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wekws.dataset.audio import probe
from wekws.dataset.references import Reference
from wekws.errors import ConfigError
from wekws.score.det import Budget
from wekws.score.intervals import poisson_exact, wilson
from wekws.stream.network import SpotterModel
from wekws.stream.spot_files import FILE_FRAMES_PER_STEP, spot_file
from wekws.stream.spotter import Detection, KeywordSpotter

LOWEST_CONFIDENCE = 0.01
"""Peaks below it are not kept: no threshold is."""


@dataclass(frozen=True, kw_only=True)
class ScoredRecording:
    """A recording with everything in it that some threshold detects."""

    hours: float
    """Length of the audio."""
    references: Sequence[Reference]
    """The keywords that are in it, by time."""
    peaks: Sequence[Detection]
    """Every peak of a confidence, by time: detections without a refractory time."""


def score_recording(
    model: SpotterModel,
    path: str | os.PathLike[str],
    references: Sequence[Reference],
    *,
    on_piece: Callable[[np.ndarray], None] | None = None,
) -> ScoredRecording:
    """Run a detector over a recording of any length, as a stream.

    on_piece: called with each piece of samples that has been processed.
    Raises: AudioError if the recording cannot be used.
    """
    every_peak = dataclasses.replace(model.with_thresholds(LOWEST_CONFIDENCE), refractory_s=0.0)
    spotter = KeywordSpotter(every_peak, frames_per_step=FILE_FRAMES_PER_STEP)
    return ScoredRecording(
        hours=probe(path).duration_s / 3600,
        references=references,
        peaks=list(spot_file(spotter, path, on_piece)),
    )


def detections_at(
    peaks: Iterable[Detection], threshold: float, refractory_s: float
) -> list[Detection]:
    """Return what a stream detects at a threshold: the rule of `wekws.decode.event_rule`.

    peaks: of one keyword, by time. refractory_s: from the end of one to that of the next.
    """
    found: list[Detection] = []
    for peak in peaks:
        is_detected = float(f"{peak.confidence:.6g}") >= threshold
        # Times have 6 decimals.
        if is_detected and (not found or peak.end_s >= found[-1].end_s + refractory_s - 1e-5):
            found.append(peak)
    return found


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Detections of some keywords against the references."""

    num_references: int
    """Occurrences of the keywords."""
    hits: int
    """Those that were detected."""
    false_alarms: int
    """Detections where no reference is, and further ones at a reference that has one."""
    confusions: int
    """Detections at a reference of another keyword."""
    hours: float
    """Audio that was scored, once per keyword."""
    latencies_s: tuple[float, ...]
    """Time of the decision less end of the keyword, of each hit."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts with rates, 95 % intervals and percentiles of the latency."""
        misses = self.num_references - self.hits
        alarm_limits = poisson_exact(self.false_alarms, self.hours)
        content: dict[str, Any] = {
            "references": self.num_references,
            "misses": {"count": misses},
            "false_alarms": _with_interval(self.false_alarms, "per_hour", self.hours, alarm_limits),
            "confusions": self.confusions,
            "latency_s": {
                f"p{q}": round(float(np.percentile(self.latencies_s, q)), 4)
                for q in ((50, 95) if self.latencies_s else ())
            },
        }
        if self.num_references:
            limits = wilson(misses, self.num_references)
            content["misses"] = _with_interval(misses, "rate", self.num_references, limits)
        return content


def _with_interval(count: int, name: str, base: float, limits: tuple[Any, Any]) -> dict[str, Any]:
    return {"count": count, name: count / base, "low": limits[0], "high": limits[1]}


def pooled(counts: Sequence[Counts]) -> Counts:
    """Return the sums over keywords."""
    return Counts(
        num_references=sum(c.num_references for c in counts),
        hits=sum(c.hits for c in counts),
        false_alarms=sum(c.false_alarms for c in counts),
        confusions=sum(c.confusions for c in counts),
        hours=sum(c.hours for c in counts),
        latencies_s=tuple(itertools.chain(*(c.latencies_s for c in counts))),
    )


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Rules by which detections are counted."""

    refractory_s: float
    """Shortest time from the end of a detection to that of the next, in seconds."""
    tolerance_s: float = 1.0
    """Time before and after a reference in which a detection of it may end, in seconds."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (self.refractory_s >= 0 and 0 <= self.tolerance_s < math.inf):
            raise ConfigError(
                f"refractory_s {self.refractory_s}, tolerance_s {self.tolerance_s}: expected "
                "seconds from 0 on"
            )

    @classmethod
    def of(cls, model: SpotterModel, tolerance_s: float) -> "Matching":
        """Return the rules for a detector: its refractory time in whole frames, as it runs."""
        hop_s = model.front_end.hop_s
        return cls(refractory_s=round(model.refractory_s / hop_s) * hop_s, tolerance_s=tolerance_s)


def count_at(
    recordings: Sequence[ScoredRecording], keyword: str, threshold: float, matching: Matching
) -> Counts:
    """Count hits, misses and false alarms of one keyword at a threshold."""
    hits = alarms = confusions = total = 0
    latencies: list[float] = []
    for recording in recordings:
        own = [r for r in recording.references if r.keyword == keyword]
        others = [r for r in recording.references if r.keyword != keyword]
        is_taken = [False] * len(own)
        total += len(own)
        peaks = [peak for peak in recording.peaks if peak.keyword == keyword]
        for found in detections_at(peaks, threshold, matching.refractory_s):
            near = [i for i, r in enumerate(own) if _is_near(found, r, matching)]
            if free := [i for i in near if not is_taken[i]]:
                is_taken[free[0]] = True
                hits += 1
                latencies.append(found.decided_s - own[free[0]].end_s)
            elif not near and any(_is_near(found, r, matching) for r in others):
                confusions += 1
            else:
                alarms += 1
    return Counts(
        num_references=total,
        hits=hits,
        false_alarms=alarms,
        confusions=confusions,
        hours=sum(recording.hours for recording in recordings),
        latencies_s=tuple(latencies),
    )


def _is_near(found: Detection, reference: Reference, matching: Matching) -> bool:
    low, high = reference.start_s - matching.tolerance_s, reference.end_s + matching.tolerance_s
    return low <= found.end_s <= high


def threshold_for(
    recordings: Sequence[ScoredRecording], keyword: str, budget: Budget, matching: Matching
) -> float:
    """Return the lowest threshold that keeps a budget of false alarms on these recordings."""
    values = {
        float(f"{peak.confidence:.6g}")
        for recording in recordings
        for peak in recording.peaks
        if peak.keyword == keyword
    }
    best = 1.0
    for threshold in sorted(values, reverse=True):
        counts = count_at(recordings, keyword, threshold, matching)
        if counts.false_alarms > budget.allowed(counts.hours):
            break
        best = threshold
    return best


def operating_point(
    recordings: Sequence[ScoredRecording],
    label: str,
    thresholds: Mapping[str, float],
    matching: Matching,
) -> dict[str, Any]:
    """Return the counts of each keyword at its threshold, and of all together, as plain values."""
    counts = {
        keyword: count_at(recordings, keyword, threshold, matching)
        for keyword, threshold in thresholds.items()
    }
    rates = [1 - c.hits / c.num_references for c in counts.values() if c.num_references]
    return {
        "point": label,
        "mean_frr": float(np.mean(rates)) if rates else None,
        "all": pooled(list(counts.values())).to_json(),
        "keywords": {
            keyword: {"threshold": thresholds[keyword], **counts[keyword].to_json()}
            for keyword in counts
        },
    }


def operating_points(
    recordings: Sequence[ScoredRecording],
    thresholds: Mapping[str, float | None],
    budgets: Sequence[Budget],
    matching: Matching,
) -> list[dict[str, Any]]:
    """Return the counts at given thresholds, and at those of each budget on these recordings.

    thresholds: by keyword; without one for every keyword there is no such point.
    """
    given = {k: threshold for k, threshold in thresholds.items() if threshold is not None}
    points = []
    if len(given) == len(thresholds):
        points.append(operating_point(recordings, "its thresholds", given, matching))
    for budget in budgets:
        chosen = {k: threshold_for(recordings, k, budget, matching) for k in thresholds}
        label = f"{budget.label} of its own curve"
        points.append(operating_point(recordings, label, chosen, matching))
    return points


def points_table(systems: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the points of each system, of all keywords together, as a Markdown table."""
    lines = [
        "| system | operating point | keywords | FRR in % | mean over keywords | false alarms "
        "| per hour and keyword | confusions | latency p50, s | p95 |",
        "|" + "---|" * 10,
    ]
    for system, points in systems.items():
        lines += [_row(system, p["point"], p["mean_frr"], len(p["keywords"]), p) for p in points]
    return "\n".join(lines)


def _row(system: str, label: str, mean: float | None, num: int, point: Mapping[str, Any]) -> str:
    counts = point["all"]
    misses, alarms, latency = counts["misses"], counts["false_alarms"], counts["latency_s"]
    frr = ""
    if "rate" in misses:
        rate, low, high = (f"{100 * misses[name]:.1f}" for name in ("rate", "low", "high"))
        frr = f"{rate} ({low} to {high}), {misses['count']} of {counts['references']}"
    rate, low, high = (f"{alarms[name]:.2f}" for name in ("per_hour", "low", "high"))
    cells = [
        system, label, str(num), frr, "" if mean is None else f"{100 * mean:.1f}",
        str(alarms["count"]), f"{rate} ({low} to {high})", str(counts["confusions"]),
        *(f"{latency[q]:.2f}" if q in latency else "" for q in ("p50", "p95")),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"
