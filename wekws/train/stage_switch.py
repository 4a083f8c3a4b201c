"""A run as it passes from stage to stage, and from depth to depth."""

import logging

from wekws.distill.stages import StagePlan
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train.grow import grow
from wekws.train.step import Run

logger = logging.getLogger(__name__)


def begin_epoch(run: Run, epoch: int, records: MetricsWriter) -> None:
    """Freeze and scale as the epoch's stage says; a stage that begins gets a row in the log.

    A student that is to be deeper grows first. All of it follows from the epoch and the weights,
    so that a run resumed in mid-stage, or where it grows, goes on as it was.
    """
    grow(run, epoch, records)
    plan = run.experiment.stage_plan
    if plan is None:
        return
    if epoch == 0:
        _log_plan(plan)
    index = plan.index_at(epoch)
    stage = plan.stages[index]
    for name, parameter in run.model.named_parameters():
        parameter.requires_grad_(not stage.is_frozen(name))
    usual = run.experiment.optim_conf.lr
    run.learning_rate.scale = 1.0 if stage.lr is None else stage.lr / usual
    for group in run.optimizer.param_groups:
        group["lr_scale"] = group["lr_scales"][index]
    if epoch == plan.starts[index]:
        records.write("stage", run.step, {"epoch": epoch, **_row(run, plan, index)})


def epoch_notes(run: Run, epoch: int) -> dict[str, str | int]:
    """Return what an epoch's row and YAML say of where it stands: its stage, an early depth."""
    notes: dict[str, str | int] = {}
    if run.experiment.stage_plan is not None:
        notes["stage"] = run.experiment.stage_plan.at(epoch).name
    num_layers = run.experiment.depth_at(epoch)
    if num_layers < run.experiment.model.backbone.num_layers:
        notes["num_layers"] = num_layers
    return notes


def _log_plan(plan: StagePlan) -> None:
    parts = [f"{s.name} {n}" for s, n in zip(plan.stages, plan.epochs, strict=True)]
    written = [stage.epochs for stage in plan.stages]
    scaled = "" if written == plan.epochs else f", scaled from {'+'.join(map(str, written))}"
    logger.info("stages, in epochs: %s%s", ", ".join(parts), scaled)


def _row(run: Run, plan: StagePlan, index: int) -> dict:
    stage, progress = plan.stages[index], plan.starts[index] / plan.max_epoch
    return {
        "name": stage.name,
        "num_epochs": plan.epochs[index],
        "task": stage.task,
        "distillation": stage.distillation,
        "feature": stage.feature,
        "temperature": run.objective.temperature(progress),
        "lr": run.experiment.optim_conf.lr if stage.lr is None else stage.lr,
        "lr_scales": dict(stage.lr_scales),
        "frozen": list(stage.freeze),
    }
