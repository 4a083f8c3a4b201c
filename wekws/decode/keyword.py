"""Exact keyword search in CTC posteriors of whole recordings.

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

A keyword may have a longest duration, in frames from the first to the last of its path, both
counted. The best path of each state is then not enough: when it grows too old, the best of the
younger ones is needed, which lost to it earlier. But a search that began at frame c knows the best
path among all that start at c or later. Where c is no later than the earliest start allowed and
this path is short enough, it is therefore the best of those that are short enough. Whole recordings
use this: a search goes on while its best path is short enough; at the first frame where it is not,
a new search goes back to the earliest start that this frame allows, and takes over. How often
depends on the posteriors; at worst (all frames alike) at every frame, which costs a whole limit
each. A stream cannot wait for that: `wekws.decode.stream_search` has one table per possible first
frame, so every frame takes the same time. Both give the same integers. A state that is no complete
path is `UNREACHED`.
"""

from collections.abc import Sequence

import torch

from wekws.decode.event_rule import Event
from wekws.decode.events import find_events
from wekws.decode.keyword_limit import replace_old
from wekws.decode.keyword_state import (
    CHUNK_FRAMES,
    KeywordTable,
    advance,
    empty_state,
    frame_scores,
    is_too_old,
    start_code,
    start_frame,
    without_garbage,
)
from wekws.decode.path_code import (
    FRACTION_BITS,
    START_BITS,
    UNREACHED,
    check_keywords,
    has_repeats,
    padded_keywords,
)

# Sizes of the search with a limit; they change its speed, not its results.
LIMITS_PER_PIECE = 2  # a recording is searched in pieces of this many limits
PIECES_AT_A_TIME = 256  # side by side; longer pieces where these are enough


class KeywordScorer:
    """Confidence of each keyword at each frame, by Viterbi search through its CTC graph.

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
        """Arrange the keywords in one padded table."""
        check_keywords(keyword_ids, blank, max_frames)
        self.keyword_ids = [list(ids) for ids in keyword_ids]
        self.blank = blank
        self.max_frames = None if max_frames is None else list(max_frames)
        padded = padded_keywords(keyword_ids, blank)
        self._tokens = torch.tensor(padded).T.contiguous()  # (N, K)
        self._num_tokens = torch.tensor([len(ids) for ids in keyword_ids])
        self._on: dict[torch.device, KeywordTable] = {}

    @torch.no_grad()
    def __call__(
        self, log_probs: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search whole recordings.

        log_probs: (B, T, V) normalised. lengths: (B,) valid frames, None if all are.
        Returns: confidence (B, K, T) in [0, 1] of a keyword that ends at the frame, and its first
        frame (B, K, T). Both are 0 on padding.
        """
        frames = torch.arange(log_probs.shape[1], device=log_probs.device)
        is_padding = None
        if lengths is not None:
            is_padding = frames >= lengths.to(frames.device)[:, None]  # (B, T)
        if self.max_frames is None:
            ends = self._search(log_probs)
        else:
            ends = self._search_with_limit(log_probs, is_padding)
        confidence = self._confidence(ends.permute(2, 0, 1)).transpose(1, 2)
        start = start_frame(ends.permute(2, 1, 0), frames)
        if is_padding is None:
            return confidence.contiguous(), start
        is_padding = is_padding[:, None]
        return confidence.masked_fill(is_padding, 0.0), start.masked_fill(is_padding, 0)

    def _search(self, log_probs: torch.Tensor, codes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the best path of each keyword into each frame (T, K, B).

        codes: (T, B) path that begins at the frame; None: those of whole recordings.
        """
        batch_size, num_frames, _ = log_probs.shape
        if codes is None:
            codes = start_code(torch.arange(num_frames, device=log_probs.device))[:, None]
        table = self._table(log_probs.device)
        state = empty_state((*self._tokens.shape, batch_size), log_probs.device)
        ends = state.table.new_empty((num_frames, len(self.keyword_ids), batch_size))
        rows = iter(zip(codes.unbind(), ends.unbind(), strict=True))
        for chunk in log_probs.split(CHUNK_FRAMES, dim=1):
            parts = [part.unbind() for part in frame_scores(chunk, table)]
            for tokens, blank, best in zip(*parts, strict=True):
                code, row = next(rows)
                state.new_path.copy_(code)
                advance(state, tokens, blank, best, table.bars)
                torch.index_select(state.ends, 0, table.last, out=row)
        return ends

    def _search_with_limit(
        self, log_probs: torch.Tensor, is_padding: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the best path within its limit into each frame (T, K, B).

        is_padding: (B, T) frames without a result; None: there are none.
        """
        table = self._table(log_probs.device)
        ends = self._search_pieces(log_probs)
        frames = torch.arange(len(ends), device=ends.device)[:, None, None]
        is_old = is_too_old(ends, frames, table.limits[:, None])
        if is_padding is not None:
            is_old &= ~is_padding.T[:, None]
        chosen = is_old.flatten(0, 1).any(0)
        if chosen.any():
            part = ends[..., chosen].contiguous()
            replace_old(log_probs[chosen], part, is_old[..., chosen], table, self._piece_frames)
            ends[..., chosen] = part
        return ends

    @property
    def _piece_frames(self) -> int:
        return LIMITS_PER_PIECE * max(self.max_frames or [])

    def _search_pieces(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return the best path of each keyword into each frame (T, K, B), by pieces.

        Each piece is searched from one longest limit before it, so paths within their limits are
        those of the whole recording.
        """
        batch_size, num_frames, num_labels = log_probs.shape
        overlap = max(self.max_frames or []) - 1
        piece = max(self._piece_frames, num_frames * batch_size // PIECES_AT_A_TIME)
        num_pieces = -(-num_frames // piece)
        if num_frames <= piece + overlap:
            return without_garbage(self._search(log_probs))
        begin = torch.arange(num_pieces, device=log_probs.device)[:, None] * piece - overlap
        frames = begin + torch.arange(overlap + piece, device=log_probs.device)
        codes = start_code(frames).masked_fill_(frames < 0, UNREACHED)
        pieces = log_probs[:, frames.clamp(0, num_frames - 1)]  # (B, pieces, T, V)
        ends = self._search(
            pieces.view(-1, overlap + piece, num_labels), codes.T.repeat(1, batch_size)
        )
        ends = ends[overlap:].unflatten(2, (batch_size, num_pieces)).permute(3, 0, 1, 2)
        return without_garbage(ends.flatten(0, 1)[:num_frames])

    def events(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, refractory_frames: int
    ) -> list[list[list[Event]]]:
        """Return the events of each recording and keyword, at least one for each."""
        return find_events(*self(log_probs, lengths), refractory_frames)

    def _confidence(self, ends: torch.Tensor) -> torch.Tensor:
        """Return the confidences of complete paths from their states (..., K)."""
        num_tokens = self._table(ends.device).num_tokens
        nats = (ends >> START_BITS).double() / (1 << FRACTION_BITS)
        return (nats / num_tokens).exp().float()

    def _table(self, device: torch.device) -> KeywordTable:
        """Return the keyword table on a device."""
        if device not in self._on:
            tokens, num_tokens = self._tokens.to(device), self._num_tokens.to(device)
            num_keywords = tokens.shape[1]
            last = (num_tokens - 1) * num_keywords + torch.arange(num_keywords, device=device)
            bars = ((tokens[:-1] == tokens[1:]) * UNREACHED)[..., None]
            limits = torch.tensor(self.max_frames or [], dtype=torch.long, device=device)
            self._on[device] = KeywordTable(
                blank=self.blank,
                tokens=tokens,
                bars=bars if has_repeats(self.keyword_ids) else None,
                num_tokens=num_tokens,
                last=last,
                limits=limits,
            )
        return self._on[device]
