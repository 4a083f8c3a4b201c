"""CTC prefix beam search, the decoder of published WeKWS figures without its known faults.

A keyword is found where its tokens stand side by side in any hypothesis of the last beam, its end
included; its confidence is the geometric mean of the tokens' peak probabilities whatever its
length. Unlike `wekws.decode.keyword` it finds nothing where the beam dropped the keyword. As in
WeKWS only the keywords' own tokens and the blank are searched, so that other speech between two
tokens of a keyword does not part them.

Source of the search: Hannun et al. 2014, arXiv:1408.2873, algorithm 1 (without a language model).
"""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch

from wekws.decode.events import Event, suppress


class _Peak(NamedTuple):
    """The best frame of the last token of a hypothesis, and the peaks before it."""

    token: int
    prob: float
    frame: int
    previous: Optional["_Peak"]


class _Prefix:
    """A token sequence: a node of a tree, so that equal sequences are one object."""

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
    """Probability of a prefix that ends in blank or in its token, and its likeliest peaks."""

    __slots__ = ("in_blank", "in_token", "peaks", "share")

    def __init__(self, in_blank: float = 0.0, in_token: float = 0.0) -> None:
        self.in_blank = in_blank
        self.in_token = in_token
        self.peaks: _Peak | None = None
        self.share = 0.0

    @property
    def total(self) -> float:
        return self.in_blank + self.in_token

    def offer_peaks(self, peaks: _Peak | None, share: float) -> None:
        """Take the peaks of the way into this prefix that carries most probability."""
        if share > self.share:
            self.peaks, self.share = peaks, share


_Beam = dict[_Prefix, _Hypothesis]


class PrefixBeamDecoder:
    """Keywords in the hypotheses of a CTC prefix beam search.

    keyword_ids: the tokens of each keyword. beam_size: prefixes kept after each frame.
    num_best: labels of a frame that are looked at. min_prob: what a label must exceed for that.
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
        """Note the labels that the search follows."""
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
        """Return the events of each recording and keyword, none where no hypothesis holds it.

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
                    new.offer_peaks(old.peaks, old.total * prob)
                    continue
                is_repeat = label == prefix.token
                if is_repeat and old.in_token > 0:
                    new = at(prefix)
                    new.in_token += old.in_token * prob
                    new.offer_peaks(_raised(old.peaks, prob, frame), old.in_token * prob)
                gain = (old.in_blank if is_repeat else old.total) * prob
                if gain > 0:
                    new = at(prefix.extended(label))
                    new.in_token += gain
                    new.offer_peaks(_Peak(label, prob, frame, old.peaks), gain)
        return longer

    def _prune(self, beam: _Beam) -> _Beam:
        """Keep the likeliest prefixes, scaled to sum to 1: long recordings do not underflow."""
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
            suppress([Event(score, *span) for span, score in hits.items()], refractory_frames)
            for hits in found
        ]


def _raised(peaks: _Peak | None, prob: float, frame: int) -> _Peak | None:
    """Move the last token's peak to this frame if it is higher."""
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
    # torch's exp may end a last bit above 1
    return min(float(torch.tensor(probs, dtype=torch.float64).log().mean().exp()), 1.0)
