"""Recordings for calibration and for the comparison of an exported model with its checkpoint."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch

from wekws.dataset.audio import AudioError, read_audio
from wekws.dataset.features import expand_context, fbank
from wekws.dataset.manifest import Utterance, read_data_list
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.front_end import FrontEnd

logger = logging.getLogger(__name__)

MAX_RECORDING_S = 30.0


def read_recordings(
    data_list: str | os.PathLike[str], keywords: Sequence[str], front_end: FrontEnd, number: int
) -> list[np.ndarray]:
    """Return samples (N,) of utterances of a list, half of them with a keyword if possible.

    They are taken at equal distances from the whole list; of long ones the first 30 s.
    number: utterances, at most.
    Raises: DataError if none is readable and as long as a window.
    """
    recordings = []
    for utterance in _choose(read_data_list(data_list), keywords, number):
        try:
            samples = read_audio(utterance.wav, front_end.sample_rate_hz)
        except AudioError as error:
            logger.warning("%s: left out: %s", utterance.key, error)
            continue
        samples = samples[: round(MAX_RECORDING_S * front_end.sample_rate_hz)]
        if front_end.num_frames(len(samples)) > 0:
            recordings.append(samples)
    if not recordings:
        raise DataError(f"{data_list}: no readable utterance; expected recordings of dev")
    return recordings


def _choose(
    utterances: Sequence[Utterance], keywords: Sequence[str], number: int
) -> list[Utterance]:
    """Return utterances with and without a keyword in turn, each at equal distances."""
    # A file of hours would take minutes and gigabytes to decode for its first seconds.
    usable = [u for u in utterances if u.duration <= 10 * MAX_RECORDING_S] or list(utterances[:1])
    texts = [u.txt if isinstance(u.txt, str) else " ".join(u.tok or ()) for u in usable]
    holds = [any(contains_keyword(text, word) for word in keywords) for text in texts]
    positives = [u for u, is_positive in zip(usable, holds, strict=True) if is_positive]
    negatives = [u for u, is_positive in zip(usable, holds, strict=True) if not is_positive]
    num_positives = min(len(positives), max(-(-number // 2), number - len(negatives)))
    return _spread(positives, num_positives) + _spread(negatives, number - num_positives)


def _spread(items: list[Utterance], number: int) -> list[Utterance]:
    if number >= len(items):
        return items
    return [items[i * len(items) // number] for i in range(number)]


def standard_signal(front_end: FrontEnd) -> np.ndarray:
    """Return 6 s of rising tones, noise and silence, (N,), the same ones each time."""
    rate = front_end.sample_rate_hz
    times = np.arange(6 * rate) / rate
    tones = 0.3 * np.sin(2 * np.pi * (100 + 300 * times) * times)
    # Noise without a random generator, whose numbers may change between versions of numpy.
    noise = 0.05 * np.modf(np.sin(np.arange(len(times)) * 12.9898) * 43758.5453)[0]
    envelope = np.sin(np.pi * times) ** 2 * (times < 5.5)
    return ((tones + noise) * envelope).astype(np.float32)


def input_frames(samples: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Return the input frames of a network, (T, D) float32, as training computes them."""
    feats = fbank(samples, front_end)[None]
    frames, _ = expand_context(feats, torch.tensor([feats.shape[1]]), front_end)
    return frames[0].numpy()
