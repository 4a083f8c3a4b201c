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

    The tensors of a frame are small, so that the loops cost what starting their operations costs:
    they have few of them, all into memory that is there, and what does not follow from the frame
    before is computed for all frames at once.
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
        num_frames, num_tokens, *of_token = tokens.shape
        combine = torch.maximum if is_hard else torch.logaddexp
        has_repeats = bool(is_repeat.any())
        # Index t holds the states before frame t.
        blanks = tokens.new_full((num_frames + 1, num_tokens, *of_token), UNREACHED)
        # Paths at their peak, and those before it with the ones that enter the token here.
        at_token = tokens.new_full((num_frames + 1, 2, num_tokens, *of_token), UNREACHED)
        peaked, entered = at_token.unbind(1)
        # The same with the token's emission: paths that stay at their peak, and the next `before`.
        emitted = tokens.new_empty((num_frames, 2, num_tokens, *of_token))
        stays, next_before = emitted.unbind(1)
        before = [torch.full_like(tokens[0], UNREACHED), *next_before]
        # `past` has the states after each token, and before the first one: a path may begin at any
        # frame, at 0. What enters a token is in the row before it.
        past = tokens.new_zeros((num_frames, num_tokens + 1, *of_token))
        entry = past.clone() if has_repeats else past
        peaked_at, blanks_at, entered_at = peaked.unbind(), blanks.unbind(), entered.unbind()
        past_at, entry_at = past[:, 1:].unbind(), entry[:, :-1].unbind()
        left_at, past_left_at = entry[:, 1:-1].unbind(), past[:, 1:-1].unbind()
        at_token_at, emitted_at, stays_at = at_token.unbind(), emitted.unbind(), stays.unbind()
        tokens_at, blank_at, best_at = tokens.unbind(), blank.unbind(), best.unbind()
        peak = torch.empty_like(tokens[0])
        for t in range(num_frames):
            combine(peaked_at[t], blanks_at[t], out=past_at[t])
            if has_repeats:
                torch.where(is_repeat, blanks_at[t][:-1], past_left_at[t], out=left_at[t])
            combine(before[t], entry_at[t], out=entered_at[t])
            torch.add(at_token_at[t], tokens_at[t], out=emitted_at[t])
            torch.add(before[t + 1], best_at[t], out=peak)
            combine(stays_at[t], peak, out=peaked_at[t + 1])
            torch.add(past_at[t], blank_at[t], out=blanks_at[t + 1])

        def share(one: Tensor, other: Tensor) -> Tensor:
            difference = one - other
            return (difference >= 0).to(one.dtype) if is_hard else difference.sigmoid_()

        ctx.save_for_backward(
            share(peaked[:-1], blanks[:-1]),
            share(torch.stack(before[:-1]), entry[:, :-1]),
            share(stays, next_before + best[:, None, None]),
            is_repeat,
            last,
        )
        return peaked[1:].flatten(1, 2).index_select(1, last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ends: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of tokens, blank and best."""
        # Shares: of `peaked` in `past`, of `before` in `entered`, of `stays` in the next `peaked`.
        of_peaked, of_before, of_stays, is_repeat, last = ctx.saved_tensors
        num_frames, num_tokens = of_peaked.shape[:2]
        has_repeats = bool(is_repeat.any())
        of_blanks, of_entry, of_peak = 1 - of_peaked, 1 - of_before, 1 - of_stays
        # What left token i entered token i + 1; from the last one nothing leaves.
        of_left = of_left_blanks = F.pad(of_entry[:, 1:], (0, 0, 0, 0, 0, 1))
        if has_repeats:  # of the blanks alone where a token is repeated, else of both
            from_blanks = F.pad(is_repeat, (0, 0, 0, 0, 0, 1))
            of_left, of_left_blanks = of_left * ~from_blanks, of_left * from_blanks
        # Gradients of the states after each frame, and of `entered` with a row of 0 behind it.
        to_peaked = torch.zeros_like(of_peaked)
        to_peaked.flatten(1, 2).index_copy_(1, last, grad_ends)
        to_blanks = torch.zeros_like(of_peaked)
        to_entered = of_peaked.new_zeros((num_frames, num_tokens + 1, *of_peaked.shape[2:]))
        peaked_at, blanks_at = to_peaked.unbind(), to_blanks.unbind()
        entered_at, left_at = to_entered[:, :-1].unbind(), to_entered[:, 1:].unbind()
        of_peaked_at, of_before_at = of_peaked.unbind(), of_before.unbind()
        of_stays_at, of_peak_at, of_blanks_at = (
            of_stays.unbind(),
            of_peak.unbind(),
            of_blanks.unbind(),
        )
        of_left_at, of_left_blanks_at = of_left.unbind(), of_left_blanks.unbind()
        to_past = torch.zeros_like(of_peaked[0])
        for t in reversed(range(num_frames)):
            if t + 1 < num_frames:
                peaked_at[t].addcmul_(peaked_at[t + 1], of_stays_at[t + 1])
                peaked_at[t].addcmul_(to_past, of_peaked_at[t + 1])
            torch.mul(peaked_at[t], of_peak_at[t], out=entered_at[t])
            if t + 1 < num_frames:
                entered_at[t].addcmul_(entered_at[t + 1], of_before_at[t + 1])
            torch.addcmul(blanks_at[t], left_at[t], of_left_at[t], out=to_past)
            if t > 0:
                torch.mul(to_past, of_blanks_at[t], out=blanks_at[t - 1])
                if has_repeats:
                    blanks_at[t - 1].addcmul_(left_at[t], of_left_blanks_at[t])
        grad_tokens = torch.addcmul(to_entered[:, :-1], to_peaked, of_stays)
        sums = (grad.sum(dim=(1, 2)) for grad in (to_blanks, to_peaked * of_peak))
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
