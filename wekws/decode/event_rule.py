"""The rule by which a stream turns confidences into detections, at a threshold, without the future.

Axes: K keywords, T frames.

A peak is a frame whose confidence is above that of the frame before and not below that of the
frame after; before and after the recording it is 0. For each keyword alone:

1. A peak at or above the threshold, whose path is not too short, is a detection, unless it comes
   less than the refractory time after the last detection (from peak to peak). The confidence is
   rounded to 6 digits first, as in score files, so that thresholds chosen there mean the same.
2. So a peak is decided one frame after it, and a decision is never taken back. What follows within
   the refractory time is ignored, higher or not, and does not make that time longer.

Scores of whole recordings follow the same rule: `wekws.decode.events`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Event(NamedTuple):
    """A possible detection."""

    score: float
    """Confidence, 0 to 1."""
    start: int
    """First frame of the keyword."""
    end: int
    """Frame of the peak, the last one of the keyword."""


class EventRule:
    """Detections of one stream.

    thresholds: of each keyword, 0 to 1. refractory_frames: least frames from peak to peak.
    min_frames: shortest path of each keyword, first and last frame counted; None: no limit.
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        refractory_frames: int,
        *,
        min_frames: Sequence[int] | None = None,
    ) -> None:
        """Start before the first frame."""
        self._thresholds = list(thresholds)
        # Below these, no confidence rounds to the threshold.
        self._lowest = np.array(thresholds, np.float32) * np.float32(1 - 1e-5)
        self._refractory_frames = refractory_frames
        self._min_frames = np.ones(len(thresholds), np.int64)
        if min_frames is not None:
            self._min_frames[:] = min_frames
        self.reset()

    def reset(self) -> None:
        """Go back to before the first frame."""
        num_keywords = len(self._thresholds)
        self._num_frames = 0
        self._last_two = np.zeros((2, num_keywords), np.float32)
        self._last_start = np.zeros((1, num_keywords), np.int64)
        self._next_end = [0] * num_keywords  # first frame that is outside the refractory time

    def __call__(self, confidence: np.ndarray, start: np.ndarray) -> list[tuple[int, Event]]:
        """Process the next frames: confidence (T, K) and first frame (T, K) of each keyword.

        Returns: (keyword, event) of each detection that they decide, in order of time.
        """
        curve = np.concatenate([self._last_two, confidence])
        starts = np.concatenate([self._last_start, start])
        decided = curve[1:-1]
        is_peak = (decided > curve[:-2]) & (decided >= curve[2:]) & (decided >= self._lowest)
        found = []
        first = self._num_frames - 1  # frame of decided[0]
        for row, keyword in np.argwhere(is_peak).tolist():
            end, begin = first + row, int(starts[row, keyword])
            score = float(decided[row, keyword])
            is_event = (
                float(f"{score:.6g}") >= self._thresholds[keyword]
                and end - begin + 1 >= self._min_frames[keyword]
                and end >= self._next_end[keyword]
            )
            if is_event:
                self._next_end[keyword] = end + max(self._refractory_frames, 1)
                found.append((keyword, Event(score, begin, end)))
        self._num_frames += len(confidence)
        self._last_two, self._last_start = curve[-2:].copy(), starts[-1:].copy()
        return found

    def flush(self) -> list[tuple[int, Event]]:
        """Return the detections that the end of the stream decides."""
        return self(np.zeros_like(self._last_two[:1]), self._last_start)
