import pytest
import torch
from small_models import objective_of

from wekws.distill.consistency import ConsistencyConfig
from wekws.distill.hidden import HiddenConfig
from wekws.distill.method import LossTargets
from wekws.distill.methods import DistillConfig
from wekws.distill.schedule import Schedule
from wekws.distill.stages import Stage, StagePlan, StageWeighting
from wekws.distill.taps import ModelOutputs, StepOutputs
from wekws.errors import ConfigError

THREE = (
    Stage(name="task", epochs=10),
    Stage(name="gentle", epochs=15, task=0.8, distillation=0.15, temperature=4.0),
    Stage(name="balanced", epochs=10, task=0.6, distillation=0.3),
)


def test_more_stages_than_epochs_are_refused():
    with pytest.raises(ConfigError, match="3 stages .* in 2 epochs"):
        StagePlan(THREE, 2)


def test_a_plan_gives_every_epoch_the_weights_and_temperature_of_its_stage():
    plan = StagePlan(THREE, 7)  # 2, 3, 2 epochs
    assert plan.starts == [0, 2, 5]
    assert [plan.at(epoch).name for epoch in range(8)] == [
        *("task", "task", "gentle", "gentle", "gentle", "balanced", "balanced", "balanced")
    ]
    weighting = StageWeighting(plan, Schedule(shape="constant", start=2.0))
    # At the first step of an epoch, and just before its end.
    values = [
        [weighting.weight("distillation", (epoch + part) / 7) for part in (0.0, 0.999999)]
        for epoch in range(7)
    ]
    assert values == [[v, v] for v in (0.0, 0.0, 0.15, 0.15, 0.15, 0.3, 0.3)]
    assert weighting.leaves_out("distillation", 0.0) and weighting.leaves_out("feature", 1.0)
    assert not weighting.leaves_out("distillation", 1.0)
    assert [weighting.temperature(p) for p in (0.0, 0.5, 1.0)] == [2.0, 4.0, 2.0]
    with pytest.raises(ConfigError, match="give each stage one"):
        StageWeighting(plan, Schedule(shape="linear", start=6.0, end=3.0))


def test_a_temperature_may_move_where_no_stage_has_its_own():
    weighting = StageWeighting(
        StagePlan(THREE[:1], 4), Schedule(shape="linear", start=6.0, end=3.0)
    )
    assert [weighting.temperature(p) for p in (0.0, 0.5, 1.0)] == [6.0, 4.5, 3.0]


def needs(objective, progress):
    """Whether a step needs the teacher, and whether it needs a second view."""
    names = objective.active_terms(progress)
    return objective.needs_teacher(names), objective.needs_second_view(names)


def test_stages_weigh_in_place_of_alpha_and_leave_out_groups_without_weight():
    config = DistillConfig(consistency=ConsistencyConfig(weight=0.5))
    objective = objective_of(config, plan=StagePlan(THREE, 7))
    assert objective.weights(0.0) == {"ctc": 1.0}
    assert needs(objective, 0.1) == (False, False)
    assert objective.weights(2 / 7) == {"ctc": 0.8, "kd": 0.15, "consistency": 0.075}
    assert needs(objective, 2 / 7) == (True, True)
    assert objective.weights(1.0) == pytest.approx({"ctc": 0.6, "kd": 0.3, "consistency": 0.15})
    torch.manual_seed(0)
    one = torch.tensor([1])
    outputs = StepOutputs(ModelOutputs(torch.randn(1, 4, 3)), ModelOutputs(torch.randn(1, 4, 3)))
    targets = LossTargets(torch.tensor([4]), torch.tensor([[1]]), one)
    assert objective(outputs, targets, 1, 0.0).terms.keys() == {"ctc"}
    # Cv passes compute the terms of every stage in each, so that epochs compare.
    assert objective.cv_terms == ("kd",)
    names = ("ctc", *objective.cv_terms)
    assert objective.terms(outputs, targets, 1.0, names).keys() == {"ctc", "kd"}


def test_a_stage_may_only_weigh_terms_that_are_in_use():
    with pytest.raises(ConfigError, match="distillation above 0 in gentle, balanced.*a teacher"):
        objective_of(DistillConfig(), has_teacher=False, plan=StagePlan(THREE, 7))
    features = (Stage(name="align", epochs=1, task=0.0, feature=1.0),)
    with pytest.raises(ConfigError, match="feature above 0 in align.*hidden.weight"):
        objective_of(DistillConfig(hidden=HiddenConfig()), plan=StagePlan(features, 1))
    alone = objective_of(DistillConfig(), has_teacher=False, plan=StagePlan(THREE[:1], 1))
    assert alone.weights(0.0) == {"ctc": 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "name 's', epochs 0: expected a name, >= 1"),
        ({"name": ""}, "name '', epochs 1"),
        ({"task": 0.0}, "task, distillation, feature: found"),
        ({"task": -0.1, "feature": 1.0}, "task, distillation, feature: found"),
        ({"temperature": 0.0}, "^temperature: found 0.0; expected above 0$"),
        ({"lr": 0.0}, "^lr: found 0.0; expected above 0$"),
        ({"lr_scales": {"backbone": 0.0}}, "^backbone: found 0.0; .* as it is, freeze it$"),
    ],
)
def test_stages_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Stage(**{"name": "s", "epochs": 1, **values})
    with pytest.raises(ConfigError, match="different names"):
        StagePlan([Stage(name="s", epochs=1)] * 2, 2)


def test_paths_without_parameters_are_named_with_those_that_have_some():
    stage = Stage(name="s", epochs=1, freeze=("a.b", "no"), lr_scales={"a": 0.5})
    with pytest.raises(ConfigError, match=r"no module no with .*; expected some of a, a\.b$"):
        StagePlan([stage], 1).require_modules(["a.b.weight"], ["", "a", "a.b", "c"])
    frozen = StagePlan([Stage(name="s", epochs=1, freeze=("a",))], 1)
    with pytest.raises(ConfigError, match="s freezes the whole student"):
        frozen.require_modules(["a.b.weight"], ["", "a", "a.b"])
    frozen.require_modules(["a.b.weight", "c.weight"], ["", "a", "a.b", "c"])


def test_the_longest_path_gives_the_learning_rate_and_freezing_ends_at_a_dot():
    scales = {"backbone": 0.5, "backbone.out_linear1": 0.1}
    stage = Stage(name="s", epochs=1, lr_scales=scales, freeze=("backbone.fsmn.1",))
    assert stage.lr_scale("backbone.out_linear1.linear.weight") == 0.1
    assert stage.lr_scale("backbone.out_linear2.linear.weight") == 0.5
    assert stage.is_frozen("backbone.fsmn.1.0.linear.weight")
    assert not stage.is_frozen("backbone.fsmn.10.0.linear.weight")
