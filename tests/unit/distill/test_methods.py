"""The list of methods, what a run builds from it, and the rules between sections."""

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
from small_models import embedding_space, objective_of, tiny_model, two_utterances

import wekws
from wekws.distill.adversarial import AdversarialConfig
from wekws.distill.consistency import ConsistencyConfig
from wekws.distill.ctc import CtcConfig
from wekws.distill.embedding import EmbeddingConfig
from wekws.distill.ensemble import TeacherWeights
from wekws.distill.gate import GateConfig
from wekws.distill.growth import GrowthHook, ProgressiveConfig
from wekws.distill.guide import GuideConfig
from wekws.distill.hidden import HiddenConfig
from wekws.distill.inner_head import InnerConfig
from wekws.distill.kd import KdConfig
from wekws.distill.keyword_loss import HardNegatives, KeywordConfig
from wekws.distill.layer_pairs import HiddenPair
from wekws.distill.method import LossInputs
from wekws.distill.methods import (
    TERM_GROUPS,
    DistillConfig,
    MethodSections,
    build_hooks,
    build_objective,
)
from wekws.distill.schedule import Schedule
from wekws.distill.stages import Stage, StageHook, StagePlan
from wekws.distill.taps import StepOutputs, forward_tapped
from wekws.distill.transplant import TransplantConfig
from wekws.distill.weight_average import WeightAverage
from wekws.errors import ConfigError

PACKAGE = Path(wekws.__file__).parent
# Every method at once.
SMOOTHED = CtcConfig(label_smoothing=0.1)
KEYWORD = KeywordConfig(weight=0.5)
EVERYTHING = DistillConfig(
    alpha=0.4,
    consistency=ConsistencyConfig(weight=0.5),
    kd=KdConfig(),
    guide=GuideConfig(weight=0.5),
    hidden=HiddenConfig(weight=0.5, gate=GateConfig(openness=0.2)),
    embedding=EmbeddingConfig(weight=0.5),
    adversarial=AdversarialConfig(weight=0.5),
    inner=InnerConfig(weight=0.5),
)
# A run without a feature teacher.
NO_EMBEDDING = dataclasses.replace(EVERYTHING, embedding=EmbeddingConfig())


@pytest.fixture(name="step")
def full_step():
    """An objective with every method, and outputs and targets of two utterances."""
    student, teacher = tiny_model(linear_dim=6), tiny_model(1)
    objective = objective_of(
        EVERYTHING,
        SMOOTHED,
        keyword=KEYWORD,
        student=student,
        teacher=teacher,
        embedding_space=embedding_space(),
    )
    x, targets = two_utterances()
    outputs = StepOutputs(
        forward_tapped(student, x, targets.lengths, objective.student_paths),
        forward_tapped(teacher, x, targets.lengths, objective.teacher_paths),
        forward_tapped(student, x + 0.1, targets.lengths, ()),
    )
    return objective, outputs, targets


def test_every_term_has_one_name_and_one_group():
    sections = [CtcConfig(), KeywordConfig(), *DistillConfig().methods.values()]
    names = [name for section in sections for name in section.term_groups]
    assert len(names) == len(set(names))
    assert {
        "ctc": "task",
        "smoothing": "task",
        "keyword": "task",
        "consistency": "distillation",
        "kd": "distillation",
        "guide": "distillation",
        "hidden": "feature",
        "gate": "feature",
        "embedding": "feature",
        "adversarial": "feature",
        "inner_ctc": "task",
        "inner_kd": "distillation",
    } == TERM_GROUPS


def test_methods_add_the_terms_that_their_sections_declare(step):
    objective, _, _ = step
    sections = {"ctc": SMOOTHED, "keyword": KEYWORD, **EVERYTHING.methods}
    assert objective.methods.keys() == sections.keys()
    for name, method in objective.methods.items():
        assert method.terms, name
        groups = {term.name: term.group for term in method.terms}
        assert groups == {**sections[name].term_groups}, name


def test_the_objective_with_every_method(step):
    objective, outputs, targets = step
    weights = objective.weights(0.0)
    # Task terms first, then the order of the sections: that of the log.
    assert list(weights) == [
        *("ctc", "smoothing", "keyword", "inner_ctc", "consistency", "kd", "guide"),
        *("hidden", "gate", "embedding", "adversarial", "inner_kd"),
    ]
    assert objective.task_terms == ("ctc", "smoothing", "keyword", "inner_ctc")
    expected = {
        "ctc": 0.36,
        "smoothing": 0.04,
        "keyword": 0.2,
        "inner_ctc": 0.2,
        "kd": 0.6,
        "guide": 0.3,
    }
    expected |= {"inner_kd": 0.3, "consistency": 0.3, "hidden": 0.3, "adversarial": 0.3}
    expected |= {"embedding": 0.3}
    assert weights == pytest.approx(expected | {"gate": 0.2 * 0.3})
    assert objective.cv_terms == ("keyword", "kd", "guide", "hidden", "embedding", "inner_kd")
    loss = objective(outputs, targets, 2, 0.0)
    assert list(loss.terms) == list(weights)
    total = sum(weights[name] * value.item() for name, value in loss.terms.items())
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    loss.total.backward()
    assert all(p.grad is not None for p in objective.trained_parameters)
    discriminators = set(objective.methods["adversarial"].parameters())
    assert not discriminators & set(objective.trained_parameters)
    assert all(p.grad is None for p in discriminators)


def test_methods_compute_the_terms_that_are_wanted_and_no_others(step):
    objective, outputs, targets = step
    inputs = LossInputs(outputs, targets, 2.0, objective.layer_pairs)
    wanted = set(TERM_GROUPS)
    for name, method in objective.methods.items():
        assert method.values(inputs, ()) == {}, name
        own = {term.name for term in method.terms}
        assert own <= method.values(inputs, wanted).keys() <= own | set(method.count_names), name


def test_terms_need_what_their_methods_declare(step):
    objective, _, _ = step
    needed = {name for name in TERM_GROUPS if objective.needs_teacher([name])}
    assert needed == {"kd", "guide", "inner_kd", "hidden", "gate", "adversarial"}
    twice = {name for name in TERM_GROUPS if objective.needs_second_view([name])}
    assert twice == {"consistency"}


def test_opponents_are_trained_through_the_objective(step):
    objective, outputs, targets = step
    method = objective.methods["adversarial"]
    before = [p.clone() for p in method.parameters()]
    others = [p.clone() for p in objective.trained_parameters]
    assert objective.has_opponent(0.0)
    counts = objective.train_opponents(lambda: [(outputs, targets)], 2, 0.0, lambda found: None)
    # 2 pairs, 6 + 4 frames of each model.
    assert counts["num_classified"].item() == 2 * 2 * (6 + 4)
    assert not any(map(torch.equal, before, method.parameters()))
    assert all(map(torch.equal, others, objective.trained_parameters))
    plan = StagePlan([Stage(name="task", epochs=1), Stage(name="all", epochs=1, feature=0.5)], 2)
    staged = objective_of(NO_EMBEDDING, plan=plan)
    assert not staged.has_opponent(0.0) and staged.has_opponent(0.5)


def test_without_a_teacher_every_run_is_plain_ctc():
    objective = objective_of(NO_EMBEDDING, has_teacher=False)
    assert objective.weights(0.0) == {"ctc": 1.0}
    assert not list(objective.parameters()) and not objective.has_opponent(0.0)
    assert (objective.student_paths, objective.teacher_paths) == ((), ())


def test_layers_are_paired_once_and_only_for_methods_that_need_them():
    assert objective_of(DistillConfig(guide=GuideConfig(weight=1.0))).layer_pairs is None
    config = DistillConfig(adversarial=AdversarialConfig(weight=0.1))
    objective = objective_of(config, student=tiny_model(linear_dim=6))
    # The adapters are trained even where the distance itself has no weight.
    names = {name.split(".")[0] for name, _ in objective.named_parameters()}
    assert names == {"layer_pairs", "adversarial"}
    assert len(objective.trained_parameters) == 4


def string_constants(path):
    tree = ast.parse(path.read_text())
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def imported_modules(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


SECTIONS = {"ctc", "keyword", *DistillConfig().methods}
METHOD_MODULES = {type(section).__module__ for section in DistillConfig().methods.values()}


@pytest.mark.parametrize("name", ["objective", "method", "weighting", "hook"])
def test_the_core_names_no_method(name):
    path = PACKAGE / "distill" / f"{name}.py"
    assert not string_constants(path) & SECTIONS
    assert not imported_modules(path) & METHOD_MODULES


def test_training_names_no_method_of_distillation():
    for path in (PACKAGE / "train").glob("*.py"):
        assert not string_constants(path) & set(DistillConfig().methods), path
        assert not imported_modules(path) & METHOD_MODULES, path


def check(max_epoch=4, num_layers=2, has_masks=True, **sections):
    MethodSections(**sections).check_methods(
        num_layers=num_layers, max_epoch=max_epoch, has_masks=has_masks
    )


def test_two_views_without_masks_are_refused():
    views = DistillConfig(consistency=ConsistencyConfig(weight=0.1))
    check(distill_conf=views)
    with pytest.raises(ConfigError, match="switch dataset_conf.spec_aug on"):
        check(distill_conf=views, has_masks=False)


def test_stages_beside_alpha_and_stages_longer_than_the_training_are_refused():
    stages = (Stage(name="a", epochs=1), Stage(name="b", epochs=1))
    check(stages=stages)
    for values in ({"alpha": 0.4}, {"alpha_floor": 0.1}):
        with pytest.raises(ConfigError, match="expected one way of weighing"):
            check(stages=stages, distill_conf=DistillConfig(**values))
    with pytest.raises(ConfigError, match="2 stages .* in 1 epochs"):
        check(stages=stages, max_epoch=1)


def paired(first="backbone.fsmn.0.2"):
    return HiddenConfig(weight=1.0, pairs=(HiddenPair(student=first, teacher=first),))


GROWS = ProgressiveConfig(start_blocks=1)
FROM_TEACHER = ProgressiveConfig(start_blocks=1, new_block="teacher")


@pytest.mark.parametrize(
    "sections",
    [
        {"progressive": GROWS},
        {"progressive": GROWS, "distill_conf": DistillConfig(hidden=paired())},
        {"progressive": GROWS, "distill_conf": DistillConfig(inner=InnerConfig(weight=1.0))},
        {"progressive": FROM_TEACHER, "transplant": TransplantConfig(channels="uniform")},
    ],
)
def test_a_student_may_grow(sections):
    check(**sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"progressive": ProgressiveConfig(start_blocks=3)}, "3 blocks at the start"),
        (
            {"progressive": ProgressiveConfig(start_blocks=1, every=4)},
            "1 in the last epoch, num_layers 2",
        ),
        (
            {
                "progressive": GROWS,
                "distill_conf": DistillConfig(hidden=HiddenConfig(weight=1.0)),
            },
            "name `pairs` within the student's first 1 blocks",
        ),
        (
            {
                "progressive": GROWS,
                "distill_conf": DistillConfig(adversarial=AdversarialConfig(weight=1.0)),
            },
            "name `pairs` within",
        ),
        (
            {
                "progressive": GROWS,
                "distill_conf": DistillConfig(embedding=EmbeddingConfig(weight=1.0)),
            },
            "name distill_conf.embedding.tap within the student's first 1 blocks",
        ),
        (
            {
                "progressive": GROWS,
                "distill_conf": DistillConfig(inner=InnerConfig(weight=1.0, block=2)),
            },
            "inner.block 2 does not exist at the start",
        ),
        (
            {
                "progressive": FROM_TEACHER,
                "transplant": TransplantConfig(channels="activation"),
            },
            "channels first or uniform",
        ),
    ],
)
def test_what_changes_with_the_depth_is_refused(sections, message):
    with pytest.raises(ConfigError, match=message):
        check(**sections)


def test_pairs_of_a_growing_student_lie_within_its_first_blocks():
    conf = DistillConfig(hidden=paired("backbone.fsmn.1.2"))
    with pytest.raises(ConfigError, match="student: no module backbone.fsmn.1.2"):
        build_objective(MethodSections(distill_conf=conf), tiny_model(num_layers=1), tiny_model(1))


def test_weight_of_a_method_follows_its_own_schedule():
    rising = Schedule(shape="linear", start=0.0, end=1.0)
    objective = objective_of(DistillConfig(alpha=0.2, guide=GuideConfig(weight=rising)))
    assert objective.weights(0.0)["guide"] == 0.0
    assert objective.weights(0.5)["guide"] == pytest.approx(0.8 * 0.5)


@pytest.mark.parametrize(
    ("sections", "plan", "ema_decay", "expected"),
    [
        ({}, None, 0.0, [TeacherWeights]),
        (
            {"progressive": GROWS, "keyword_conf": KeywordConfig(weight=1.0, mined_share=0.1)},
            StagePlan([Stage(name="task", epochs=1)], 4),
            0.9,
            [TeacherWeights, GrowthHook, StageHook, HardNegatives, WeightAverage],
        ),
    ],
)
def test_hooks_in_their_order(sections, plan, ema_decay, expected):
    hooks = build_hooks(
        MethodSections(**sections),
        tiny_model(),
        plan=plan,
        num_layers=2,
        max_epoch=4,
        lr=1e-3,
        ema_decay=ema_decay,
    )
    assert [type(hook) for hook in hooks] == expected
    # Hooks with a state need different keys in a checkpoint.
    names = [hook.name for hook in hooks if hook.name]
    assert len(names) == len(set(names))
