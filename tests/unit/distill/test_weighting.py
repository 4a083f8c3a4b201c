import pytest
from small_models import objective_of

from wekws.distill.methods import DistillConfig
from wekws.distill.weighting import BesideTask
from wekws.errors import ConfigError


def test_descent_begins_with_the_labels_and_growth_with_the_teacher():
    for shape, ctc_falls in (("cosine_descent", True), ("cosine_growth", False)):
        objective = objective_of(DistillConfig(alpha=shape))
        early, late = objective.weights(0.0), objective.weights(1.0)
        assert (early["ctc"] > late["ctc"]) == ctc_falls
        assert (early["kd"] < late["kd"]) == ctc_falls


def test_the_floor_keeps_ctc_on_and_the_weights_add_up():
    objective = objective_of(DistillConfig(alpha="cosine_vshape", alpha_floor=0.1))
    for progress in (0.0, 0.3, 0.5, 0.7, 1.0):
        weights = objective.weights(progress)
        assert weights["ctc"] >= 0.1 and sum(weights.values()) == pytest.approx(1.0)
        assert objective.alpha(progress) == weights["ctc"]
    assert objective.weights(0.5)["ctc"] == 0.1


def test_without_distillation_every_group_weighs_1_at_temperature_1():
    weighting = BesideTask()
    groups = ("task", "distillation", "feature")
    assert [weighting.weight(group, 0.5) for group in groups] == [1.0, 1.0, 1.0]
    assert weighting.temperature(0.5) == 1.0 and not weighting.leaves_out("task", 0.5)


def test_terms_stay_in_the_log_where_alpha_leaves_them_no_weight():
    objective = objective_of(DistillConfig(alpha="cosine_descent", alpha_floor=0.0))
    assert objective.weights(0.0) == {"ctc": 1.0, "kd": 0.0}


@pytest.mark.parametrize("values", [{"alpha": 1.1}, {"alpha": -0.1}, {"temperature": 0.0}])
def test_weights_that_mean_nothing_are_refused(values):
    with pytest.raises(ConfigError):
        DistillConfig(**values)
