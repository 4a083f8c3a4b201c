"""Events: the peaks of a confidence curve, no two closer than the refractory time.

The events do not depend on a threshold: the detections at a threshold are the events whose score
reaches it, so the errors at every threshold can be counted from one list. A device has a threshold
and does not know the future: `wekws.decode.event_rule` says which of the peaks it reports, and how
the two differ.
"""

from collections.abc import Sequence

import numpy as np
import torch

from wekws.decode.event_rule import Event


def find_events(
    confidence: torch.Tensor, start: torch.Tensor, refractory_frames: int
) -> list[list[list[Event]]]:
    """Return the events of each curve of (B, K, T): a list over B of lists over K.

    Frames past an utterance's length hold 0 and are never peaks. A curve that is 0 throughout
    has one event of score 0 at frame 0: every utterance and keyword has a score.
    """
    batch_size, num_keywords, num_frames = confidence.shape
    curves = confidence.flatten(0, 1).cpu().numpy()
    starts = start.flatten(0, 1).cpu().numpy()
    before = np.pad(curves, ((0, 0), (1, 0)))[:, :num_frames]
    after = np.pad(curves, ((0, 0), (0, 1)))[:, 1:]
    rows, ends = np.nonzero((curves > before) & (curves >= after))
    scores = curves[rows, ends]
    first_frames = starts[rows, ends]
    events: list[list[Event]] = [[] for _ in range(len(curves))]
    for i in _keep(rows, scores, ends, len(curves), num_frames, refractory_frames):
        events[rows[i]].append(Event(float(scores[i]), int(first_frames[i]), int(ends[i])))
    events = [row or [Event(0.0, 0, 0)] for row in events]
    return [events[b * num_keywords : (b + 1) * num_keywords] for b in range(batch_size)]


def suppress(events: Sequence[Event], refractory_frames: int) -> list[Event]:
    """Return the events that remain, in time order, when each removes lower ones close to it."""
    if not events:
        return []
    scores = np.array([event.score for event in events])
    ends = np.array([event.end for event in events])
    rows = np.zeros(len(events), dtype=np.int64)
    kept = _keep(rows, scores, ends, 1, int(ends.max()) + 1, refractory_frames)
    return [events[i] for i in kept]


def _keep(
    rows: np.ndarray,
    scores: np.ndarray,
    ends: np.ndarray,
    num_rows: int,
    num_frames: int,
    refractory_frames: int,
) -> list[int]:
    """Return the indices of the candidates that survive greedy suppression, by row and time.

    The highest is taken first, of two equal ones the earlier; a candidate that is kept blocks its
    neighbourhood.
    """
    reach = max(refractory_frames, 1)
    width = num_frames + 2 * reach
    blocked = bytearray(num_rows * width)
    neighbourhood = bytes(b"\x01" * (2 * reach - 1))
    places = rows * width + ends + reach
    kept = []
    order = np.lexsort((places, -scores))
    for i, place in zip(order.tolist(), places[order].tolist(), strict=True):
        if not blocked[place]:
            blocked[place - reach + 1 : place + reach] = neighbourhood
            kept.append(i)
    kept.sort(key=places.__getitem__)
    return kept
