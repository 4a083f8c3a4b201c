"""Exact keyword search in CTC posteriors, for whole utterances and for streams.

Axes: B utterances, K keywords, N tokens of the longest keyword, T frames, V vocabulary.

A path for a keyword y_1 .. y_L begins at any frame and gives each of its frames a label, such that
merging runs of equal labels and dropping blanks leaves exactly y (Graves et al. 2006, eq. 1). Each
frame scores log p(label, t) - max_v log p(v, t), the loss against the best label; but one frame of
each token, its peak, scores log p(y_i, t) itself. The confidence at t is
exp(score / L) of the best path whose last frame is t: the geometric mean of the peaks, lowered by
every frame where the path differs from the best label. It is exactly 0 where no path exists (fewer
frames than the keyword needs) and where float32 underflows.

Each token has three states: before its peak (`BEFORE`), from the peak on (`PEAKED`), and blanks
after it (`BLANKS`), which are optional except between equal tokens.

A state is one 64-bit integer: the score in steps of 2^-20 nats in the upper bits, the first frame
of its path in the lower ones. A frame's score is added to the upper bits only, so the larger of
two integers is the better path (of equal ones, the one that began earlier) and carries its first
frame along. Integer sums do not depend on the order, so streams, batches and devices agree to the
last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from wekws.decode.events import Event, find_events

BEFORE, PEAKED, BLANKS = 0, 1, 2
START_BITS = 22  # 35 h of 30 ms frames; first frames are kept modulo this
FRACTION_BITS = 20
UNIT = 1 << (START_BITS + FRACTION_BITS)  # one nat
START_MASK = (1 << START_BITS) - 1
FLOOR_NATS = -1024.0  # smaller log probabilities count as this
UNREACHED = -(1 << 19) * UNIT  # twice this, less a few thousand nats, still fits 64 bits
CHUNK_FRAMES = 2048  # long recordings are processed piece by piece


@dataclass
class KeywordState:
    """State of the search between frames; `KeywordScorer.step` changes it in place."""

    table: torch.Tensor
    """(3, N, K, B) the states of each token."""
    entry: torch.Tensor
    """(N, K, B) score of the best path into each token; for the first token, of a new path."""
    num_frames: int = 0
    """Frames processed so far."""

    def __post_init__(self) -> None:
        """Make the views that every frame works on, once."""
        table, entry = self.table, self.entry
        self.states = table.unbind()
        self.in_token = table[:BLANKS]
        self.not_last = (table[PEAKED, :-1], table[BLANKS, :-1])
        self.new_path, self.inner_entry = entry[0], entry[1:]
        self.ends = table[PEAKED].flatten(0, 1)


class _Constants(NamedTuple):
    """The table of keywords on one device."""

    tokens: torch.Tensor
    """(N * K,) token ids."""
    bars: torch.Tensor | None
    """(N - 1, K, 1) `UNREACHED` between equal tokens, which need a blank; None without any."""
    num_tokens: torch.Tensor
    """(K,) tokens of each keyword."""
    last: torch.Tensor
    """(K,) position of each keyword's last token in the table."""


class KeywordScorer:
    """Confidence of each keyword at each frame, by Viterbi search through its CTC graph.

    keyword_ids: the tokens of each keyword, without blanks.
    Raises: ValueError if there is no keyword, or one is empty or holds the blank.
    """

    def __init__(self, keyword_ids: Sequence[Sequence[int]], blank: int = 0) -> None:
        """Arrange the keywords in one padded table."""
        if not keyword_ids or any(len(ids) == 0 for ids in keyword_ids):
            raise ValueError("keyword_ids: expected one or more keywords of one or more tokens")
        if any(token == blank or token < 0 for ids in keyword_ids for token in ids):
            raise ValueError(f"keyword_ids: {list(keyword_ids)} has the blank or a negative id")
        self.keyword_ids = [list(ids) for ids in keyword_ids]
        self.blank = blank
        longest = max(len(ids) for ids in keyword_ids)
        padded = [ids + [blank] * (longest - len(ids)) for ids in self.keyword_ids]
        self._tokens = torch.tensor(padded).T.contiguous()  # (N, K)
        self._num_tokens = torch.tensor([len(ids) for ids in keyword_ids])
        self._on: dict[torch.device, _Constants] = {}

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> KeywordState:
        """Return the state before the first frame of `batch_size` recordings."""
        shape = (*self._tokens.shape, batch_size)
        table = torch.full((3, *shape), UNREACHED, device=device)
        return KeywordState(table, torch.full(shape, UNREACHED, device=device))

    @torch.no_grad()
    def step(
        self, state: KeywordState, log_probs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Process one frame. The results are bit-equal to those of the whole recording.

        log_probs: (B, V) normalised.
        Returns: confidence (B, K) of a keyword that ends here, and its first frame (B, K).
        """
        ends = state.table.new_empty((len(self.keyword_ids), len(log_probs)))
        last_frame = torch.tensor(state.num_frames, device=log_probs.device)
        tokens, blank, best = self._emissions(log_probs[:, None])
        self._advance(state, tokens[0], blank[0], best[0], ends)
        return self._confidence(ends.T), _start_frame(ends.T, last_frame)

    @torch.no_grad()
    def __call__(
        self, log_probs: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search whole recordings.

        log_probs: (B, T, V) normalised. lengths: (B,) valid frames, None if all are.
        Returns: confidence (B, K, T) in [0, 1] of a keyword that ends at the frame, and its first
        frame (B, K, T). Both are 0 on padding.
        """
        batch_size, num_frames, _ = log_probs.shape
        state = self.initial_state(batch_size, log_probs.device)
        ends = state.table.new_empty((num_frames, len(self.keyword_ids), batch_size))
        rows = iter(ends.unbind())
        for chunk in log_probs.split(CHUNK_FRAMES, dim=1):
            parts = [part.unbind() for part in self._emissions(chunk)]
            for tokens, blank, best in zip(*parts, strict=True):
                self._advance(state, tokens, blank, best, next(rows))
        frames = torch.arange(num_frames, device=log_probs.device)
        confidence = self._confidence(ends.permute(2, 0, 1)).transpose(1, 2)
        start = _start_frame(ends.permute(2, 1, 0), frames)
        if lengths is None:
            return confidence.contiguous(), start
        is_padding = (frames >= lengths.to(frames.device)[:, None])[:, None]
        return confidence.masked_fill(is_padding, 0.0), start.masked_fill(is_padding, 0)

    def events(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, refractory_frames: int
    ) -> list[list[list[Event]]]:
        """Return the events of each recording and keyword, at least one for each."""
        return find_events(*self(log_probs, lengths), refractory_frames)

    def _confidence(self, ends: torch.Tensor) -> torch.Tensor:
        """Return the confidences of complete paths from their states (..., K)."""
        num_tokens = self._constants(ends.device).num_tokens
        nats = (ends >> START_BITS).double() / (1 << FRACTION_BITS)
        return (nats / num_tokens).exp().float()

    def _constants(self, device: torch.device) -> _Constants:
        """Return the keyword table on a device."""
        if device not in self._on:
            tokens, num_tokens = self._tokens.to(device), self._num_tokens.to(device)
            num_keywords = tokens.shape[1]
            last = (num_tokens - 1) * num_keywords + torch.arange(num_keywords, device=device)
            bars = ((tokens[:-1] == tokens[1:]) * UNREACHED)[..., None]
            has_repeats = any(a == b for ids in self.keyword_ids for a, b in _pairs(ids))
            self._on[device] = _Constants(
                tokens.flatten(), bars if has_repeats else None, num_tokens, last
            )
        return self._on[device]

    def _emissions(
        self, log_probs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scores of (B, T, V): tokens (T, N, K, B), blank and best label (T, 1, 1, B)."""
        tokens = self._constants(log_probs.device).tokens
        by_frame = log_probs.permute(1, 2, 0).float()
        best = by_frame.amax(1, keepdim=True)
        relative = _to_units(by_frame - best)
        shape = (len(relative), *self._tokens.shape, len(log_probs))
        blank = relative[:, self.blank, None]
        return (
            relative.index_select(1, tokens).view(shape),
            blank[:, None],
            _to_units(best)[:, None],
        )

    def _advance(
        self,
        state: KeywordState,
        tokens: torch.Tensor,
        blank: torch.Tensor,
        best: torch.Tensor,
        ends: torch.Tensor,
    ) -> None:
        """Advance every state by one frame; write the last states of the keywords to `ends` (K, B).

        tokens: (N, K, B), blank and best: (1, 1, B), in units.
        """
        constants = self._constants(state.table.device)
        bars, last = constants.bars, constants.last
        before, peaked, blanks = state.states
        peaked_inner, blanks_inner = state.not_last
        leaving = peaked_inner if bars is None else peaked_inner + bars
        torch.maximum(leaving, blanks_inner, out=state.inner_entry)
        state.new_path.fill_(START_MASK - (state.num_frames & START_MASK))
        torch.maximum(peaked, blanks, out=blanks)
        torch.maximum(before, state.entry, out=before)
        at_peak = before + tokens.add(best)
        state.in_token.add_(tokens)
        blanks.add_(blank)
        torch.maximum(peaked, at_peak, out=peaked)
        torch.index_select(state.ends, 0, last, out=ends)
        state.num_frames += 1


def _to_units(nats: torch.Tensor) -> torch.Tensor:
    """Round log probabilities to 2^-20 nats, in the upper bits of an integer."""
    steps = nats.clamp(min=FLOOR_NATS, max=0.0).mul(1 << FRACTION_BITS).round_()
    return steps.long().bitwise_left_shift_(START_BITS)


def _start_frame(ends: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
    """Return the first frame of the paths that end at `frame`."""
    start = START_MASK - (ends & START_MASK)
    return frame - ((frame - start) & START_MASK)


def _pairs(ids: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(ids, ids[1:], strict=False))
