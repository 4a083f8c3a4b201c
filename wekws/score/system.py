"""A system that can be scored: a model, checkpoint or exported, with its front end and labels.

Axes: B utterances, T frames, D features, V vocabulary.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from wekws.dataset.dataset_conf import DatasetConfig, ResampleConfig, load_dataset_config
from wekws.dataset.feature_view import ContextExpansionConfig, FbankConfig
from wekws.dataset.label_set import LabelSet, require_trained_vocabulary
from wekws.dataset.vocabulary import Tokenizer, Vocabulary, lexicon_beside, read_keywords
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd
from wekws.model.checkpoint import load_scored_model
from wekws.model.model import KwsModel, num_parameters
from wekws.model.model_conf import config_beside
from wekws.stream.onnx_network import ONNX_SUFFIX, OnnxNetwork

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class System:
    """A model with its front end and the labels of its outputs."""

    model: KwsModel | OnnxNetwork
    """The network with its CMVN: a checkpoint's, or an exported one."""
    dataset_config: DatasetConfig
    """Section ``dataset_conf`` of its configuration."""
    label_set: LabelSet
    """Vocabulary, tokenizer and keywords."""

    @property
    def hop_s(self) -> float:
        """Seconds between two frames of posteriors."""
        return self.dataset_config.front_end.hop_s

    @property
    def num_params(self) -> int:
        """Trainable parameters."""
        if isinstance(self.model, OnnxNetwork):
            return self.model.description.num_parameters
        return num_parameters(self.model)

    def to(self, device: torch.device | str) -> None:
        """Move the network to a device; an exported one stays on the CPU."""
        if isinstance(self.model, KwsModel):
            self.model.to(device)

    def log_probs(self, feats: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, T, V) of whole recordings, on the device of ``feats``.

        feats: (B, T, D). lengths: (B,) valid frames. Padding of the result has no meaning.
        """
        if isinstance(self.model, OnnxNetwork):
            rows = self.model.log_probs(feats.cpu().numpy(), lengths.cpu().numpy())
            return torch.from_numpy(rows).to(feats.device)
        return self.model(feats, lengths).float().log_softmax(-1)


def load_system(
    checkpoint: StrPath,
    *,
    config: StrPath | None = None,
    dict_path: StrPath | None = None,
    lexicon: StrPath | None = None,
    keywords_file: StrPath | None = None,
) -> System:
    """Load a checkpoint or an exported model.

    Files that are not given lie beside a checkpoint; an exported model contains them, but for the
    lexicon, which lies beside it.
    Raises: ConfigError or DataError naming the file that is missing or does not fit.
    """
    checkpoint = Path(checkpoint)
    folder = checkpoint.parent
    if checkpoint.suffix == ONNX_SUFFIX:
        return _load_exported(checkpoint, dict_path, lexicon, keywords_file)
    config = config or config_beside(checkpoint)
    model = load_scored_model(checkpoint, config)
    system = System(
        model=model,
        dataset_config=load_dataset_config(config),
        label_set=LabelSet.load(
            dict_path or _beside(folder / "dict.txt", "--dict"),
            lexicon=lexicon or lexicon_beside(checkpoint),
            keywords_file=keywords_file or _beside(folder / "keywords.txt", "--keywords_file"),
        ),
    )
    system.label_set.vocabulary.check_output_dim(model.config.output_dim)
    if dict_path is None:
        require_trained_vocabulary(folder, system.label_set)
    return system


def _load_exported(
    path: Path, dict_path: StrPath | None, lexicon: StrPath | None, keywords_file: StrPath | None
) -> System:
    network = OnnxNetwork(path)
    description = network.description
    labels = LabelSet(
        vocabulary=Vocabulary(description.tokens),
        tokenizer=Tokenizer(lexicon or lexicon_beside(path)),
        keywords=tuple(
            read_keywords(keywords_file)
            if keywords_file
            else (keyword.text for keyword in description.keywords)
        ),
    )
    if dict_path is not None and Vocabulary.load(dict_path) != labels.vocabulary:
        raise ConfigError(f"{dict_path}: is not the vocabulary of {path}, which contains its own")
    for keyword in description.keywords:
        tokens = labels.tokenizer.tokenise(keyword.text)
        if keyword.text in labels.keywords and tuple(tokens) != keyword.tokens:
            raise ConfigError(
                f"{path}: keyword {keyword.text} was exported as {' '.join(keyword.tokens)}; give "
                "the lexicon of the model with --lexicon"
            )
    config = _dataset_config(network.front_end)
    return System(model=network, dataset_config=config, label_set=labels)


def _dataset_config(front_end: FrontEnd) -> DatasetConfig:
    """Return the configuration of features that a front end describes."""
    return DatasetConfig(
        resample_conf=ResampleConfig(resample_rate=front_end.sample_rate_hz),
        fbank_conf=FbankConfig(
            num_mel_bins=front_end.num_mel_bins,
            frame_shift=front_end.frame_shift_ms,
            frame_length=front_end.frame_length_ms,
        ),
        context_expansion_conf=ContextExpansionConfig(
            left=front_end.left_context, right=front_end.right_context
        ),
        frame_skip=front_end.frame_skip,
    )


def _beside(path: Path, flag: str) -> Path:
    if not path.exists():
        raise ConfigError(f"{path}: no such file; give another one with {flag}")
    return path
