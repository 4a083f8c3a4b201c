"""Figures of a pass over the cv set, from sums over batches and processes.

Axes: B batch, T frames, V vocabulary, L label length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.train.distributed import Process, add_over_peers
from wekws.train.greedy_ctc import (
    NUM_BUCKETS,
    edit_distances,
    frame_counts,
    greedy_tokens,
    output_histogram,
)
from wekws.train.step_inputs import StepInputs


@dataclass(frozen=True, kw_only=True)
class _Totals:
    """Sums over the cv set; ``values`` holds them as one vector, to be added over processes."""

    utterances: float
    ctc: float
    errors: float
    tokens: float
    keyword_errors: float
    keyword_tokens: float
    frames: float
    blanks: float
    fillers: float


_NAMES = tuple(_Totals.__dataclass_fields__)


class CvSums:
    """Adds up what is measured in a cv pass, batch by batch."""

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        """Start at zero. terms: names of the loss terms beside CTC."""
        self._terms = tuple(terms)
        self._totals = torch.zeros(len(_NAMES), dtype=torch.float64, device=device)
        self._term_sums = torch.zeros(len(self._terms), dtype=torch.float64, device=device)
        self._histogram = torch.zeros(NUM_BUCKETS, dtype=torch.float64, device=device)

    def add(
        self,
        logits: Tensor,
        inputs: StepInputs,
        is_keyword: Tensor,
        terms: Mapping[str, Tensor],
    ) -> None:
        """Add a batch.

        logits: (B, T, V). is_keyword: (B,) bool, utterances that hold a keyword.
        terms: ``ctc`` and the loss terms, summed over the batch.
        """
        tokens = inputs.label_lengths.to(logits.device)
        hypotheses, hypothesis_lengths = greedy_tokens(logits, inputs.lengths)
        errors = edit_distances(hypotheses, hypothesis_lengths, inputs.labels, tokens)
        frames, blanks, fillers = frame_counts(logits, inputs.lengths)
        sums = {
            "utterances": terms["ctc"].new_zeros(()) + len(tokens),
            "ctc": terms["ctc"],
            "errors": errors.sum(),
            "tokens": tokens.sum(),
            "keyword_errors": (errors * is_keyword).sum(),
            "keyword_tokens": (tokens * is_keyword).sum(),
            "frames": frames,
            "blanks": blanks,
            "fillers": fillers,
        }
        self._totals += torch.stack([sums[name].double() for name in _NAMES])
        if self._terms:
            self._term_sums += torch.stack([terms[name].double() for name in self._terms])
        self._histogram += output_histogram(hypotheses).double()

    def figures(self, process: Process) -> dict[str, float]:
        """Return the figures of the whole cv set.

        cv_loss: CTC, nats per utterance. cv_kd and so on: the other terms, alike.
        cv_accuracy: 1 - token errors / tokens over all utterances; cv_keyword_accuracy: over those
        that hold a keyword, since the general accuracy of a tiny model means little.
        cv_blank_share, cv_filler_share: share of the frames whose best token is blank or filler.
        cv_same_output_share: share of the utterances with the most frequent greedy output.
        """
        values = add_over_peers(process, self._totals).tolist()
        totals = _Totals(**dict(zip(_NAMES, values, strict=True)))
        term_sums = add_over_peers(process, self._term_sums).tolist()
        most = float(add_over_peers(process, self._histogram).max())
        num = totals.utterances
        figures = {"cv_loss": totals.ctc / num}
        figures |= {f"cv_{n}": value / num for n, value in zip(self._terms, term_sums, strict=True)}
        figures["cv_accuracy"] = 1.0 - totals.errors / max(totals.tokens, 1.0)
        if totals.keyword_tokens:
            figures["cv_keyword_accuracy"] = 1.0 - totals.keyword_errors / totals.keyword_tokens
        figures["cv_blank_share"] = totals.blanks / totals.frames
        figures["cv_filler_share"] = totals.fillers / totals.frames
        figures["cv_same_output_share"] = most / num
        return figures
