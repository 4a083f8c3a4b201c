"""Repeated searches for keywords whose best path is longer than their limit.

Axes: B utterances, K keywords, N tokens of the longest keyword, T frames, V vocabulary, S searches
side by side. `wekws.decode.keyword` explains the limit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from wekws.decode.keyword_state import (
    CHUNK_FRAMES,
    KeywordTable,
    advance,
    empty_state,
    frame_scores,
    is_too_old,
    start_code,
    without_garbage,
)

# Sizes that change the speed, not the results.
SEARCHES_AT_A_TIME = 1024  # side by side
HORIZONS_PER_LIMIT = 2  # a repeated search goes on for this part of a limit


class Searches(NamedTuple):
    """Searches side by side, each for one keyword in a piece of one recording."""

    keyword: torch.Tensor
    """(S,) position of the keyword."""
    recording: torch.Tensor
    """(S,) position of the recording."""
    first: torch.Tensor
    """(S,) first frame whose best path is not known yet."""
    stop: torch.Tensor
    """(S,) end of the piece, exclusive."""

    @classmethod
    def where_old(cls, following: torch.Tensor, piece: int, num_tokens: torch.Tensor) -> "Searches":
        """Return a search for each piece with a path that is too old, short keywords first.

        following: see `replace_old`.
        """
        num_frames = len(following) - 1
        begin = torch.arange(0, num_frames, piece, device=following.device)
        order = num_tokens.argsort()
        first = following[begin][:, order].transpose(0, 1)  # (K, pieces, B)
        stop = (begin + piece).clamp(max=num_frames)[:, None]
        position, number, recording = (first < stop).nonzero().unbind(1)
        return cls(
            order[position],
            recording,
            first[position, number, recording],
            stop[number, 0],
        )

    def select(self, chosen: torch.Tensor) -> "Searches":
        """Return the searches that a mask (S,) names."""
        return Searches(*(column[chosen] for column in self))

    def split(self, size: int) -> list["Searches"]:
        """Return groups of at most `size` searches."""
        return [Searches(*part) for part in zip(*(c.split(size) for c in self), strict=True)]

    @classmethod
    def join(cls, groups: Sequence["Searches"]) -> "Searches":
        """Return all searches of some groups."""
        return cls(*(torch.cat(columns) for columns in zip(*groups, strict=True)))


class GatheredScores(NamedTuple):
    """Scores of all frames, in units, to be gathered for searches."""

    tokens: torch.Tensor
    """(K, B, T, N) scores of the keywords' tokens."""
    blank: torch.Tensor
    """(B, T) score of the blank."""
    best: torch.Tensor
    """(B, T) log probability of the best label."""

    @classmethod
    def of(cls, log_probs: torch.Tensor, table: KeywordTable) -> "GatheredScores":
        """Return the scores of (B, T, V)."""
        chunks = [frame_scores(chunk, table) for chunk in log_probs.split(CHUNK_FRAMES, dim=1)]
        tokens, blank, best = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        return cls(
            tokens.permute(2, 3, 0, 1).contiguous(), blank[:, 0, 0].T.contiguous(),
            best[:, 0, 0].T.contiguous(),
        )  # fmt: skip

    def gather(
        self,
        keyword: torch.Tensor,
        recording: torch.Tensor,
        frames: torch.Tensor,
        num_tokens: int,
    ) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Return the scores of S searches at frames (steps, S), one entry per step.

        Tokens are (num_tokens, 1, S), blank and best (1, 1, S).
        """
        _, batch_size, num_frames, longest = self.tokens.shape
        place = recording * num_frames + frames  # (steps, S)
        rows = (keyword * batch_size * num_frames + place).T.flatten()
        tokens = self.tokens.view(-1, longest).index_select(0, rows)
        tokens = tokens.view(*frames.T.shape, longest)[..., :num_tokens].permute(1, 2, 0)
        blank, best = self.blank.take(place), self.best.take(place)
        return (
            tokens.contiguous()[:, :, None].unbind(),
            blank[:, None, None].unbind(),
            best[:, None, None].unbind(),
        )


def replace_old(
    log_probs: torch.Tensor,
    ends: torch.Tensor,
    is_old: torch.Tensor,
    table: KeywordTable,
    piece: int,
) -> None:
    """Give each end (T, K, B) whose path is too old the best path that is short enough.

    log_probs: (B, T, V). piece: frames of a recording that one search takes after another.
    """
    frames = torch.arange(len(ends), device=ends.device)[:, None, None]
    # (T + 1, K, B): the next frame, this one included, whose path is too old
    after = frames.new_full((1, *ends.shape[1:]), len(ends))
    following = torch.cat([torch.where(is_old, frames, len(ends)), after])
    following = following.flip(0).cummin(0).values.flip(0)
    searches = Searches.where_old(following, piece, table.num_tokens)
    scores = GatheredScores.of(log_probs, table)
    while searches.keyword.numel():
        groups = searches.split(SEARCHES_AT_A_TIME)
        searches = Searches.join([_pursue(g, scores, following, ends, table) for g in groups])


def _pursue(
    searches: Searches,
    scores: GatheredScores,
    following: torch.Tensor,
    ends: torch.Tensor,
    table: KeywordTable,
) -> Searches:
    """Run each search from the earliest start allowed, until its best path is too old.

    Writes the best paths to `ends` (T, K, B). following: see `replace_old`.
    Returns: the searches that are left, each at its next frame without a path.
    """
    num_frames, num_keywords, batch_size = ends.shape
    keyword, recording, first, stop = searches
    limit, last = table.limits[keyword], table.num_tokens[keyword] - 1
    longest, num_tokens = int(limit.max()), int(last.max()) + 1
    begin = (first - limit + 1).clamp_(min=0)
    horizon = -(-longest // HORIZONS_PER_LIMIT)
    num_steps = int((torch.minimum(stop, first + horizon) - begin).max())
    frames = begin + torch.arange(num_steps, device=ends.device)[:, None]  # (steps, S)
    parts = scores.gather(keyword, recording, frames.clamp(max=num_frames - 1), num_tokens)
    bars = table.bars
    if bars is not None:
        bars = bars[: num_tokens - 1, keyword].transpose(1, 2)
    state = empty_state((num_tokens, 1, len(keyword)), ends.device)
    position = last * len(keyword) + torch.arange(len(keyword), device=ends.device)
    last_states, best_paths = state.ends.view(-1), torch.empty_like(frames)
    codes = start_code(frames).unbind()
    for row, code, tokens, blank, best in zip(best_paths.unbind(), codes, *parts, strict=True):
        state.new_path.copy_(code)
        advance(state, tokens, blank, best, bars)
        torch.index_select(last_states, 0, position, out=row)
    without_garbage(best_paths)
    is_due = (frames >= first) & (frames < stop)
    is_old = is_too_old(best_paths, frames, limit) & is_due & (frames > first)
    reached = torch.where(is_old, frames, stop).amin(0).minimum(begin + num_steps)
    is_due &= frames < reached
    places = (frames * num_keywords + keyword) * batch_size + recording
    ends.view(-1)[places[is_due]] = best_paths[is_due]
    left = searches._replace(first=following[reached, keyword, recording])
    return left.select(left.first < stop)
