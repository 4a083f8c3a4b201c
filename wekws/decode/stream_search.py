"""The exact keyword search on a stream, frame by frame, in numpy: constant memory and time.

Axes: K keywords, N tokens of the longest keyword, T frames, V vocabulary, D frames of the longest
limit. `wekws.decode.keyword` explains scores, states and limits; the integers here are the same to
the last bit as its integers for a whole recording.

With a limit there is one table of states for each possible first frame, D in all: the table of a
first frame is emptied when that frame is too long ago for every keyword.
"""

from collections.abc import Sequence

import numpy as np

from wekws.decode.path_code import (
    FLOOR_NATS,
    FRACTION_BITS,
    NO_PATH,
    START_BITS,
    START_MASK,
    UNREACHED,
    check_keywords,
    has_repeats,
    padded_keywords,
)


class StreamSearch:
    """Confidence of each keyword at each frame of one stream.

    keyword_ids: the tokens of each keyword, without blanks.
    max_frames: longest duration of each keyword, first and last frame counted; None: no limit.
    Raises: ValueError as `check_keywords` does.
    """

    def __init__(
        self,
        keyword_ids: Sequence[Sequence[int]],
        blank: int = 0,
        *,
        max_frames: Sequence[int] | None = None,
    ) -> None:
        """Arrange the keywords in one padded table and start before the first frame."""
        check_keywords(keyword_ids, blank, max_frames)
        padded = np.array(padded_keywords(keyword_ids, blank))
        self._blank = blank
        self._tokens = np.ascontiguousarray(padded.T)  # (N, K)
        self._num_tokens = np.array([len(ids) for ids in keyword_ids])
        self._last = (self._num_tokens - 1, np.arange(len(keyword_ids)))
        self._bars = None
        if has_repeats(keyword_ids):
            self._bars = ((self._tokens[:-1] == self._tokens[1:]) * UNREACHED)[..., None]
        self._num_tables = 1 if max_frames is None else max(max_frames)
        self._most: np.ndarray | None = None
        if max_frames is not None:
            # What an end may be at most by the age of its first frame (K, 2D), oldest first, twice:
            # for every frame there is a slice that is in the order of the tables.
            too_old = np.arange(self._num_tables)[::-1] >= np.array(max_frames)[:, None]
            self._most = np.tile(np.where(too_old, UNREACHED, np.iinfo(np.int64).max), 2)
        self.reset()

    def reset(self) -> None:
        """Go back to before the first frame."""
        self._num_frames = 0
        shape = (*self._tokens.shape, self._num_tables)
        self._table = np.full((3, *shape), UNREACHED)
        self._entry = np.full(shape, UNREACHED)
        self._at_peak = np.empty_like(self._entry)

    def __call__(self, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Process the next frames.

        log_probs: (T, V) normalised.
        Returns: confidence (T, K) in [0, 1], float32, of a keyword that ends at the frame, and its
        first frame (T, K), counted from the start of the stream.
        """
        log_probs = log_probs.astype(np.float32, copy=False)
        best = log_probs.max(axis=1, keepdims=True)
        relative = _to_units(log_probs - best)
        tokens = relative[:, self._tokens][..., None]  # (T, N, K, 1)
        at_peak = tokens + _to_units(best)[..., None, None]
        blanks = relative[:, self._blank]
        ends = np.empty((len(log_probs), self._tokens.shape[1]), np.int64)
        frames = self._num_frames + np.arange(len(log_probs))[:, None]
        for row, *scores in zip(ends, tokens, at_peak, blanks, strict=True):
            self._advance(*scores)
            row[:] = self._best_ends()
            self._num_frames += 1
        nats = (ends >> START_BITS) / float(1 << FRACTION_BITS)
        confidence = np.exp(nats / self._num_tokens).astype(np.float32)
        return confidence, frames - ((frames - START_MASK + (ends & START_MASK)) & START_MASK)

    def _advance(self, tokens: np.ndarray, peak_scores: np.ndarray, blank: np.int64) -> None:
        """Advance every state by one frame; see `wekws.decode.keyword_state.advance`.

        tokens, peak_scores: (N, K, 1) scores of a token, and of a token at its peak.
        """
        number = self._num_frames % self._num_tables
        before, peaked, blanks = self._table
        entry, at_peak = self._entry, self._at_peak
        if self._most is not None:
            self._table[..., number] = UNREACHED
            entry[0, :, number - 1] = UNREACHED
        entry[0, :, number] = START_MASK - (self._num_frames & START_MASK)
        leaving = peaked[:-1] if self._bars is None else peaked[:-1] + self._bars
        np.maximum(leaving, blanks[:-1], out=entry[1:])
        np.maximum(peaked, blanks, out=blanks)
        np.maximum(before, entry, out=before)
        np.add(before, peak_scores, out=at_peak)
        self._table[:2] += tokens
        blanks += blank
        np.maximum(peaked, at_peak, out=peaked)

    def _best_ends(self) -> np.ndarray:
        """Return the best complete path of each keyword (K,) within its limit."""
        ends = self._table[1][self._last]  # (K, D)
        if self._most is None:
            return ends[:, 0]
        oldest = self._num_tables - 1 - self._num_frames % self._num_tables
        np.minimum(ends, self._most[:, oldest : oldest + self._num_tables], out=ends)
        best = ends.max(axis=1)
        best[best <= NO_PATH] = UNREACHED
        return best


def _to_units(nats: np.ndarray) -> np.ndarray:
    """Round log probabilities to 2^-20 nats, in the upper bits of an integer."""
    steps = np.rint(np.clip(nats, FLOOR_NATS, 0.0) * np.float32(1 << FRACTION_BITS))
    return steps.astype(np.int64) << START_BITS
