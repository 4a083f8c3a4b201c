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

from wekws.distill.hook import TrainingHook, TrainingRun
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.distill.soft_score import SoftKeywordScore
from wekws.errors import ConfigError
from wekws.runlog.health import HealthRule, RunLog

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
