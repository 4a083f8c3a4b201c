"""How a student starts: from its seed, from weights of its own sizes, or from a larger model."""

import argparse
import dataclasses
import logging
from pathlib import Path

import torch

from wekws.dataset.label_set import LabelSet
from wekws.dataset.loader import SpeechDataset
from wekws.dataset.vocabulary import Vocabulary
from wekws.distill.output_surgery import select_outputs
from wekws.distill.transplant import TransplantConfig, transplant
from wekws.distill.transplant.sample import draw_sample
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd
from wekws.model.checkpoint import config_beside, load_model
from wekws.model.model import KwsModel
from wekws.train import session
from wekws.train.epoch_checkpoint import STATE_NAME
from wekws.train.train_config import ExperimentConfig, load_experiment

logger = logging.getLogger(__name__)


def random_student(seed: int, experiment: ExperimentConfig, teacher: KwsModel) -> KwsModel:
    """Return a student with random weights that normalises features as the teacher does."""
    torch.manual_seed(seed)
    return KwsModel(experiment.model, teacher.cmvn)


def make_student(
    args: argparse.Namespace,
    experiment: ExperimentConfig,
    outputs: LabelSet,
    teacher: KwsModel,
    train_set: SpeechDataset,
) -> KwsModel:
    """Return the student at its start, on the CPU, normalising features as the teacher does."""
    if args.checkpoint:
        return session.make_model(args, experiment.model, outputs.vocabulary)
    student = random_student(args.seed, experiment, teacher)
    if args.resume and (args.model_dir / STATE_NAME).exists():
        return student  # about to be filled from the last epoch
    if args.init_from_teacher:
        fill_from_teacher(student, experiment, outputs.vocabulary, teacher, train_set, args.seed)
    elif experiment.transplant != TransplantConfig():
        logger.warning("transplant: no effect without --init_from_teacher")
    return student


def fill_from_teacher(
    student: KwsModel,
    experiment: ExperimentConfig,
    vocabulary: Vocabulary,
    teacher: KwsModel,
    train_set: SpeechDataset,
    seed: int,
) -> None:
    """Transplant by the configuration's rules, one log row a tensor."""
    config = experiment.transplant
    source = load_source(config, experiment, vocabulary, teacher)
    sample = None
    if config.needs_data:
        sample = draw_sample(source, train_set, num_batches=config.num_batches, seed=seed)
    for row in transplant(student, source, config, sample=sample, teacher=teacher):
        logger.info("%-38s from %-38s %s to %s: %s", *row)


def load_source(
    config: TransplantConfig,
    experiment: ExperimentConfig,
    vocabulary: Vocabulary,
    teacher: KwsModel,
) -> KwsModel:
    """Return the model to take from, its outputs the run's tokens: a base, or the teacher.

    Raises: ConfigError or DataError if it hears other features or lacks a token.
    """
    if not config.source:
        return teacher
    path = Path(config.source)
    other = config_beside(path)
    require_same_front_end(other, experiment)
    model = load_model(path)
    dictionary = Vocabulary.load(config.source_dict or path.parent / "dict.txt")
    state = select_outputs(model.state_dict(), dictionary, vocabulary)
    if model.cmvn is None or teacher.cmvn is None:
        raise ConfigError(f"{path}: source and teacher must both normalise features (CMVN)")
    session.require_same_cmvn(model.cmvn, teacher.cmvn, str(path), "the teacher")
    source = KwsModel(model.config.with_output_dim(vocabulary.size), teacher.cmvn)
    source.load_weights(state, source=str(path))
    return source.eval()


def require_same_front_end(config_path: Path, experiment: ExperimentConfig) -> None:
    """Compare another model's features and frame rate with the run's.

    Raises: ConfigError naming what differs.
    """
    other = load_experiment(config_path)
    theirs, ours = other.dataset_conf.front_end, experiment.dataset_conf.front_end
    names = [field.name for field in dataclasses.fields(FrontEnd)]
    different = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
    if different:
        found = ", ".join(f"{name} {getattr(theirs, name)}" for name in different)
        expected = ", ".join(f"{name} {getattr(ours, name)}" for name in different)
        raise ConfigError(
            f"{config_path}: dataset_conf has {found}; the student's has {expected}; teacher and "
            "student take the same frames or cannot be compared"
        )
