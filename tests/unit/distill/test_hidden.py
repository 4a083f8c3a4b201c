import pytest
import torch
import torch.nn.functional as F
from small_models import objective_of, outputs_of, tiny_model, two_utterances

from wekws.distill.hidden import DISTANCES, HiddenConfig
from wekws.distill.layer_pairs import HiddenPair
from wekws.distill.methods import DistillConfig
from wekws.errors import ConfigError


def objective_between(student, teacher, **values):
    config = DistillConfig(hidden=HiddenConfig(**{"weight": 1.0, **values}))
    return objective_of(config, student=student, teacher=teacher)


def hidden_term(objective, outputs, targets):
    return objective.terms(outputs, targets, 0.0, ("hidden",))["hidden"]


@pytest.mark.parametrize("distance", ["mse", "normalised_mse", "cosine"])
def test_equal_models_have_distance_zero_with_zero_gradient(distance):
    student, teacher = tiny_model(num_layers=3), tiny_model(num_layers=3)
    objective = objective_between(student, teacher, distance=distance)
    x, targets = two_utterances()
    outputs = outputs_of(objective, student, teacher, x, targets.lengths)
    value = hidden_term(objective, outputs, targets)
    value.backward()
    assert abs(value.item()) < 1e-4
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients and all(gradient.abs().max() < 1e-4 for gradient in gradients)


def test_distances_by_hand():
    student = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    teacher = torch.tensor([[4.0, 3.0], [2.0, 0.0]])
    # mse: (1 + 1) / 2, (4 + 0) / 2. cosine: 1 - 24/25, and 1 for the frame of zeros.
    # normalised: (-1, 1) against (1, -1) is 4; (0, 0) against (1, -1) is 1.
    expected = {"mse": [1.0, 2.0], "normalised_mse": [4.0, 1.0], "cosine": [0.04, 1.0]}
    for name, values in expected.items():
        assert DISTANCES[name](student, teacher).mean(dim=1).tolist() == pytest.approx(
            values, abs=1e-3
        )


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_have_finite_gradients_where_every_channel_is_zero(name):
    student = torch.zeros(2, 3, requires_grad=True)
    DISTANCES[name](student, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])).sum().backward()
    assert torch.isfinite(student.grad).all()


def test_several_teacher_layers_to_one_and_weights():
    student, teacher = tiny_model(num_layers=2), tiny_model(1, num_layers=4)
    pairs = (
        HiddenPair(student="backbone.fsmn.0.2", teacher="backbone.in_linear2", weight=3.0),
        HiddenPair(student="backbone.fsmn.1.2", teacher=("backbone.fsmn.2.2", "backbone.fsmn.3.2")),
    )
    objective = objective_between(student, teacher, pairs=pairs)
    x, targets = two_utterances()
    outputs = outputs_of(objective, student, teacher, x, targets.lengths)
    of_student, of_teacher = outputs.student.features, outputs.teacher.features
    mean = (of_teacher["backbone.fsmn.2.2"] + of_teacher["backbone.fsmn.3.2"]) / 2
    # 6 + 4 valid frames.
    first = 10 * F.mse_loss(of_student["backbone.fsmn.0.2"], of_teacher["backbone.in_linear2"])
    second = 10 * F.mse_loss(of_student["backbone.fsmn.1.2"], mean)
    assert hidden_term(objective, outputs, targets).item() == pytest.approx(
        ((3 * first + second) / 4).item(), rel=1e-5
    )


def test_adapters_learn():
    student, teacher = tiny_model(num_layers=3, linear_dim=6), tiny_model(num_layers=4)
    objective = objective_between(student, teacher)
    x, targets = two_utterances()
    outputs = outputs_of(objective, student, teacher, x, targets.lengths)
    hidden_term(objective, outputs, targets).backward()
    adapters = list(objective.layer_pairs.parameters())
    assert len(adapters) == 6 and all(p.grad.abs().max() > 0 for p in adapters)


def test_padding_changes_nothing():
    student, teacher = tiny_model(num_layers=3, linear_dim=6), tiny_model(num_layers=3)
    objective = objective_between(student, teacher)
    x, targets = two_utterances()
    values = []
    for padding in (0, 9):
        x[1, 4:] = padding
        longer = F.pad(x, (0, 0, 0, padding))
        outputs = outputs_of(objective, student, teacher, longer, targets.lengths)
        values.append(hidden_term(objective, outputs, targets).item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_settings_that_mean_nothing_are_refused():
    pair = HiddenPair(student="a", teacher="b")
    with pytest.raises(ConfigError, match="expected one way"):
        HiddenConfig(pairs=(pair,), rule="skip")
    with pytest.raises(ConfigError, match="block_weights: expected above 0"):
        HiddenConfig(block_weights=(1.0, 0.0))
    with pytest.raises(ConfigError, match="block_weights 1; expected as many"):
        HiddenConfig(block_weights=(1.0,)).pairs_for(3, 3)
    with pytest.raises(ConfigError, match="blocks even of 1 are 0"):
        HiddenConfig(blocks="even").pairs_for(1, 3)


def test_the_objective_owns_the_adapters_and_leaves_the_term_out_at_weight_0():
    student, teacher = tiny_model(num_layers=3, linear_dim=6), tiny_model(num_layers=3)
    off = objective_between(student, teacher, weight=0.0)
    assert not list(off.parameters()) and off.distillation_terms == ("kd",)
    assert (off.student_paths, off.teacher_paths) == ((), ())
    on = objective_between(student, teacher, weight=0.5)
    assert len(list(on.parameters())) == 6 and on.distillation_terms == ("kd", "hidden")
    assert on.weights(0.0) == {"ctc": 0.5, "kd": 0.5, "hidden": 0.25}
    assert len(on.student_paths) == len(on.teacher_paths) == 3
