"""Starting weights: random, from a checkpoint of the same sizes, or from a larger model."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from wekws.dataset.speech_dataset import SpeechDataset
from wekws.dataset.vocabulary import Vocabulary
from wekws.distill.output_surgery import select_outputs
from wekws.distill.transplant import TensorReport, TransplantConfig, transplant
from wekws.distill.transplant.sample import draw_sample
from wekws.errors import ConfigError
from wekws.model.checkpoint import load_model, load_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig, config_beside
from wekws.train.compatibility import (
    Cmvn,
    require_same_cmvn,
    require_same_front_end,
    require_same_vocabulary,
)
from wekws.train.train_config import TrainConfig

logger = logging.getLogger(__name__)


def random_model(config: ModelConfig, cmvn: Cmvn, seed: int) -> KwsModel:
    """Return a model with random weights, a function of ``seed``."""
    torch.manual_seed(seed)
    return KwsModel(config, cmvn)


def model_from_checkpoint(
    path: Path, config: ModelConfig, vocabulary: Vocabulary, cmvn: Cmvn | None, cmvn_name: str
) -> KwsModel:
    """Return a model with a checkpoint's weights.

    cmvn: that of the run, which the checkpoint's must equal; None: the checkpoint's own.
    cmvn_name: where it comes from, for messages.
    Raises: ConfigError if there is no CMVN, or the checkpoint's dictionary or CMVN are not the
    run's.
    """
    weights = load_weights(path)
    require_same_vocabulary(path, vocabulary)
    keys = ("global_cmvn.mean", "global_cmvn.istd")
    stored = (weights[keys[0]], weights[keys[1]]) if keys[0] in weights else None
    if stored is None and cmvn is None:
        raise ConfigError(f"{path}: carries no CMVN; give its --cmvn_file")
    if stored is not None and cmvn is not None:
        require_same_cmvn(stored, cmvn, str(path), cmvn_name)
    model = KwsModel(config, stored if cmvn is None else cmvn)
    own = model.state_dict()
    model.load_weights({key: own[key] for key in keys} | weights, source=str(path))
    logger.info("weights of %s", path)
    return model


def fill_from_teacher(
    student: KwsModel,
    config: TrainConfig,
    vocabulary: Vocabulary,
    teacher: KwsModel,
    train_set: SpeechDataset,
    seed: int,
) -> list[TensorReport]:
    """Transplant by the rules of section ``transplant``; return a report on every tensor."""
    rules = config.transplant
    source = load_source(config, vocabulary, teacher)
    sample = None
    if rules.needs_data:
        sample = draw_sample(source, train_set, num_batches=rules.num_batches, seed=seed)
    return transplant(student, source, rules, sample=sample, teacher=teacher)


def log_reports(reports: Sequence[TensorReport]) -> None:
    """Log one line per tensor: its source, both shapes, and how it was made."""
    for report in reports:
        logger.info("%-38s from %-38s %s to %s: %s", *report)


def load_source(config: TrainConfig, vocabulary: Vocabulary, teacher: KwsModel) -> KwsModel:
    """Return the model to take weights from, with the run's tokens as outputs: base or teacher.

    Raises: ConfigError or DataError if its features differ or it lacks a token.
    """
    rules: TransplantConfig = config.transplant
    if not rules.source:
        return teacher
    path = Path(rules.source)
    require_same_front_end(config_beside(path), config)
    model = load_model(path)
    dictionary = Vocabulary.load(rules.source_dict or path.parent / "dict.txt")
    state = select_outputs(model.state_dict(), dictionary, vocabulary)
    if model.cmvn is None or teacher.cmvn is None:
        raise ConfigError(f"{path}: normalises no features; the teacher does")
    require_same_cmvn(model.cmvn, teacher.cmvn, str(path), "the teacher")
    source = KwsModel(model.config.with_output_dim(vocabulary.size), teacher.cmvn)
    source.load_weights(state, source=str(path))
    return source.eval()
