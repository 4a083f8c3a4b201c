"""Scoring of a data list: from a checkpoint to the events of every utterance and keyword.

Axes: B utterances, T frames, V vocabulary.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch

from wekws.dataset.features import expand_context
from wekws.dataset.filters import LONG_S
from wekws.dataset.manifest import audio_status, read_data_list
from wekws.dataset.opening import open_dataset
from wekws.dataset.order import longest_first
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.decode.duration import MaxDuration, default_max_duration_s, duration_frames
from wekws.decode.event_rule import Event
from wekws.decode.keyword import KeywordScorer
from wekws.decode.path_code import MAX_LIMIT_FRAMES
from wekws.decode.prefix_beam import PrefixBeamDecoder
from wekws.errors import ConfigError, DataError
from wekws.files import write_json
from wekws.model.identity import model_identity
from wekws.model.model import KwsModel
from wekws.score.long_scoring import LongRecordingScorer, score_long
from wekws.score.scores import SCORE_INFO_NAME, ScoredUtterance, write_scores
from wekws.score.system import StrPath, System, load_system
from wekws.stream.torch_network import TorchNetwork

DecoderName = Literal["keyword", "prefix_beam"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
MAX_BATCH_FRAMES = 100_000  # 10 ms frames with padding: a 4-layer FSMN needs less than 1 GiB


class Decoder(Protocol):
    """Finds keyword events in posteriors."""

    def events(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, refractory_frames: int
    ) -> list[list[list[Event]]]:
        """Return the events of each recording (B, T, V) and keyword."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Outcome of scoring a data list."""

    num_utterances: int
    """Utterances with a score."""
    hours: float
    """Their audio."""
    seconds: float
    """Time that scoring took, without the features of recordings up to `LONG_S`."""


def score_list(
    checkpoint: StrPath,
    data_list: StrPath,
    result_dir: StrPath,
    *,
    decoder: DecoderName = "keyword",
    config: StrPath | None = None,
    dict_path: StrPath | None = None,
    lexicon: StrPath | None = None,
    keywords_file: StrPath | None = None,
    cache_dir: StrPath | None = None,
    batch_size: int = 256,
    refractory_s: float = 1.0,
    max_duration_s: MaxDuration = "auto",
    num_workers: int = 0,
    device: str | torch.device = "auto",
) -> Scored:
    """Score a data list with a checkpoint: write score.txt, events.tsv and score.json.

    result_dir: folder to write to; score.json is written last.
    decoder: ``keyword`` scores every utterance; ``prefix_beam`` is that of WeKWS's figures.
    config, dict_path, lexicon, keywords_file: None: the files beside the checkpoint.
    cache_dir: feature cache; None: ``cache`` beside the data list.
    batch_size: utterances per batch, at most.
    refractory_s: shortest time between two events of a keyword.
    max_duration_s: longest time from the first to the last frame of a keyword; 0: no limit;
    ``auto``: see `wekws.decode.duration`. The prefix beam has no limit.
    num_workers: processes that extract features; 0: this process.
    device: ``auto`` is ``cuda`` if there is one, otherwise ``cpu``.
    Raises: ConfigError or DataError naming what is missing or does not fit.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: found {batch_size}, expected >= 1")
    if refractory_s < 0:
        raise ConfigError(f"refractory_s: found {refractory_s:g}, expected >= 0")
    device = _usable_device(device)
    checkpoint, data_list, result_dir = Path(checkpoint), Path(data_list), Path(result_dir)
    system = load_system(
        checkpoint,
        config=config,
        dict_path=dict_path,
        lexicon=lexicon,
        keywords_file=keywords_file,
    )
    durations_s = None
    if decoder == "keyword":
        durations_s = keyword_durations_s(system, max_duration_s)
    elif max_duration_s not in ("auto", 0):
        raise ConfigError(f"max_duration_s: decoder {decoder} has no limit; give 0 or auto")
    keyword_decoder = make_decoder(decoder, system, durations_s)
    utterances = read_data_list(data_list)
    long = [utterance for utterance in utterances if utterance.duration > LONG_S]
    by_key: dict[str, ScoredUtterance] = {}
    began = time.monotonic()
    if long:
        # Before the others: their network may move to a GPU.
        scorer = _long_recording_scorer(system, keyword_decoder, durations_s, refractory_s)
        most_unusable = system.dataset_config.max_bad_fraction * len(utterances)
        by_key |= {scored.key: scored for scored in score_long(scorer, long, most_unusable)}
    seconds = time.monotonic() - began
    if len(long) < len(utterances):
        dataset = open_dataset(
            data_list,
            system.dataset_config,
            system.label_set,
            cache_dir=cache_dir or data_list.parent / "cache",
            is_training=False,
            num_workers=num_workers,
            use_filters=False,
            utterances=[u for u in utterances if u.duration <= LONG_S],
        )
        began = time.monotonic()
        by_key |= {
            scored.key: scored
            for scored in score_dataset(
                system,
                dataset,
                keyword_decoder,
                refractory_s=refractory_s,
                batch_size=batch_size,
                device=device,
            )
        }
        seconds += time.monotonic() - began
    scored_utterances = [utterance for utterance in utterances if utterance.key in by_key]
    hours = sum(utterance.duration for utterance in scored_utterances) / 3600
    write_scores(result_dir, (by_key[u.key] for u in scored_utterances), system.hop_s)
    info = {
        "checkpoint": str(checkpoint),
        **model_identity(checkpoint, config),
        "params": system.num_params,
        "decoder": decoder,
        "data_list": str(data_list),
        "audio": audio_status(utterances),
        "keywords": list(system.label_set.keywords),
        "utterances": len(by_key),
        "not_scored": len(utterances) - len(by_key),
        "hours": hours,
        "refractory_s": refractory_s,
        "max_duration_s": 0.0 if durations_s is None else max_duration_s,
        "keyword_durations_s": durations_s,
        "hop_s": system.hop_s,
        "vocabulary": system.label_set.fingerprint,
    }
    write_json(result_dir / SCORE_INFO_NAME, info)
    return Scored(num_utterances=len(by_key), hours=hours, seconds=seconds)


def _usable_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device}: this machine has no GPU that torch can use")
    return device


def keyword_durations_s(system: System, max_duration_s: MaxDuration) -> dict[str, float] | None:
    """Return the longest duration of each keyword in seconds; None: no limit.

    Raises: ConfigError if a keyword has more tokens than frames, or a limit is beyond the search.
    """
    if max_duration_s == 0:
        return None
    durations_s = {}
    longest_s = MAX_LIMIT_FRAMES * system.hop_s
    for keyword in system.label_set.keywords:
        tokens = system.label_set.tokenizer.tokenise(keyword)
        is_auto = max_duration_s == "auto"
        seconds = default_max_duration_s(tokens) if is_auto else float(max_duration_s)
        shortest_s = len(tokens) * system.hop_s
        if not shortest_s <= seconds <= longest_s:
            raise ConfigError(
                f"max_duration_s: keyword {keyword}: found {seconds:g} s; expected "
                f"{shortest_s:.3g} s (a frame per token) to {longest_s:.3g} s, or 0 for no limit"
            )
        durations_s[keyword] = round(seconds, 6)
    return durations_s


def make_decoder(
    name: DecoderName, system: System, durations_s: Mapping[str, float] | None = None
) -> Decoder:
    """Return the decoder of this name for the system's keywords.

    durations_s: longest duration by keyword, for the keyword decoder; None: no limit.
    Raises: ConfigError for an unknown name, or a keyword with a token that the vocabulary lacks.
    """
    if name not in DECODERS:
        raise ConfigError(f"decoder: found {name!r}; expected one of {', '.join(DECODERS)}")
    labels = system.label_set
    ids = [labels.scorable_ids(keyword) for keyword in labels.keywords]
    if name == "prefix_beam":
        return PrefixBeamDecoder(ids)
    if durations_s is None:
        return KeywordScorer(ids)
    max_frames = [
        duration_frames(durations_s[keyword], system.hop_s) for keyword in labels.keywords
    ]
    return KeywordScorer(ids, max_frames=max_frames)


def _long_recording_scorer(
    system: System,
    decoder: Decoder,
    durations_s: Mapping[str, float] | None,
    refractory_s: float,
) -> LongRecordingScorer:
    labels, network = system.label_set, system.model
    return LongRecordingScorer(
        TorchNetwork(network, system.dataset_config.front_end)
        if isinstance(network, KwsModel)
        else network,
        {keyword: labels.scorable_ids(keyword) for keyword in labels.keywords},
        durations_s=durations_s,
        refractory_s=refractory_s,
        prefix_beam=decoder if isinstance(decoder, PrefixBeamDecoder) else None,
    )


@torch.inference_mode()
def score_dataset(
    system: System,
    dataset: SpeechDataset,
    decoder: Decoder,
    *,
    refractory_s: float,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Iterator[ScoredUtterance]:
    """Yield every utterance with its events, longest first.

    Raises: DataError naming an utterance whose posteriors are not finite.
    """
    system.to(device)
    front_end, keywords = system.dataset_config.front_end, system.label_set.keywords
    refractory_frames = round(refractory_s / system.hop_s)
    for indices in longest_first(dataset.num_frames, batch_size, MAX_BATCH_FRAMES):
        batch = dataset.batch(indices.tolist()).to(device)
        feats, lengths = expand_context(batch.feats, batch.feat_lengths, front_end)
        log_probs = system.log_probs(feats, lengths)
        _check_finite(log_probs, lengths, batch.keys)
        events = decoder.events(log_probs, lengths, refractory_frames)
        for key, per_keyword in zip(batch.keys, events, strict=True):
            yield ScoredUtterance(key, dict(zip(keywords, per_keyword, strict=True)))


def _check_finite(log_probs: torch.Tensor, lengths: torch.Tensor, keys: Sequence[str]) -> None:
    frames = torch.arange(log_probs.shape[1], device=log_probs.device)
    is_bad = log_probs.isnan().any(-1) & (frames < lengths[:, None])
    if is_bad.any():
        key = keys[int(is_bad.any(1).nonzero()[0])]
        raise DataError(
            f"utterance {key}: the model's outputs are not finite; is the checkpoint damaged?"
        )
