"""States of the keyword search, and the step from one frame to the next.

Axes: B utterances, K keywords, N tokens of the longest keyword, T frames, V vocabulary, D frames of
the longest limit. `wekws.decode.keyword` explains states and scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import torch

from wekws.decode.path_code import (
    FLOOR_NATS,
    FRACTION_BITS,
    NO_PATH,
    START_BITS,
    START_MASK,
    UNREACHED,
)

BEFORE, PEAKED, BLANKS = 0, 1, 2
CHUNK_FRAMES = 2048  # the scores of long recordings are computed piece by piece


@dataclass
class KeywordState:
    """State of the search between frames; `advance` changes it in place."""

    table: torch.Tensor
    """(3, N, K, B) the states of each token."""
    entry: torch.Tensor
    """(N, ...) score of the best path into each token; for the first token, of a new path."""

    def __post_init__(self) -> None:
        """Make the views that every frame works on, once."""
        table, entry = self.table, self.entry
        self.states = table.unbind()
        self.in_token = table[:BLANKS]
        self.not_last = (table[PEAKED, :-1], table[BLANKS, :-1])
        self.new_path, self.inner_entry = entry[0], entry[1:]
        self.ends = table[PEAKED].flatten(0, 1)


class KeywordTable(NamedTuple):
    """The table of keywords on one device."""

    blank: int
    """Id of the blank."""
    tokens: torch.Tensor
    """(N, K) token ids, the blank where a keyword is shorter."""
    bars: torch.Tensor | None
    """(N - 1, K, 1) `UNREACHED` between equal tokens, which need a blank; None without any."""
    num_tokens: torch.Tensor
    """(K,) tokens of each keyword."""
    last: torch.Tensor
    """(K,) position of each keyword's last token in the table."""
    limits: torch.Tensor
    """(K,) longest duration of each keyword in frames; empty without."""


def empty_state(shape: Sequence[int], device: torch.device | str) -> KeywordState:
    """Return a state without any path; shape: that of `KeywordState.entry`."""
    table = torch.full((3, *shape), UNREACHED, device=device)
    return KeywordState(table, torch.full(tuple(shape), UNREACHED, device=device))


def advance(
    state: KeywordState,
    tokens: torch.Tensor,
    blank: torch.Tensor,
    best: torch.Tensor,
    bars: torch.Tensor | None,
) -> None:
    """Advance every state by one frame; `state.new_path` has the path that begins here.

    tokens, blank and best (with 1 for N and K): in units, of the shape of `state.entry` or with 1
    where they are shared.
    """
    before, peaked, blanks = state.states
    peaked_inner, blanks_inner = state.not_last
    leaving = peaked_inner if bars is None else peaked_inner + bars
    torch.maximum(leaving, blanks_inner, out=state.inner_entry)
    torch.maximum(peaked, blanks, out=blanks)
    torch.maximum(before, state.entry, out=before)
    at_peak = before + tokens.add(best)
    state.in_token.add_(tokens)
    blanks.add_(blank)
    torch.maximum(peaked, at_peak, out=peaked)


def frame_scores(
    log_probs: torch.Tensor, table: KeywordTable
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores of (B, T, V): tokens (T, N, K, B), blank and best label (T, 1, 1, B)."""
    by_frame = log_probs.permute(1, 2, 0).float()
    best = by_frame.amax(1, keepdim=True)
    relative = _to_units(by_frame - best)
    return (
        relative.index_select(1, table.tokens.flatten()).unflatten(1, table.tokens.shape),
        relative[:, table.blank, None, None],
        _to_units(best)[:, None],
    )


def is_too_old(ends: torch.Tensor, frames: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Return where the paths that end at `frames` are longer than their limits."""
    return (frames - start_frame(ends, frames) >= limits) & (ends > NO_PATH)


def without_garbage(ends: torch.Tensor) -> torch.Tensor:
    """Give every state that is no complete path the same value, in place."""
    return ends.masked_fill_(ends <= NO_PATH, UNREACHED)


def _to_units(nats: torch.Tensor) -> torch.Tensor:
    """Round log probabilities to 2^-20 nats, in the upper bits of an integer."""
    steps = nats.clamp(min=FLOOR_NATS, max=0.0).mul(1 << FRACTION_BITS).round_()
    return steps.long().bitwise_left_shift_(START_BITS)


@overload
def start_code(frame: int) -> int: ...
@overload
def start_code(frame: torch.Tensor) -> torch.Tensor: ...
def start_code(frame: int | torch.Tensor) -> int | torch.Tensor:
    """Return the lower bits of a path that begins at a frame, and its score of 0."""
    return START_MASK - (frame & START_MASK)


def start_frame(ends: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
    """Return the first frame of the paths that end at `frame`."""
    start = START_MASK - (ends & START_MASK)
    return frame - ((frame - start) & START_MASK)
