"""Which parameters the optimiser moves, and in which groups."""

from typing import Any

from torch import nn

from wekws.distill.objective import Objective
from wekws.distill.stages import StagePlan
from wekws.model.model import ModelConfig, skeleton


def parameter_groups(
    plan: StagePlan | None, model: nn.Module, objective: Objective
) -> list[dict[str, Any]]:
    """Return the model's parameters and then the objective's, as groups for an optimiser.

    A group shares its factors on the learning rate, ``lr_scales``, one a stage; the objective's
    have 1 in all. Without stages there is one group. The groups stay the same from stage to
    stage, and with them the optimiser's state.
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


def require_plan(plan: StagePlan, config: ModelConfig) -> None:
    """Check the modules that stages name against the student.

    Raises: ConfigError, see ``StagePlan.require_modules``.
    """
    student = skeleton(config)
    names = [name for name, _ in student.named_parameters()]
    plan.require_modules(names, (name for name, _ in student.named_modules()))
