"""Scores of long recordings, which are read, and go through the model, piece by piece.

Features are those of shorter ones to the last bit. The network carries its state from piece to
piece; sums in another order can change the last digit of a confidence.

Axes: T frames, V vocabulary.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from tqdm import tqdm

from wekws.dataset.audio import AudioError, read_pieces
from wekws.dataset.features import expanded_pieces, fbank_pieces
from wekws.dataset.manifest import Utterance
from wekws.decode.duration import duration_frames
from wekws.decode.event_rule import Event
from wekws.decode.events import StreamEvents
from wekws.decode.prefix_beam import PrefixBeamDecoder
from wekws.decode.stream_search import StreamSearch
from wekws.errors import DataError
from wekws.front_end import FrontEnd
from wekws.score.scores import ScoredUtterance
from wekws.stream.network import StreamingNetwork

logger = logging.getLogger(__name__)


class LongRecordingScorer:
    """Scores recordings of any length in constant memory, but for their peaks.

    network: of a checkpoint or of an exported file. keywords: token ids by keyword.
    durations_s: longest duration by keyword; None: no limit.
    prefix_beam: decoder in place of the exact search; it needs the posteriors of the whole
    recording, a few megabytes per hour.
    """

    def __init__(
        self,
        network: StreamingNetwork,
        keywords: Mapping[str, list[int]],
        *,
        durations_s: Mapping[str, float] | None,
        refractory_s: float,
        prefix_beam: PrefixBeamDecoder | None = None,
    ) -> None:
        """Prepare the keyword search."""
        self._network, self._keywords, self._prefix_beam = network, keywords, prefix_beam
        hop_s = network.front_end.hop_s
        self._refractory_frames = round(refractory_s / hop_s)
        limits = None
        if durations_s is not None:
            limits = [duration_frames(durations_s[keyword], hop_s) for keyword in keywords]
        self._search = StreamSearch(list(keywords.values()), max_frames=limits)

    def __call__(self, utterance: Utterance) -> dict[str, list[Event]]:
        """Return the events of a recording by keyword.

        Raises: AudioError if it cannot be used; DataError if it is too short, or features or
        outputs are not finite.
        """
        pieces = self._log_probs(utterance)
        if self._prefix_beam is not None:
            whole = torch.from_numpy(np.concatenate([*pieces]))[None]
            lengths = torch.tensor([whole.shape[1]])
            (found,) = self._prefix_beam.events(whole, lengths, self._refractory_frames)
        else:
            self._search.reset()
            events = StreamEvents(len(self._keywords), self._refractory_frames)
            for log_probs in pieces:
                events.accept(*self._search(log_probs))
            found = events.flush()
        return dict(zip(self._keywords, found, strict=True))

    def _log_probs(self, utterance: Utterance) -> Iterator[np.ndarray]:
        """Yield the log-probabilities (T, V) of a recording."""
        state = self._network.initial_state()
        for frames in model_frames(utterance.wav, self._network.front_end):
            log_probs, state = self._network.step(frames, state)
            yield _finite(log_probs, utterance.key)
        yield _finite(self._network.flush(state), utterance.key)


def score_long(
    scorer: LongRecordingScorer, utterances: Sequence[Utterance], most_unusable: float
) -> Iterator[ScoredUtterance]:
    """Yield the recordings with their events; those that cannot be used are named in the log.

    most_unusable: as many may be.
    Raises: DataError if there are more.
    """
    unusable = 0
    for utterance in tqdm(utterances, desc="long recordings", unit="file", disable=None):
        try:
            yield ScoredUtterance(utterance.key, scorer(utterance))
        except AudioError as error:
            unusable += 1
            if unusable > most_unusable:
                raise
            logger.warning("utterance %s is left out: %s", utterance.key, error)


def model_frames(path: str | os.PathLike[str], front_end: FrontEnd) -> Iterator[np.ndarray]:
    """Yield the input frames (T, D) of a recording piece by piece.

    Raises: AudioError if it cannot be used; DataError if features are not finite.
    """
    feats = fbank_pieces(read_pieces(path, front_end.sample_rate_hz), front_end)
    for frames in expanded_pieces(feats, front_end):
        if not torch.isfinite(frames).all():
            raise DataError(f"{path}: features are not finite; expected samples between -1 and 1")
        yield frames.numpy()


def _finite(log_probs: np.ndarray, key: str) -> np.ndarray:
    if np.isnan(log_probs).any():
        raise DataError(
            f"utterance {key}: the model's outputs are not finite; is the checkpoint damaged?"
        )
    return log_probs
