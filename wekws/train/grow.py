"""Growth of a run's student: what is new has no optimiser state yet, the rest keeps its own."""

import argparse
import copy
import dataclasses

from wekws.distill.growth import add_identity_block, add_teacher_block, copy_block
from wekws.distill.transplant.sample import draw_sample
from wekws.errors import ConfigError
from wekws.model.model import KwsModel
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train import session
from wekws.train.distributed import copy_from_first
from wekws.train.epoch_checkpoint import last_epoch
from wekws.train.learning_rate import LearningRate
from wekws.train.step import Run, evaluate
from wekws.train.train_config import ExperimentConfig


def at_start(
    args: argparse.Namespace, experiment: ExperimentConfig, teacher: KwsModel | None = None
) -> ExperimentConfig:
    """Return the configuration of the student as it begins, or as a resume finds it.

    Raises: ConfigError if blocks are to come from a teacher that has none for them.
    """
    if not experiment.progressive.is_used:
        return experiment
    if experiment.progressive.new_block == "teacher":
        blocks = _teacher_blocks(experiment, teacher)
        there = teacher.config.backbone.num_layers if teacher is not None else 0
        if max(blocks) >= there:
            raise ConfigError(
                f"progressive.new_block: teacher: blocks {list(blocks)} of a teacher that has "
                f"{there}; change transplant.blocks, or take new_block identity"
            )
        rules = dataclasses.replace(experiment.transplant, blocks=blocks)
        experiment = dataclasses.replace(experiment, transplant=rules)
    epoch = last_epoch(args.model_dir) if args.resume else None
    return experiment.with_depth(experiment.depth_at(epoch or 0))


def _teacher_blocks(experiment: ExperimentConfig, teacher: KwsModel | None) -> tuple[int, ...]:
    """Return the teacher's block for each of the student's at its full depth."""
    full = experiment.model.backbone.num_layers
    there = teacher.config.backbone.num_layers if teacher is not None else full
    return experiment.transplant.blocks_for(full, there)


def grow(run: Run, epoch: int, records: MetricsWriter) -> None:
    """Add the blocks that the student is to have from ``epoch`` on, if there are any.

    The log gets cv_loss just before and just after.
    """
    num_layers = run.experiment.depth_at(epoch)
    if len(run.model.backbone.fsmn) >= num_layers:
        return
    before = evaluate(run, run.kept_model)["cv_loss"]
    while len(run.model.backbone.fsmn) < num_layers:
        _add_block(run)
    _take_over_optimizer(run)
    figures = {
        "num_layers": num_layers,
        "new_block": run.experiment.progressive.new_block,
        "cv_loss_before": before,
        "cv_loss_after": evaluate(run, run.kept_model)["cv_loss"],
    }
    records.write("growth", run.step, {"epoch": epoch, **figures})


def _add_block(run: Run) -> None:
    """Add one block to the student and its average, made on the CPU wherever the run is."""
    grown, config = copy.deepcopy(run.model).cpu(), run.experiment.transplant
    if run.experiment.progressive.new_block == "teacher":
        teacher = copy.deepcopy(run.teacher).cpu()
        blocks = _teacher_blocks(run.experiment, teacher)
        add_teacher_block(grown, teacher, dataclasses.replace(config, blocks=blocks))
    else:
        sample = draw_sample(grown, run.train_set, num_batches=config.num_batches, seed=run.seed)
        add_identity_block(grown, sample)
    copy_block(run.model.append_block(), grown.backbone.fsmn[-1])
    copy_from_first(run.process, run.model)
    if run.average is not None:
        block = run.average.model.append_block().requires_grad_(False)
        copy_block(block, run.model.backbone.fsmn[-1])


def _take_over_optimizer(run: Run) -> None:
    """Make the optimiser anew, in the order in which a resume would, with the old one's state."""
    optimizer = session.make_optimizer(run.experiment, run.model, run.objective)
    for parameter, state in run.optimizer.state.items():
        optimizer.state[parameter] = state
    learning_rate = LearningRate.of(optimizer, run.experiment)
    learning_rate.load_state_dict(run.learning_rate.state_dict())
    run.optimizer, run.learning_rate = optimizer, learning_rate
