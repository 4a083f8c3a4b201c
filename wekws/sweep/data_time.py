"""Time of features and of scoring on this machine: real work on a few recordings, or noise."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.extract import Extractor
from wekws.dataset.feature_view import FeatureView
from wekws.dataset.manifest import Utterance
from wekws.decode.duration import BASE_S, duration_frames
from wekws.decode.keyword import KeywordScorer
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig

# Enough that the random choices of augmentation are near their average, within a second.
_NUM_UTTERANCES = 16
_UTTERANCE_S = 2.0
_KEYWORD_TOKENS = 6


def feature_seconds(
    config: DatasetConfig, files: Mapping[str, float], *, is_training: bool
) -> float:
    """Return the CPU time of a second of audio in all its cached copies.

    files: audio to measure it on, with durations; none: noise. Decoding takes much of the time.
    is_training: with dither and augmentation. 0 if features are not cached.
    """
    views = config.cached_views(is_training)
    return len(views) * _extraction_seconds(views[0], config, files) if views else 0.0


def epoch_feature_seconds(
    config: DatasetConfig, files: Mapping[str, float], *, is_training: bool
) -> float:
    """Return the CPU time of a second of audio whose features every epoch computes anew.

    Arguments as in ``feature_seconds``. 0 if they come from a cache.
    """
    if config.cached_views(is_training) and not (is_training and config.is_online):
        return 0.0
    return _extraction_seconds(config.online_view(is_training, seed=0), config, files)


def _extraction_seconds(
    view: FeatureView, config: DatasetConfig, files: Mapping[str, float]
) -> float:
    # One thread, as in a process that extracts features.
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        utterances = _up_to(files, config.longest_trained_s)
        utterances = utterances or _noise(Path(folder), config.front_end.sample_rate_hz)
        extractor = Extractor(utterances, view)
        extractor.extract_many([0], copy=0)  # tables that are made once
        began = time.process_time()
        extractor.extract_many(range(len(utterances)), copy=0)
        taken = time.process_time() - began
    return taken / sum(utterance.duration for utterance in utterances)


def scoring_seconds(
    sizes: ModelConfig, config: DatasetConfig, num_keywords: int, device: torch.device
) -> float:
    """Return the time of a second of audio in network and keyword search, without features.

    sizes: of the network. On the CPU it is the CPU time of one thread, so that other work on the
    machine has little effect; more threads gain little in the search.
    """
    front_end = config.front_end
    model = KwsModel(sizes, (torch.zeros(sizes.input_dim), torch.ones(sizes.input_dim)))
    model = model.to(device).eval()
    num_frames = duration_frames(_UTTERANCE_S, front_end.hop_s)
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(_NUM_UTTERANCES, num_frames, sizes.input_dim, generator=generator)
    feats, lengths = feats.to(device), torch.full((_NUM_UTTERANCES,), num_frames, device=device)
    tokens = [1 + index % (sizes.output_dim - 1) for index in range(_KEYWORD_TOKENS)]
    longest = duration_frames(BASE_S, front_end.hop_s)
    scorer = KeywordScorer([tokens] * num_keywords, max_frames=[longest] * num_keywords)
    times = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    with torch.inference_mode(), _one_thread():
        for _ in range(3):
            began = clock()
            log_probs = model(feats, lengths).float().log_softmax(-1)
            scorer.events(log_probs, lengths, 1)
            times.append(clock() - began)
    return min(times[1:]) / (_NUM_UTTERANCES * _UTTERANCE_S)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _up_to(files: Mapping[str, float], longest_s: float) -> Sequence[Utterance]:
    """Return some of the files as utterances, those that are no longer."""
    usable = [(wav, seconds) for wav, seconds in files.items() if seconds <= longest_s]
    chosen = usable[:: -(-len(usable) // _NUM_UTTERANCES) or 1]
    return [Utterance(key=wav, wav=wav, txt="", duration=seconds) for wav, seconds in chosen]


def _noise(folder: Path, sample_rate_hz: int) -> Sequence[Utterance]:
    rng = np.random.default_rng(0)
    utterances = []
    for index in range(_NUM_UTTERANCES):
        path = folder / f"{index}.wav"
        samples = 0.1 * rng.standard_normal(round(_UTTERANCE_S * sample_rate_hz))
        soundfile.write(path, samples, sample_rate_hz, subtype="PCM_16")
        utterances.append(Utterance(key=str(index), wav=str(path), txt="", duration=_UTTERANCE_S))
    return utterances
