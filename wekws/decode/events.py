"""Events: the peaks of a confidence curve that count as detections, for every threshold at once.

At any threshold, as many events reach it as a stream has detections (`wekws.decode.event_rule`).
So errors are counted from one list of scores, and are those of a device.

Why one list is enough: the rule takes each peak that it can, the earliest first. No other choice of
peaks a refractory time apart has more (interval scheduling: earliest end first). With one more
peak, which is what a slightly lower threshold adds, the largest choice stays or grows by one. The
peaks that make it grow, from the highest peak down, are the events. A recording is therefore
detected where its highest peak reaches the threshold.

An event has the score and the frames of its peak. The detections at a threshold may be other peaks:
the first ones that reach it.
"""

import array
import bisect
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from wekws.decode.event_rule import Event, EventRule


def find_events(
    confidence: torch.Tensor, start: torch.Tensor, refractory_frames: int
) -> list[list[list[Event]]]:
    """Return the events of each curve of (B, K, T): a list over B of lists over K, in time order.

    Frames past an utterance's length hold 0 and are never peaks. A curve that is 0 throughout
    has one event of score 0 at frame 0: every utterance and keyword has a score.
    """
    batch_size, num_keywords, num_frames = confidence.shape
    curves = confidence.flatten(0, 1).cpu().numpy()
    starts = start.flatten(0, 1).cpu().numpy()
    before = np.pad(curves, ((0, 0), (1, 0)))[:, :num_frames]
    after = np.pad(curves, ((0, 0), (0, 1)))[:, 1:]
    rows, ends = np.nonzero((curves > before) & (curves >= after))
    scores, first_frames = curves[rows, ends], starts[rows, ends]
    borders = np.searchsorted(rows, np.arange(len(curves) + 1))
    events = []
    for begin, end in zip(borders, borders[1:], strict=False):
        row = slice(begin, end)
        events.append(_events(scores[row], first_frames[row], ends[row], refractory_frames))
    return [events[b * num_keywords : (b + 1) * num_keywords] for b in range(batch_size)]


def counting_events(peaks: Sequence[Event], refractory_frames: int) -> list[Event]:
    """Return the peaks that count, in time order; peaks: in any order, several may end together."""
    scores = np.array([peak.score for peak in peaks])
    ends = np.array([peak.end for peak in peaks], np.int64)
    return [peaks[i] for i in _counting(scores, ends, refractory_frames)]


class StreamEvents:
    """Events of one recording whose confidences come piece by piece.

    Memory is that of the peaks, 16 bytes each: about a megabyte per hour and keyword.
    """

    def __init__(self, num_keywords: int, refractory_frames: int) -> None:
        """Start before the first frame."""
        self._refractory_frames = refractory_frames
        self._rule = EventRule([0.0] * num_keywords, 0)  # every peak is a detection
        self._scores = [array.array("f") for _ in range(num_keywords)]
        self._places = [array.array("q") for _ in range(2 * num_keywords)]

    def accept(self, confidence: np.ndarray, start: np.ndarray) -> None:
        """Take the next frames: confidence (T, K) and first frame (T, K) of each keyword."""
        self._store(self._rule(confidence, start))

    def flush(self) -> list[list[Event]]:
        """End the recording; return the events of each keyword, as `find_events` does."""
        self._store(self._rule.flush())
        events = []
        for k, kept_scores in enumerate(self._scores):
            scores = np.array(kept_scores)
            starts, ends = (np.array(p, np.int64) for p in self._places[2 * k : 2 * k + 2])
            events.append(_events(scores, starts, ends, self._refractory_frames))
        return events

    def _store(self, peaks: Iterable[tuple[int, Event]]) -> None:
        for keyword, peak in peaks:
            self._scores[keyword].append(peak.score)
            self._places[2 * keyword].append(peak.start)
            self._places[2 * keyword + 1].append(peak.end)


def _events(
    scores: np.ndarray, starts: np.ndarray, ends: np.ndarray, refractory_frames: int
) -> list[Event]:
    kept = _counting(scores, ends, refractory_frames)
    found = zip(scores[kept], starts[kept], ends[kept], strict=True)
    return [Event(float(score), int(first), int(last)) for score, first, last in found] or [
        Event(0.0, 0, 0)
    ]


def _counting(scores: np.ndarray, ends: np.ndarray, refractory_frames: int) -> np.ndarray:
    """Return the indices of the peaks that raise the number of detections, in time order."""
    reach = max(refractory_frames, 1)
    peaks: list[int] = []  # ends of the peaks so far, sorted
    detections: list[int] = []  # those that the rule takes, sorted
    counting = []
    order = np.lexsort((ends, -scores))
    for i, end in zip(order.tolist(), ends[order].tolist(), strict=True):
        bisect.insort(peaks, end)
        first = bisect.bisect_left(detections, end)
        if detections[first : first + 1] == [end] or (
            first > 0 and end < detections[first - 1] + reach
        ):
            continue
        # This peak is taken; then the next one that is outside its refractory time, and so on,
        # until one that was taken before: from there on nothing changes.
        taken, last = [end], first
        while (place := bisect.bisect_left(peaks, taken[-1] + reach)) < len(peaks):
            last = bisect.bisect_left(detections, peaks[place], last)
            if detections[last : last + 1] == [peaks[place]]:
                break
            taken.append(peaks[place])
        else:
            last = len(detections)
        if len(taken) > last - first:
            counting.append(i)
        detections[first:last] = taken
    return np.array(sorted(counting, key=lambda i: (ends[i], i)), np.int64)
