"""Log confidence of keywords, differentiable: the scorer's paths with a soft maximum.

Axes: B batch, T frames, V vocabulary, K keywords, N tokens of the longest keyword.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wekws.distill.frames import valid_frames

UNREACHED = -1e30  # score of a state that no path reaches; adding emissions leaves it as it is


class SoftKeywordScore(nn.Module):
    """Log confidence of keywords in whole utterances, differentiable.

    The same paths and scores as in ``wekws.decode.keyword.KeywordScorer`` (without its limit on the
    duration), but each maximum over paths, and that over end frames, is
    ``softness * log(sum(exp(score / softness)))``, which tends to the maximum as softness tends to
    0; at softness 0 it is the maximum. The score of a path is divided by the number of the
    keyword's tokens at the end. The soft value is never lower than the exact one, and higher by at
    most softness * log(number of paths) / tokens.
    """

    tokens: Tensor
    """(N, K) tokens of the keywords, padded with blank."""
    is_repeat: Tensor
    """(N - 1, K, 1) whether a token equals the one before, so that a blank is needed between."""
    last: Tensor
    """(K,) position of each keyword's last token in N * K."""
    num_tokens: Tensor
    """(K,) tokens of each keyword."""

    def __init__(
        self, keyword_ids: Sequence[Sequence[int]], softness: float, blank: int = 0
    ) -> None:
        """keyword_ids: tokens of each keyword, without blanks. softness: in nats, >= 0."""
        super().__init__()
        self._softness, self._blank = softness, blank
        lengths = torch.tensor([len(ids) for ids in keyword_ids])
        padded = [[*ids, *[blank] * (int(lengths.max()) - len(ids))] for ids in keyword_ids]
        tokens = torch.tensor(padded).T.contiguous()
        constants = {
            "tokens": tokens,
            "is_repeat": (tokens[1:] == tokens[:-1])[..., None],
            "last": (lengths - 1) * len(keyword_ids) + torch.arange(len(keyword_ids)),
            "num_tokens": lengths,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Return the log confidence (B, K), -inf where there is no path.

        log_probs: (B, T, V) normalised. lengths: (B,) valid frames; the rest does not count.
        """
        is_valid = valid_frames(lengths, log_probs.shape[1], log_probs.device)
        scale = self._softness or 1.0
        by_frame = log_probs.masked_fill(~is_valid[..., None], 0.0).permute(1, 2, 0) / scale
        best = by_frame.amax(dim=1)
        relative = by_frame - best[:, None]
        emissions = relative.index_select(1, self.tokens.flatten())
        # A GPU waits for each small operation to be started: there, few large ones are faster.
        score_ends = end_scores_by_token if log_probs.is_cuda else end_scores_by_frame
        ends: Tensor = score_ends(
            emissions.unflatten(1, self.tokens.shape),
            relative[:, self._blank],
            best,
            self.is_repeat,
            self.last,
            not self._softness,
        )
        ends = ends.masked_fill(~is_valid.T[:, None], UNREACHED)
        best_end = ends.logsumexp(dim=0) if self._softness else ends.amax(dim=0)
        scores = scale * best_end / self.num_tokens[:, None]
        return scores.masked_fill(best_end < UNREACHED / 2, -torch.inf).T


def end_scores_by_frame(
    tokens: Tensor, blank: Tensor, best: Tensor, is_repeat: Tensor, last: Tensor, is_hard: bool
) -> Tensor:
    """Return the score of all paths of each keyword that end at each frame, (T, K, B).

    One pass over the frames, for all tokens at once. All scores are divided by the softness.
    tokens: (T, N, K, B), blank: (T, B), scores relative to the best label. best: (T, B) score of
    the best label. is_repeat: (N - 1, K, 1), last: (K,), as in ``SoftKeywordScore``.
    is_hard: maximum in place of the soft one.
    """
    scores: Tensor = _ByFrame.apply(tokens, blank, best, is_repeat, last, is_hard)
    return scores


class _ByFrame(torch.autograd.Function):
    """The pass over the frames, with its gradient.

    The states of a token are the scorer's: ``before`` its peak, ``peaked`` from the peak on, and
    ``blanks`` after it. The gradient is computed by a second pass, backwards, in which each state
    hands its gradient to the two states that it was made of, in the shares that these have in it.
    Autograd through the loop would compute the same in several times the time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        blank: Tensor,
        best: Tensor,
        is_repeat: Tensor,
        last: Tensor,
        is_hard: bool,
    ) -> Tensor:
        """Return the scores, see ``end_scores_by_frame``."""
        num_frames = len(tokens)
        combine = torch.maximum if is_hard else torch.logaddexp
        # Index t holds the states before frame t.
        states = tokens.new_full((3, num_frames + 1, *tokens.shape[1:]), UNREACHED)
        before, peaked, blanks = states.unbind()
        past_peak = torch.empty_like(tokens)  # peaked and blanks together
        entry = torch.zeros_like(tokens)  # into each token; into the first one at any frame, at 0
        has_repeats = bool(is_repeat.any())
        for t in range(num_frames):
            combine(peaked[t], blanks[t], out=past_peak[t])
            leaving = past_peak[t, :-1]
            if has_repeats:
                leaving = torch.where(is_repeat, blanks[t, :-1], leaving)
            entry[t, 1:] = leaving
            combine(before[t], entry[t], out=before[t + 1])
            before[t + 1] += tokens[t]
            torch.add(past_peak[t], blank[t], out=blanks[t + 1])
            combine(peaked[t] + tokens[t], before[t + 1] + best[t], out=peaked[t + 1])
        ctx.save_for_backward(tokens, best, is_repeat, last, states, entry)
        ctx.is_hard = is_hard
        return peaked[1:].flatten(1, 2).index_select(1, last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ends: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of tokens, blank and best."""
        tokens, best, is_repeat, last, states, entry = ctx.saved_tensors
        before, peaked, blanks = states.unbind()

        def share(one: Tensor, other: Tensor) -> Tensor:
            difference = one - other
            return (difference >= 0).to(one.dtype) if ctx.is_hard else difference.sigmoid_()

        of_peaked = share(peaked[:-1], blanks[:-1])  # in past_peak
        of_before = share(before[:-1], entry)
        of_stay = share(peaked[:-1] + tokens, before[1:] + best[:, None, None])
        grad_tokens, grad_peak = torch.empty_like(tokens), torch.empty_like(tokens)
        grad_blanks = torch.empty_like(tokens)
        to_peaked, to_blanks, to_before = torch.zeros_like(states[:, 0]).unbind()
        has_repeats = bool(is_repeat.any())
        for t in reversed(range(len(tokens))):
            to_peaked.flatten(0, 1).index_add_(0, last, grad_ends[t])
            stay = to_peaked * of_stay[t]
            torch.sub(to_peaked, stay, out=grad_peak[t])
            token = to_before + grad_peak[t]
            torch.add(stay, token, out=grad_tokens[t])
            grad_blanks[t] = to_blanks
            to_before = token * of_before[t]
            leaving = (token - to_before)[1:]
            after = to_blanks  # gradient of past_peak
            if has_repeats:
                after[:-1] += leaving * ~is_repeat
            else:
                after[:-1] += leaving
            to_peaked = after * of_peaked[t]
            to_blanks = after - to_peaked
            to_peaked += stay
            if has_repeats:
                to_blanks[:-1] += leaving * is_repeat
        sums = (grad.sum(dim=(1, 2)) for grad in (grad_blanks, grad_peak))
        return grad_tokens, *sums, None, None, None


def end_scores_by_token(
    tokens: Tensor, blank: Tensor, best: Tensor, is_repeat: Tensor, last: Tensor, is_hard: bool
) -> Tensor:
    """Return the same as ``end_scores_by_frame``: scans over the frames, token after token.

    A state follows x[t + 1] = combine(x[t], input[t]) + emission[t]. With c[t], the sum of the
    emissions before frame t, x[t] - c[t] is a running maximum (soft: logcumsumexp) of
    input - c. The sums grow with the recording, therefore float64.
    """
    dtype = tokens.dtype
    tokens, blank, best = (
        value.double().movedim(0, -1).contiguous() for value in (tokens, blank, best)
    )
    combine = torch.maximum if is_hard else torch.logaddexp

    def scan(inputs: Tensor) -> Tensor:
        return inputs.cummax(dim=-1).values if is_hard else inputs.logcumsumexp(dim=-1)

    def delay(states: Tensor) -> Tensor:
        return F.pad(states[..., :-1], (1, 0), value=UNREACHED)

    sums, blank_sum = tokens.cumsum(dim=-1), blank.cumsum(dim=-1)
    entry = torch.zeros_like(tokens[0])  # into the first token at any frame, at 0
    ends = []
    for n, (token, token_sum) in enumerate(zip(tokens, sums, strict=True)):
        before = scan(entry - (token_sum - token))  # after the frame, less token_sum
        peaked = scan(before + best) + token_sum
        ends.append(peaked)
        if n == len(is_repeat):
            break
        peaked = delay(peaked)
        blanks = delay(scan(peaked - (blank_sum - blank)) + blank_sum)
        entry = torch.where(is_repeat[n, :, :, None], blanks, combine(peaked, blanks))
    by_state = torch.stack(ends).flatten(0, 1).index_select(0, last)
    return by_state.movedim(-1, 0).to(dtype)
