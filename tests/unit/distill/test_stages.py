import pytest
import torch

from wekws.distill.distill_conf import DistillConfig
from wekws.distill.hidden import HiddenConfig
from wekws.distill.loss import Targets
from wekws.distill.objective import Objective
from wekws.distill.schedule import Schedule
from wekws.distill.stages import Stage, StagePlan, share_out
from wekws.distill.taps import Output, Outputs
from wekws.distill.terms import ConsistencyConfig
from wekws.errors import ConfigError

THREE = (
    Stage(name="task", epochs=10),
    Stage(name="gentle", epochs=15, task=0.8, distillation=0.15, temperature=4.0),
    Stage(name="balanced", epochs=10, task=0.6, distillation=0.3),
)


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [
        ([10, 15, 10], 35, [10, 15, 10]),
        ([5, 10], 30, [10, 20]),
        # 2, 3 and 2 of 7 times 3: 0.86, 1.29, 0.86; one each is what there is.
        ([10, 15, 10], 3, [1, 1, 1]),
        # 3.43, 5.14, 3.43: the first of the largest remainders gets the epoch left over.
        ([10, 15, 10], 12, [4, 5, 3]),
        # 0.05, 9.95: raised to 1, which the other pays for.
        ([1, 199], 10, [1, 9]),
        ([1, 1, 198], 10, [1, 1, 8]),
    ],
)
def test_epochs_are_shares_of_the_training(shares, total, expected):
    assert share_out(shares, total) == expected


def test_more_stages_than_epochs_are_refused():
    with pytest.raises(ConfigError, match="3 stages .* in 2 epochs"):
        StagePlan(THREE, 2)


def test_a_plan_is_a_schedule_with_a_knot_a_stage():
    plan = StagePlan(THREE, 7)  # 2, 3, 2 epochs
    assert plan.starts == [0, 2, 5]
    assert [plan.at(epoch).name for epoch in range(8)] == [
        *("task", "task", "gentle", "gentle", "gentle", "balanced", "balanced", "balanced")
    ]
    weight = plan.weights()["distillation"]
    assert isinstance(weight, Schedule)
    # At the first step of an epoch, and at the last but a little.
    values = [[weight.at((epoch + part) / 7) for part in (0.0, 0.999999)] for epoch in range(7)]
    assert values == [[v, v] for v in (0.0, 0.0, 0.15, 0.15, 0.15, 0.3, 0.3)]
    assert plan.temperature(Schedule(shape="constant", start=2.0)).at(0.5) == 4.0
    assert plan.temperature(Schedule(shape="constant", start=2.0)).at(1.0) == 2.0
    with pytest.raises(ConfigError, match="give each stage one"):
        plan.temperature(Schedule(shape="linear", start=6.0, end=3.0))


def staged_objective(**config):
    return Objective(DistillConfig(**config), has_teacher=True, plan=StagePlan(THREE, 7))


def test_stages_weigh_in_place_of_alpha_and_leave_out_what_weighs_nothing():
    objective = staged_objective(consistency=ConsistencyConfig(weight=0.5))
    assert objective.weights(0.0) == {"ctc": 1.0}
    assert not objective.wants_teacher(0.1) and not objective.wants_second_view(0.1)
    assert objective.weights(2 / 7) == {"ctc": 0.8, "kd": 0.15, "consistency": 0.075}
    assert objective.wants_teacher(2 / 7) and objective.wants_second_view(2 / 7)
    assert objective.weights(1.0) == pytest.approx({"ctc": 0.6, "kd": 0.3, "consistency": 0.15})
    torch.manual_seed(0)
    logits, taught = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    one = torch.tensor([1])
    outputs = Outputs(Output(logits), Output(taught))
    targets = Targets(torch.tensor([4]), torch.tensor([[1]]), one)
    assert objective(outputs, targets, 1, 0.0).terms.keys() == {"ctc"}
    # A cv pass compares epochs: it hears every term of the run.
    assert objective.terms(outputs, targets, 1.0).keys() == {"ctc", "kd"}


def test_what_a_stage_weighs_must_be_there():
    with pytest.raises(ConfigError, match="distillation above 0 in gentle, balanced.*a teacher"):
        Objective(DistillConfig(), has_teacher=False, plan=StagePlan(THREE, 7))
    features = (Stage(name="align", epochs=1, task=0.0, feature=1.0),)
    with pytest.raises(ConfigError, match="feature above 0 in align.*hidden.weight"):
        Objective(
            DistillConfig(hidden=HiddenConfig()), has_teacher=True, plan=StagePlan(features, 1)
        )
    alone = Objective(DistillConfig(), has_teacher=False, plan=StagePlan(THREE[:1], 1))
    assert alone.weights(0.0) == {"ctc": 1.0}


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"task": 0.0},
        {"task": -0.1},
        {"temperature": 0.0},
        {"lr": 0.0},
        {"lr_scales": {"backbone": 0.0}},
    ],
)
def test_stages_that_mean_nothing_are_refused(values):
    with pytest.raises(ConfigError):
        Stage(**{"name": "s", "epochs": 1, **values})
    with pytest.raises(ConfigError, match="different names"):
        StagePlan([Stage(name="s", epochs=1)] * 2, 2)


def test_the_longest_path_scales_a_parameter():
    scales = {"backbone": 0.5, "backbone.out_linear1": 0.1}
    stage = Stage(name="s", epochs=1, lr_scales=scales, freeze=("backbone.fsmn.1",))
    assert stage.lr_scale("backbone.out_linear1.linear.weight") == 0.1
    assert stage.lr_scale("backbone.out_linear2.linear.weight") == 0.5
    assert stage.is_frozen("backbone.fsmn.1.0.linear.weight")
    assert not stage.is_frozen("backbone.fsmn.10.0.linear.weight")
