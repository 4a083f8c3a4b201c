"""The way of one recording through a system: features, posteriors, confidence at every frame.

Axes: T fbank frames, F mel bins, M model frames, V vocabulary, K keywords.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from wekws.dataset.features import expand_context, fbank
from wekws.decode.keyword import KeywordScorer
from wekws.score.scoring import System, make_decoder


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Outputs for one recording."""

    fbank: np.ndarray
    """(T, F) log-mel energies."""
    posteriors: np.ndarray
    """(M, V) probabilities of the tokens."""
    confidence: np.ndarray
    """(K, M) confidence of a keyword that ends at the frame."""


class Tracer:
    """Computes traces with one system; its keywords are those of the label set."""

    def __init__(self, system: System, durations_s: Mapping[str, float] | None = None) -> None:
        """Keep the system and its decoder.

        durations_s: longest duration by keyword; None: no limit.
        Raises: ConfigError for a keyword with a token that the vocabulary lacks.
        """
        decoder = make_decoder("keyword", system, durations_s)
        assert isinstance(decoder, KeywordScorer)
        self.system, self._decoder = system, decoder

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> Trace:
        """Return the trace of samples (N,) in [-1, 1] at the front end's rate.

        Raises: DataError if they do not fill one window.
        """
        front_end = self.system.dataset_config.front_end
        feats = fbank(samples, front_end)
        inputs, lengths = expand_context(feats[None], torch.tensor([len(feats)]), front_end)
        log_probs = self.system.model(inputs, lengths).float().log_softmax(-1)
        confidence, _ = self._decoder(log_probs, lengths)
        return Trace(
            fbank=feats.numpy(),
            posteriors=log_probs[0].exp().numpy(),
            confidence=confidence[0].numpy(),
        )
