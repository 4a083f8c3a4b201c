"""From a checkpoint and a data list to the events of every utterance and keyword.

Axes: B utterances, T frames, F mel bins, V vocabulary.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.dataset.features import expand_context
from wekws.dataset.label_set import LabelSet
from wekws.dataset.loader import Batch, DatasetConfig, SpeechDataset, open_dataset
from wekws.dataset.order import longest_first
from wekws.decode.events import Event
from wekws.decode.keyword import KeywordScorer
from wekws.decode.prefix_beam import PrefixBeamDecoder
from wekws.errors import ConfigError, DataError
from wekws.model.checkpoint import config_beside, load_model
from wekws.model.cost import num_parameters
from wekws.model.model import KwsModel
from wekws.score.scores import ScoredUtterance

log = logging.getLogger(__name__)

DECODERS = {"keyword": KeywordScorer, "prefix_beam": PrefixBeamDecoder}
MAX_BATCH_FRAMES = 100_000  # 10 ms frames with padding: under 1 GiB at work in a 4-layer FSMN


class Decoder(Protocol):
    """What every decoder offers: events from posteriors."""

    def events(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, refractory_frames: int
    ) -> list[list[list[Event]]]:
        """Return the events of each recording (B, T, V) and keyword."""
        ...


@dataclass(frozen=True, kw_only=True)
class System:
    """A model with its front end and the labels of its outputs."""

    model: KwsModel
    dataset_config: DatasetConfig
    label_set: LabelSet

    @property
    def hop_s(self) -> float:
        """Seconds between two frames of posteriors."""
        return self.dataset_config.front_end.hop_s

    @property
    def num_params(self) -> int:
        """Trainable parameters."""
        return num_parameters(self.model)


def load_system(
    checkpoint: Path,
    *,
    config: Path | None = None,
    dict_path: Path | None = None,
    lexicon: Path | None = None,
    keywords_file: Path | None = None,
) -> System:
    """Load a checkpoint; what is not given lies beside it.

    Raises: ConfigError or DataError naming the file that is missing or does not fit.
    """
    folder = checkpoint.parent
    config = config or config_beside(checkpoint)
    beside_lexicon = folder / "lexicon.txt"
    system = System(
        model=load_model(checkpoint, config),
        dataset_config=load_dataset_config(config),
        label_set=LabelSet.load(
            dict_path or _beside(folder / "dict.txt", "--dict"),
            lexicon=lexicon or (beside_lexicon if beside_lexicon.exists() else None),
            keywords_file=keywords_file or _beside(folder / "keywords.txt", "--keywords_file"),
        ),
    )
    system.label_set.vocabulary.check_output_dim(system.model.config.output_dim)
    return system


def _beside(path: Path, flag: str) -> Path:
    if not path.exists():
        raise ConfigError(f"{path}: no such file; name it with {flag}")
    return path


def make_decoder(name: str, system: System) -> Decoder:
    """Return the decoder of this name for the system's keywords.

    Raises: ConfigError if a keyword has a token that the model does not know.
    """
    labels = system.label_set
    return DECODERS[name]([labels.scorable_ids(keyword) for keyword in labels.keywords])


def open_unfiltered(
    system: System, data_list: str | os.PathLike[str], cache_dir: Path, num_workers: int
) -> SpeechDataset:
    """Open a data list as it is: nothing filtered, nothing augmented."""
    return open_dataset(
        data_list,
        system.dataset_config,
        system.label_set,
        cache_dir=cache_dir,
        is_training=False,
        num_workers=num_workers,
        use_filters=False,
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
    model = system.model.to(device)
    keywords = system.label_set.keywords
    refractory_frames = round(refractory_s / system.hop_s)
    for indices in longest_first(dataset.num_frames, batch_size, MAX_BATCH_FRAMES):
        batch = dataset.batch(indices).to(device)
        log_probs, lengths = posteriors(model, batch, system.dataset_config)
        _check_finite(log_probs, lengths, batch.keys)
        events = decoder.events(log_probs, lengths, refractory_frames)
        for key, per_keyword in zip(batch.keys, events, strict=True):
            yield ScoredUtterance(key, dict(zip(keywords, per_keyword, strict=True)))


def posteriors(
    model: KwsModel, batch: Batch, config: DatasetConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log posteriors (B, T, V) and their lengths (B,)."""
    feats, lengths = expand_context(batch.feats, batch.feat_lengths, config.front_end)
    return model(feats, lengths).float().log_softmax(-1), lengths


def _check_finite(log_probs: torch.Tensor, lengths: torch.Tensor, keys: Sequence[str]) -> None:
    frames = torch.arange(log_probs.shape[1], device=log_probs.device)
    is_bad = log_probs.isnan().any(-1) & (frames < lengths[:, None])
    if is_bad.any():
        key = keys[int(is_bad.any(1).nonzero()[0])]
        raise DataError(f"utterance {key}: the model's outputs are not finite; a damaged model?")
