"""The optimiser of a run and its groups of parameters."""

from typing import Any

import torch
from torch import nn

from wekws.distill.objective import Objective
from wekws.distill.stages import StagePlan
from wekws.model.model import skeleton
from wekws.model.model_conf import ModelConfig
from wekws.train.train_config import TrainConfig


def make_optimizer(
    config: TrainConfig, model: nn.Module, objective: Objective
) -> torch.optim.Optimizer:
    """Return Adam or AdamW with one fused step per group of parameters."""
    conf = config.optim_conf
    groups = parameter_groups(config.stage_plan, model, objective)
    rule = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optim]
    return rule(groups, lr=conf.lr, weight_decay=conf.weight_decay, fused=True)


def update_groups(
    optimizer: torch.optim.Optimizer, config: TrainConfig, model: nn.Module, objective: Objective
) -> None:
    """Set the groups anew, in the order in which ``make_optimizer`` would, after a model grew.

    Parameters that were there before keep their state.
    """
    optimizer.param_groups.clear()
    for group in parameter_groups(config.stage_plan, model, objective):
        optimizer.add_param_group(group)


def parameter_groups(
    plan: StagePlan | None, model: nn.Module, objective: Objective
) -> list[dict[str, Any]]:
    """Return the model's parameters and then the objective's, as groups for an optimiser.

    The parameters of a group share their factors on the learning rate, ``lr_scales``, one per
    stage; those of the objective's parameters are 1. Without stages there is one group. The groups
    stay the same from stage to stage, and with them the optimiser's state.
    """
    stages = plan.stages if plan is not None else ()
    groups: dict[tuple[float, ...], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scales = tuple(stage.lr_scale(name) for stage in stages)
        groups.setdefault(scales, []).append(parameter)
    groups.setdefault((1.0,) * len(stages), []).extend(objective.trained_parameters)
    return [
        {"params": parameters, **({"lr_scales": scales} if stages else {})}
        for scales, parameters in groups.items()
        if parameters
    ]


def require_modules(plan: StagePlan, config: ModelConfig) -> None:
    """Check the modules that stages name against the student.

    Raises: ConfigError, see ``StagePlan.require_modules``.
    """
    student = skeleton(config)
    names = [name for name, _ in student.named_parameters()]
    plan.require_modules(names, (name for name, _ in student.named_modules()))
