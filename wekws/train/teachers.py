"""The teachers of a run: loaded and checked, made one, weighed on the cv set."""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from wekws.dataset.label_set import LabelSet
from wekws.distill.ensemble import TeacherEnsemble, TeachersConfig, weights_by_score
from wekws.errors import ConfigError
from wekws.model.checkpoint import config_beside, load_model
from wekws.model.model import KwsModel
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train import session
from wekws.train.step import Run, evaluate
from wekws.train.student_init import require_same_front_end
from wekws.train.train_config import ExperimentConfig

logger = logging.getLogger(__name__)


def load_teachers(
    args: argparse.Namespace, experiment: ExperimentConfig, outputs: LabelSet
) -> list[KwsModel]:
    """Return the frozen teachers that ``--teacher_checkpoint`` names, in that order.

    Raises: ConfigError if one's vocabulary, frame rate, features or CMVN are not the student's,
    or if one ``--teacher_config`` is to describe several.
    """
    paths = args.teacher_checkpoint
    if len(paths) > 1 and args.teacher_config:
        raise ConfigError(
            f"--teacher_config {args.teacher_config}: given for {len(paths)} teachers; leave it "
            "out and have a config.yaml beside each checkpoint"
        )
    if len(paths) == 1 and experiment.distill_conf.teachers != TeachersConfig():
        logger.warning("distill_conf.teachers: no effect with one teacher")
    teachers = [_load_teacher(path, args, experiment, outputs) for path in paths]
    for path, teacher in zip(paths[1:], teachers[1:], strict=True):
        session.require_same_cmvn(
            session.cmvn_of(teacher), session.cmvn_of(teachers[0]), str(path), str(paths[0])
        )
    return teachers


def _load_teacher(
    path: Path,
    args: argparse.Namespace,
    experiment: ExperimentConfig,
    outputs: LabelSet,
) -> KwsModel:
    config_path = args.teacher_config or config_beside(path)
    require_same_front_end(config_path, experiment)
    session.require_same_vocabulary(path, outputs.vocabulary)
    teacher = load_model(path, config_path)
    if teacher.config.output_dim != outputs.vocabulary.size:
        raise ConfigError(
            f"{path}: {teacher.config.output_dim} outputs; {args.dict} has "
            f"{outputs.vocabulary.size} tokens"
        )
    cmvn = session.read_cmvn(args, experiment.model)
    if cmvn is not None:
        session.require_same_cmvn(session.cmvn_of(teacher), cmvn, str(path), "the run's CMVN")
    return teacher.requires_grad_(False).eval()


def as_one(teachers: Sequence[KwsModel]) -> nn.Module:
    """Return the only teacher, or what several say together."""
    return teachers[0] if len(teachers) == 1 else TeacherEnsemble(teachers).eval()


def weigh(run: Run, records: MetricsWriter) -> None:
    """Give each of several teachers its weight, before the first step.

    By its CTC loss on the cv set where the configuration says so; all alike otherwise. A row
    ``teachers`` says what came of it; a resumed run takes the weights from its own state.
    """
    config, ensemble = run.experiment.distill_conf.teachers, run.teacher
    if not isinstance(ensemble, TeacherEnsemble) or config.mix != "dev_score":
        return
    # Each as if it were the run's only teacher: no distillation terms of its own.
    figures = [evaluate(dataclasses.replace(run, teacher=m), m) for m in ensemble.members]
    losses = [figure["cv_loss"] for figure in figures]
    ensemble.weights = weights_by_score(losses, config.scale)
    row = {f"cv_loss_{i}": loss for i, loss in enumerate(losses, 1)}
    row |= {f"weight_{i}": weight for i, weight in enumerate(ensemble.weights, 1)}
    records.write("teachers", 0, {"epoch": -1, **row})
