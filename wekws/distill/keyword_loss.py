"""Keyword-discriminative loss: the scorer's confidence as a detector, and mined negatives.

Axes: B batch, T frames, V vocabulary, K keywords, N tokens of the longest keyword.

CTC makes every token probable where it is spoken. A false alarm is another event: an utterance
without the keyword in which the keyword's best path scores high. This term is computed from that
score itself. It compares the log confidence of each utterance and keyword with a learnt threshold
per keyword, and penalises misses and false alarms.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wekws.distill.frames import valid_frames
from wekws.distill.hook import TrainingHook, TrainingRun
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.errors import ConfigError
from wekws.runlog.health import HealthRule, RunLog

UNREACHED = -1e30  # score of a state that no path reaches; adding emissions leaves it as it is
FIRST_THRESHOLD = -0.7  # log confidence; a confidence of about 0.5
# Share of the training positives below the threshold, and the epochs that training may take to
# come below it: CTC has to learn the tokens first (on tones that took about 50 steps).
MISSED_SHARE, MISSED_GRACE_EPOCHS = 0.9, 5
_COUNTS = tuple(
    f"keyword_{kind}_{what}"
    for kind in ("positive", "negative")
    for what in ("num", "confidence", "error")
)


def undetected(log: RunLog) -> str | None:
    """Find a detector that misses most of the keywords in training."""
    row = log.epochs[-1]
    if "keyword_alarms" not in row or row["epoch"] < MISSED_GRACE_EPOCHS:
        return None
    if "keyword_misses" not in row:
        return "the keyword term has had no training utterance with a keyword in this epoch"
    if row["keyword_misses"] <= MISSED_SHARE:
        return None
    return (
        f"the keyword term misses {row['keyword_misses']:.0%} of the keywords in training: mean "
        f"confidence {row['keyword_positive']:.2g} with the keyword, "
        f"{row['keyword_negative']:.2g} without"
    )


@dataclass(frozen=True, kw_only=True)
class KeywordConfig(MethodConfig):
    """Section ``keyword_conf``: misses and false alarms of the keywords, beside CTC."""

    weight: Scheduled = 0.0
    """Weight relative to CTC, with and without a teacher; 0: off. The term is in nats per
    utterance, summed over the keywords."""
    softness: float = 0.1
    """Temperature of the maximum over paths, in nats, >= 0. 0: the best path alone, whose score is
    the scorer's to the last digit. Larger: the gradient reaches other paths and frames too."""
    slope: float = 4.0
    """Change of the detector's logit per nat of log confidence, above 0. Larger: only utterances
    close to the threshold count."""
    false_alarm_weight: float = 1.0
    """Weight of a false alarm where a miss has 1, above 0. Larger: the threshold settles where
    there are fewer false alarms."""
    mined_share: float = 0.0
    """Hard negatives that occur a second time in the next epoch, as a share of the training
    utterances, 0 to 1. They are those with the highest confidence, relative to the threshold, of a
    keyword that they do not hold."""

    term_groups = {"keyword": "task"}
    health_rules = (
        HealthRule(
            "keyword_undetected",
            undetected,
            "Check that train has the keywords and their transcripts; let CTC learn the tokens "
            "first (`keyword_conf.weight: cosine_growth`), or lower `false_alarm_weight`.",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        checked_schedule("weight", self.weight, 0.0)
        if self.softness < 0.0:
            raise ConfigError(f"softness: found {self.softness}; expected at least 0")
        if not self.slope > 0.0 or not self.false_alarm_weight > 0.0:
            raise ConfigError(
                f"slope {self.slope}, false_alarm_weight {self.false_alarm_weight}: expected "
                "above 0"
            )
        if not 0.0 <= self.mined_share <= 1.0:
            raise ConfigError(f"mined_share: found {self.mined_share}; expected 0 to 1")
        if self.mined_share and not self.is_used:
            raise ConfigError(
                "mined_share: negatives are mined with the term's scores; give it a weight above 0"
            )

    @property
    def is_used(self) -> bool:
        """Whether the term ever has a weight."""
        return is_used(self.weight)

    def build(self, context: MethodContext) -> Method | None:
        """Return the detector; None where it is off.

        Raises: ConfigError if the run has no keywords, or one has tokens without an output.
        """
        if not self.is_used:
            return None
        labels = context.label_set
        if labels is None or not labels.keywords:
            raise ConfigError("keyword_conf.weight: the run has no keywords; give --keywords_file")
        return KeywordDetector(self, [labels.scorable_ids(word) for word in labels.keywords])


class KeywordDetector(Method):
    """Term ``keyword``: a detector per keyword on the soft log confidence of each utterance.

    The logit is ``slope * (log confidence - threshold)``; the loss is the binary cross-entropy,
    false alarms with their own weight. The thresholds are trained with the student, and settle
    where the weighted numbers of (soft) misses and false alarms are equal: with the threshold as a
    variable of its own, the sum bounds misses at a given rate of false alarms, and negatives that
    are far below the threshold do not count. Unlike a loss on pairs of utterances, it is a sum over
    utterances: the shares of several processes and the parts of a batch add up.
    Source: Eban et al. 2017, arXiv:1608.04802 (rates at a threshold bounded by losses, and the
    threshold learnt), with the logistic loss in place of the hinge.
    """

    needs_teacher = False
    needs_confidences = True
    count_names = _COUNTS

    def __init__(self, config: KeywordConfig, keyword_ids: Sequence[Sequence[int]]) -> None:
        """keyword_ids: the tokens of each of the K keywords."""
        super().__init__()
        self.terms = (Term(name="keyword", group="task", weight=as_schedule(config.weight)),)
        self._config = config
        self.score = SoftKeywordScore(keyword_ids, config.softness)
        # Weight decay pulls the thresholds towards their first value.
        self.shift = nn.Parameter(torch.zeros(len(keyword_ids)))
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def thresholds(self) -> Tensor:
        """(K,) log confidence above which an utterance counts as holding the keyword."""
        return FIRST_THRESHOLD + self.shift

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the loss, summed over utterances and keywords, and the counts for figures."""
        if "keyword" not in wanted:
            return {}
        targets = inputs.targets
        assert targets.holds_keyword is not None, "the batch does not say who holds a keyword"
        log_probs = inputs.student.logits.float().log_softmax(dim=-1)
        scores = self.score(log_probs, targets.lengths)
        margins = scores - self.thresholds
        # An utterance with fewer frames than a keyword needs has no path, and nothing to learn.
        is_reached = scores.isfinite()
        is_positive = targets.holds_keyword & is_reached
        is_negative = ~targets.holds_keyword & is_reached
        logits = self._config.slope * margins
        misses = F.softplus(-logits[is_positive]).sum()
        alarms = F.softplus(logits[is_negative]).sum()
        if self.training and self._config.mined_share and targets.indices is not None:
            hardest = margins.detach().masked_fill(~is_negative, -torch.inf).amax(dim=1)
            self._seen.append((targets.indices, hardest))
        counts = _counts(scores.detach(), margins.detach(), is_positive, is_negative)
        return {"keyword": misses + self._config.false_alarm_weight * alarms, **counts}

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return mean confidences with and without the keyword, and shares of errors.

        keyword_positive, keyword_negative: mean confidence. keyword_misses: share of the positives
        below the threshold; keyword_alarms: of the negatives above it.
        """
        figures = {}
        for kind, errors in (("positive", "misses"), ("negative", "alarms")):
            num = counts[f"keyword_{kind}_num"]
            if num:
                figures[f"keyword_{kind}"] = counts[f"keyword_{kind}_confidence"] / num
                figures[f"keyword_{errors}"] = counts[f"keyword_{kind}_error"] / num
        return figures

    def take_seen(self) -> tuple[Tensor, Tensor]:
        """Return what was collected since the last call: utterances and margins, (M,) each.

        The margin is the highest of the keywords that the utterance does not hold, in nats above
        the threshold; -inf where there is none.
        """
        nothing = (self.shift.new_zeros(0, dtype=torch.long), self.shift.new_zeros(0))
        indices, margins = zip(nothing, *self._seen, strict=True)
        self._seen.clear()
        return torch.cat(indices), torch.cat(margins)


def _counts(
    scores: Tensor, margins: Tensor, is_positive: Tensor, is_negative: Tensor
) -> dict[str, Tensor]:
    """Return the sums of ``_COUNTS`` from log confidences and margins, (B, K) each."""
    confidence = scores.exp().clamp(max=1.0)
    sums = (
        *(is_positive.sum(), confidence[is_positive].sum(), (margins[is_positive] <= 0).sum()),
        *(is_negative.sum(), confidence[is_negative].sum(), (margins[is_negative] > 0).sum()),
    )
    return dict(zip(_COUNTS, (value.double() for value in sums), strict=True))


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
        # A device waits for each small operation to be started: there, few large ones are faster.
        score_ends = _scan_end_scores if log_probs.is_cuda else _EndScores.apply
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


class _EndScores(torch.autograd.Function):
    """Soft score of all paths of each keyword that end at each frame, by one pass over the frames.

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
        """Return scores (T, K, B), divided by the softness like all others here.

        tokens: (T, N, K, B), blank: (T, B), scores relative to the best label. best: (T, B) score
        of the best label. is_repeat: (N - 1, K, 1), last: (K,), as in ``SoftKeywordScore``.
        is_hard: maximum in place of the soft one.
        """
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


def _scan_end_scores(
    tokens: Tensor, blank: Tensor, best: Tensor, is_repeat: Tensor, last: Tensor, is_hard: bool
) -> Tensor:
    """Return what ``_EndScores`` does, by scans over the frames of one token after the other.

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


class HardNegatives(TrainingHook):
    """Repeats, in each epoch, the negatives that were hardest in the epoch before.

    Their scores are those of the training steps. They are the scores under the weights of that
    step, with SpecAugment's masks on, and cost nothing. An utterance that was joined with another
    one is not counted, since it is not known in which of the two the alarm lies.
    """

    name = "hard_negatives"

    def __init__(self, share: float) -> None:
        """share: of the training utterances, above 0."""
        self._share = share
        self._mined = torch.zeros(0, dtype=torch.long)

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Let the mined utterances occur once more."""
        run.repeat_utterances(self._mined)

    def after_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Mine the utterances for the next epoch, all processes the same."""
        methods = run.objective.methods.values()
        detector = next(method for method in methods if isinstance(method, KeywordDetector))
        indices, margins = detector.take_seen()
        hardest = margins.new_full((run.num_utterances,), -torch.inf)
        is_known = indices >= 0
        hardest.scatter_reduce_(0, indices[is_known], margins[is_known], "amax")
        self._mined = choose_hardest(run.max_over_peers(hardest).cpu(), self._share)

    def state(self, run: TrainingRun) -> dict[str, Any]:
        """Return the mined utterances."""
        return {"mined": self._mined}

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> None:
        """Take the mined utterances of the last epoch."""
        self._mined = state["mined"]


def choose_hardest(margins: Tensor, share: float) -> Tensor:
    """Return the positions of the highest of ``margins`` (N,), at most ``share * N``, sorted.

    Those of -inf are never chosen; of equal ones the first.
    """
    order = margins.argsort(descending=True, stable=True)[: round(share * len(margins))]
    return order[margins[order] > -torch.inf].sort().values
