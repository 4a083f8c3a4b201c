"""The way of one recording through a system: features, posteriors, confidence at every frame.

Axes: T fbank frames, F mel bins, M model frames, V vocabulary, K keywords.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from wekws.dataset.features import expand_context, fbank
from wekws.decode.keyword import KeywordScorer
from wekws.errors import ConfigError
from wekws.model.model import KwsModel
from wekws.score.scoring import make_decoder
from wekws.score.system import System


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
        Raises: ConfigError for a keyword with a token that the vocabulary lacks, or an exported
        file.
        """
        decoder = make_decoder("keyword", system, durations_s)
        assert isinstance(decoder, KeywordScorer)
        if not isinstance(system.model, KwsModel):
            raise ConfigError("an exported file has no traces; give the results of a checkpoint")
        self.system, self._model, self._decoder = system, system.model, decoder

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> Trace:
        """Return the trace of samples (N,) in [-1, 1] at the front end's rate.

        Raises: DataError if they do not fill one window.
        """
        front_end = self.system.dataset_config.front_end
        feats = fbank(samples, front_end)
        inputs, lengths = expand_context(feats[None], torch.tensor([len(feats)]), front_end)
        log_probs = self._model(inputs, lengths).float().log_softmax(-1)
        confidence, _ = self._decoder(log_probs, lengths)
        return Trace(
            fbank=feats.numpy(),
            posteriors=log_probs[0].exp().numpy(),
            confidence=confidence[0].numpy(),
        )
