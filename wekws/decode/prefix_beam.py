"""CTC prefix beam search, the decoder of the published WeKWS figures without its known faults.

A keyword is found where its tokens are adjacent in any hypothesis of the last beam, its end
included; its confidence is the geometric mean of the tokens' peak probabilities whatever its
length. Unlike `wekws.decode.keyword` it finds nothing where the beam pruned the keyword. As in
WeKWS only the keywords' own tokens and the blank are searched, so other speech between two tokens
of a keyword does not separate them.

The hypotheses are known at the end of a recording only, so no stream can follow this decoder, and
its events are not those of `wekws.decode.event_rule`: the highest are taken first.

Source of the search: Hannun et al. 2014, arXiv:1408.2873, algorithm 1 (without a language model).
"""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch

from wekws.decode.event_rule import Event


class _Peak(NamedTuple):
    """The best frame of a hypothesis's last token, linked to the peaks of the tokens before."""

    token: int
    prob: float
    frame: int
    previous: Optional["_Peak"]


class _Prefix:
    """A token sequence as a node of a tree, so that equal sequences are one object."""

    __slots__ = ("token", "children")

    def __init__(self, token: int) -> None:
        self.token = token
        self.children: dict[int, _Prefix] = {}

    def extended(self, token: int) -> "_Prefix":
        child = self.children.get(token)
        if child is None:
            child = self.children[token] = _Prefix(token)
        return child


class _Hypothesis:
    """Probability of a prefix, ending in blank or in its token, and its most likely peaks."""

    __slots__ = ("in_blank", "in_token", "peaks", "share")

    def __init__(self, in_blank: float = 0.0, in_token: float = 0.0) -> None:
        self.in_blank = in_blank
        self.in_token = in_token
        self.peaks: _Peak | None = None
        self.share = 0.0

    @property
    def total(self) -> float:
        return self.in_blank + self.in_token

    def update_peaks(self, peaks: _Peak | None, share: float) -> None:
        """Keep the peaks of the path into this prefix with the highest probability."""
        if share > self.share:
            self.peaks, self.share = peaks, share


_Beam = dict[_Prefix, _Hypothesis]


class PrefixBeamDecoder:
    """Keywords in the hypotheses of a CTC prefix beam search.

    keyword_ids: the tokens of each keyword. beam_size: prefixes kept after each frame.
    num_best: most likely labels of a frame that are followed, if above min_prob.
    min_prob: probability that a label must exceed to be followed.
    """

    def __init__(
        self,
        keyword_ids: Sequence[Sequence[int]],
        *,
        beam_size: int = 20,
        num_best: int = 3,
        min_prob: float = 0.05,
        blank: int = 0,
    ) -> None:
        """Store the labels that the search follows."""
        if not keyword_ids or any(len(ids) == 0 or blank in ids for ids in keyword_ids):
            raise ValueError("keyword_ids: expected keywords of one or more tokens, no blanks")
        self.keyword_ids = [tuple(ids) for ids in keyword_ids]
        self.beam_size = beam_size
        self.num_best = num_best
        self.min_prob = min_prob
        self.blank = blank
        self._followed = {blank}.union(*self.keyword_ids)

    @torch.no_grad()
    def events(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, refractory_frames: int
    ) -> list[list[list[Event]]]:
        """Return the events of each recording and keyword, none where no hypothesis contains it.

        log_probs: (B, T, V) normalised. lengths: (B,) valid frames.
        """
        probs, labels = log_probs.float().exp().topk(min(self.num_best, log_probs.shape[2]))
        rows = zip(probs.tolist(), labels.tolist(), lengths.tolist(), strict=True)
        return [
            self._keyword_events(self._search(p[:length], v[:length]), refractory_frames)
            for p, v, length in rows
        ]

    def _search(self, probs: list[list[float]], labels: list[list[int]]) -> list[_Hypothesis]:
        """Return the last beam, best first."""
        beam: _Beam = {_Prefix(self.blank): _Hypothesis(in_blank=1.0)}
        for frame, (frame_probs, frame_labels) in enumerate(zip(probs, labels, strict=True)):
            followed = [
                (label, prob)
                for label, prob in zip(frame_labels, frame_probs, strict=True)
                if prob > self.min_prob and label in self._followed
            ]
            if followed:
                beam = self._prune(self._extend(beam, followed, frame))
        return list(beam.values())

    def _extend(self, beam: _Beam, followed: list[tuple[int, float]], frame: int) -> _Beam:
        longer: _Beam = {}

        def at(prefix: _Prefix) -> _Hypothesis:
            found = longer.get(prefix)
            if found is None:
                found = longer[prefix] = _Hypothesis()
            return found

        for prefix, old in beam.items():
            for label, prob in followed:
                if label == self.blank:
                    new = at(prefix)
                    new.in_blank += old.total * prob
                    new.update_peaks(old.peaks, old.total * prob)
                    continue
                is_repeat = label == prefix.token
                if is_repeat and old.in_token > 0:
                    new = at(prefix)
                    new.in_token += old.in_token * prob
                    new.update_peaks(_raised(old.peaks, prob, frame), old.in_token * prob)
                gain = (old.in_blank if is_repeat else old.total) * prob
                if gain > 0:
                    new = at(prefix.extended(label))
                    new.in_token += gain
                    new.update_peaks(_Peak(label, prob, frame, old.peaks), gain)
        return longer

    def _prune(self, beam: _Beam) -> _Beam:
        """Keep the most likely prefixes, scaled to sum to 1, so that nothing underflows."""
        best = sorted(beam.items(), key=lambda item: -item[1].total)[: self.beam_size]
        scale = 1.0 / sum(hypothesis.total for _, hypothesis in best)
        for _, hypothesis in best:
            hypothesis.in_blank *= scale
            hypothesis.in_token *= scale
        return dict(best)

    def _keyword_events(
        self, hypotheses: list[_Hypothesis], refractory_frames: int
    ) -> list[list[Event]]:
        found: list[dict[tuple[int, int], float]] = [{} for _ in self.keyword_ids]
        for hypothesis in hypotheses:
            peaks = _in_order(hypothesis.peaks)
            tokens = tuple(peak.token for peak in peaks)
            for ids, hits in zip(self.keyword_ids, found, strict=True):
                for i in range(len(tokens) - len(ids) + 1):
                    if tokens[i : i + len(ids)] == ids:
                        score = _geometric_mean([peak.prob for peak in peaks[i : i + len(ids)]])
                        span = (peaks[i].frame, peaks[i + len(ids) - 1].frame)
                        hits[span] = max(score, hits.get(span, 0.0))
        return [
            highest_apart([Event(score, *span) for span, score in hits.items()], refractory_frames)
            for hits in found
        ]


def highest_apart(events: Sequence[Event], refractory_frames: int) -> list[Event]:
    """Return the events that remain, in time order, when each removes lower ones close to it."""
    kept: list[Event] = []
    for event in sorted(events, key=lambda event: (-event.score, event.end)):
        if all(abs(event.end - other.end) >= max(refractory_frames, 1) for other in kept):
            kept.append(event)
    return sorted(kept, key=lambda event: event.end)


def _raised(peaks: _Peak | None, prob: float, frame: int) -> _Peak | None:
    """Move the last token's peak to this frame if its probability is higher."""
    if peaks is None or prob <= peaks.prob:
        return peaks
    return peaks._replace(prob=prob, frame=frame)


def _in_order(peaks: _Peak | None) -> list[_Peak]:
    ordered = []
    while peaks is not None:
        ordered.append(peaks)
        peaks = peaks.previous
    return ordered[::-1]


def _geometric_mean(probs: list[float]) -> float:
    # exp can return a value one bit above 1.
    return min(float(torch.tensor(probs, dtype=torch.float64).log().mean().exp()), 1.0)
