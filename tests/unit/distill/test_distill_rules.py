"""Health rules of distillation on constructed runs."""

import pytest
from fake_metrics import TEACHER, layered, run_of, step

from wekws.distill.distill_rules import ALL_RULES
from wekws.runlog.health import find_problems


def found_in(rows):
    return find_problems(rows, ALL_RULES)


def distilled(losses, kd, accuracy=0.7, weighted_kd=1.0):
    rows = [TEACHER, *run_of(losses, cv_kd=kd)]
    for row in rows[2:]:
        row["cv_accuracy"] = accuracy
    return [*rows, step(len(kd) - 1, ctc=1.0, weighted_ctc=0.5, weighted_kd=weighted_kd)]


def test_a_teacher_below_its_student_is_named_twice_in_a_row():
    # The teacher has 9.0 and 60 %; 5 % below is 8.55.
    found = found_in(distilled([90, 8.6, 8.5, 8.4], [3, 2, 1]))
    assert found["weak_teacher"] == (
        "the teacher is worse than the student on dev: cv loss 9.00 and accuracy 60.0%, the "
        "student's 8.40 and 70.0%"
    )
    assert found_in(distilled([90, 8.7, 8.6, 8.4], [3, 2, 1])) == {}  # only once
    assert found_in(distilled([90, 8.6, 8.5, 8.4], [3, 2, 1], accuracy=0.5)) == {}
    assert found_in(distilled([90, 8.6, 8.5, 8.4], [3, 2, 1], weighted_kd=0.0)) == {}


def test_kd_that_falls_alone_is_named_with_the_cosine():
    # KD: means 30 and 24, down 20 %. CTC: 12.0 and 12.2.
    rows = distilled([90, 12, 12, 12, 12.1, 12.2, 12.3], [32, 30, 28, 26, 24, 22], accuracy=0.5)
    gradient = {"kind": "gradient", "epoch": 5, "grad_cos_kd": -0.25}
    assert found_in([*rows, gradient]) == {
        "task_left_behind": "kd on dev fell from 30.00 to 24.00 (3-epoch means), CTC went from "
        "12.00 to 12.20; the cosine of their gradients is -0.25"
    }
    both = distilled([90, 12, 12, 12, 11.5, 11.4, 11.3], [32, 30, 28, 26, 24, 22], accuracy=0.5)
    assert found_in(both) == {}
    done = distilled([90, 8.8, 8.8, 8.8, 8.9, 8.9, 8.9], [32, 30, 28, 26, 24, 22], accuracy=0.5)
    assert found_in(done) == {}  # at the teacher's level there is nothing left to follow


ADAPTER = "layer_pairs.adapters.0"


def with_adapter(name, weights, gradients):
    """Rows of two epochs with the norms of one adapter."""
    rows = layered({"in": 4.0}, {"in": 4.0})
    for row, norm, slope in zip(rows[-2:], weights, gradients, strict=True):
        row["adapter_weight"], row["adapter_gradient"] = {name: norm}, {name: slope}
    return rows


@pytest.mark.parametrize("term", ["hidden", "adversarial"])
@pytest.mark.parametrize(
    ("weight", "gradient", "weighted", "expected"),
    [
        (0.05, 1.0, 0.3, f"adapters died: {ADAPTER}: weights of norm 0.05, once 8"),
        (8.0, 1e-9, 0.3, "a gradient of norm 1e-09, the student's 4"),
        (8.0, 1e-9, 0.0, None),  # the term is off
        (0.5, 1.0, 0.3, None),
    ],
)
def test_an_adapter_that_shrank_or_gets_no_gradient_is_dead(
    term, weight, gradient, weighted, expected
):
    rows = with_adapter(ADAPTER, (8.0, weight), (1.0, gradient))
    found = found_in([*rows, step(1, weighted_ctc=1.0, **{f"weighted_{term}": weighted})])
    assert (expected is None and found == {}) or expected in found["dead_adapter"]


@pytest.mark.parametrize(
    ("name", "term", "is_found"),
    [
        ("inner.linear", "inner_kd", True),
        ("inner.linear", "kd", False),
        ("hidden.gates.0.linear", "hidden", True),
        (ADAPTER, "kd", False),
    ],
)
def test_parameters_of_a_method_are_compared_while_its_terms_have_a_weight(name, term, is_found):
    rows = with_adapter(name, (8.0, 0.05), (1.0, 1.0))
    found = found_in([*rows, step(1, weighted_ctc=1.0, **{f"weighted_{term}": 0.3})])
    assert found.keys() == ({"dead_adapter"} if is_found else set())


def test_a_stuck_gate_is_found_by_its_mean_over_the_epoch():
    rows = run_of([9.0, 8.0])
    closed = [step(0, gate_mean=0.05), step(0, gate_mean=0.03)]
    assert "closed: its mean is 0.040" in found_in(rows + closed)["stuck_gate"]
    assert "wide open" in found_in([*rows, step(0, gate_mean=0.99)])["stuck_gate"]
    assert found_in([*rows, step(0, gate_mean=0.5)]) == {}


def test_every_rule_has_a_name_of_its_own():
    names = [rule.name for rule in ALL_RULES]
    assert len(names) == len(set(names)) and "stuck_gate" in names
