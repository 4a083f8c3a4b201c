import dataclasses

import pytest
import torch
from small_models import STUDENT, TEACHER, loud_model, model, sample_of

from wekws.distill.transplant import TransplantConfig, transplant
from wekws.errors import ConfigError, DataError

FIRST = TransplantConfig()
BEST = TransplantConfig(
    channels="activation", pairs="data_svd", compensation="sequential", head="project"
)
RULES = [
    TransplantConfig(channels=channels, pairs=pairs, compensation=compensation, head=head)
    for channels, pairs, compensation, head in [
        ("first", "slice", "none", "slice"),
        ("uniform", "slice", "none", "copy"),
        ("activation", "slice", "mean", "slice"),
        ("activation", "svd", "least_squares", "slice"),
        ("uniform", "svd", "none", "project"),
        ("activation", "data_svd", "sequential", "slice"),
        ("activation", "data_svd", "sequential", "project"),
    ]
]


def rule_name(rule):
    return f"{rule.channels}-{rule.pairs}-{rule.compensation}-{rule.head}"


def test_first_takes_the_expected_slices_and_accounts_for_every_tensor():
    source, student = model(1, TEACHER), model(2, STUDENT)
    teacher = source.state_dict()
    report = transplant(student, source, FIRST)
    filled = student.state_dict()
    assert [row.name for row in report] == list(filled)
    expected = {
        "global_cmvn.mean": teacher["global_cmvn.mean"],
        "backbone.in_linear1.linear.weight": teacher["backbone.in_linear1.linear.weight"][:4],
        "backbone.in_linear2.linear.weight": teacher["backbone.in_linear2.linear.weight"][:7, :4],
        "backbone.in_linear2.linear.bias": teacher["backbone.in_linear2.linear.bias"][:7],
        "backbone.fsmn.1.0.linear.weight": teacher["backbone.fsmn.1.0.linear.weight"][:3, :7],
        # The taps nearest to the present: the last two of the past, the first of the future.
        "backbone.fsmn.1.1.conv_left.weight": teacher["backbone.fsmn.1.1.conv_left.weight"][
            :3, :, 2:
        ],
        "backbone.fsmn.1.1.conv_right.weight": teacher["backbone.fsmn.1.1.conv_right.weight"][
            :3, :, :1
        ],
        "backbone.out_linear1.linear.weight": teacher["backbone.out_linear1.linear.weight"][:, :7],
        "backbone.out_linear2.linear.weight": teacher["backbone.out_linear2.linear.weight"],
    }
    for name, tensor in expected.items():
        assert torch.equal(filled[name], tensor), name
    actions = {row.name: row.action for row in report}
    assert actions["backbone.out_linear2.linear.weight"] == "copied"
    assert actions["backbone.out_linear1.linear.bias"] == "copied"
    assert actions["backbone.in_linear1.linear.weight"] == "sliced"
    row = next(row for row in report if row.name == "backbone.in_linear1.linear.weight")
    assert (row.source_shape, row.student_shape) == ((6, 10), (4, 10))


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_same_sizes_give_the_same_model_under_every_rule(rule):
    teacher, student = model(1, TEACHER), model(2, TEACHER)
    report = transplant(student, teacher, rule, sample=sample_of(teacher))
    assert {row.action for row in report} == {"copied"}
    filled = student.state_dict()
    assert all(torch.equal(filled[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("rule", [r for r in RULES if r.head != "copy"], ids=rule_name)
@pytest.mark.parametrize("blocks", [(), (0, 2)])
def test_every_rule_fills_every_tensor_with_finite_numbers(rule, blocks):
    teacher, student = model(1, TEACHER), model(2, STUDENT)
    rule = dataclasses.replace(rule, blocks=blocks)
    report = transplant(student, teacher, rule, sample=sample_of(teacher))
    assert [row.name for row in report] == list(student.state_dict())
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())
    named = {row.name: row.source_name for row in report}
    expected = f"backbone.fsmn.{2 if blocks else 1}.0.linear.weight"
    assert named["backbone.fsmn.1.0.linear.weight"] == expected


def test_ends_leaves_inner_blocks_out():
    rule = TransplantConfig(blocks="ends")
    assert rule.blocks_for(3, 4) == (0, 1, 3)
    assert rule.blocks_for(2, 6) == (0, 5)
    assert rule.blocks_for(4, 4) == TransplantConfig().blocks_for(4, 4) == (0, 1, 2, 3)
    with pytest.raises(ConfigError, match="no rule pairs"):
        rule.blocks_for(3, 2)


def test_a_block_map_takes_those_blocks():
    teacher, student = model(1, TEACHER), model(2, {**TEACHER, "num_layers": 2})
    transplant(student, teacher, TransplantConfig(blocks=(2, 0)))
    filled, source = student.state_dict(), teacher.state_dict()
    for part in ("0.linear.weight", "1.conv_left.weight", "2.linear.bias"):
        assert torch.equal(filled[f"backbone.fsmn.0.{part}"], source[f"backbone.fsmn.2.{part}"])
        assert torch.equal(filled[f"backbone.fsmn.1.{part}"], source[f"backbone.fsmn.0.{part}"])


def distance(student, teacher, seed=9):
    sample = sample_of(teacher, seed=seed)
    packing = sample.packing(student, teacher)
    with torch.no_grad():
        logits = [m.backbone._classify(sample.rows, packing) for m in (student, teacher)]
        first, second = (x.log_softmax(dim=-1) for x in logits)
    return float((second.exp() * (second - first)).sum(dim=1).mean())


def test_better_rules_come_closer_to_the_teacher_on_unseen_data():
    # Averages over ten teachers: a single tiny one may favour any rule by chance.
    rules = {
        "first": FIRST,
        "least squares": TransplantConfig(
            channels="activation", pairs="svd", compensation="least_squares"
        ),
        "sequential": BEST,
    }
    reached = dict.fromkeys(rules, 0.0)
    for seed in range(10):
        teacher = loud_model(seed, TEACHER)
        sample = sample_of(teacher, num=200)
        for name, rule in rules.items():
            student = model(100 + seed, STUDENT)
            transplant(student, teacher, rule, sample=sample)
            reached[name] += distance(student, teacher) / 10
    order = list(reached.values())
    assert order == sorted(order, reverse=True), reached
    assert reached["sequential"] < 0.35 * reached["first"]


def test_a_copied_head_must_fit():
    teacher, student = model(1, TEACHER), model(2, STUDENT)
    with pytest.raises(DataError, match=r"copy: does not fit:\n  backbone.out_linear1.linear.weig"):
        transplant(student, teacher, TransplantConfig(head="copy"))
    aligned = model(2, STUDENT, linear_dim=8)
    rule = dataclasses.replace(BEST, head="copy")
    report = transplant(aligned, teacher, rule, sample=sample_of(teacher))
    heads = {row.action for row in report if "out_linear" in row.name}
    assert heads == {"copied"}


def test_a_projected_head_can_follow_another_teacher():
    source, teacher = loud_model(1, TEACHER), loud_model(3, TEACHER)
    students = [model(2, STUDENT) for _ in range(2)]
    rule = TransplantConfig(head="project")
    sample = sample_of(source, num=200)
    transplant(students[0], source, rule, sample=sample)
    transplant(students[1], source, rule, sample=sample, teacher=teacher)
    assert distance(students[1], teacher) < distance(students[0], teacher)


def test_a_student_without_right_taps_takes_the_rest():
    student, teacher = model(2, STUDENT, right_order=0), model(1, TEACHER)
    for rule in (FIRST, BEST):
        report = transplant(student, teacher, rule, sample=sample_of(teacher))
        assert not any("conv_right" in row.name for row in report)


def test_source_and_student_share_no_memory():
    teacher, student = model(1, TEACHER), model(2, TEACHER)
    transplant(student, teacher, FIRST)
    with torch.no_grad():
        student.backbone.in_linear1.linear.weight.zero_()
    assert teacher.backbone.in_linear1.linear.weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"num_layers": 4}, ["backbone.fsmn.3.0.linear.weight: the source has no block 3"]),
        (
            {"proj_dim": 9},
            ["fsmn.0.1.conv_left.weight: source (5, 1, 4, 1), student (9, 1, 2, 1)", "larger"],
        ),
        ({"output_dim": 2}, ["out_linear2.linear.weight", "out_linear2.linear.bias", "surgery"]),
        ({"input_dim": 8}, ["in_linear1.linear.weight", "global_cmvn.mean", "same input"]),
        ({"has_cmvn": False}, ["global_cmvn.mean: the source normalises"]),
        ({"left_stride": 2}, ["conv_left.weight: source left_stride 1, student 2"]),
    ],
)
def test_what_cannot_be_filled_is_named_and_nothing_changes(changes, messages):
    student = model(2, STUDENT, **changes)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(DataError) as caught:
        transplant(student, model(1, TEACHER), FIRST)
    for message in messages:
        assert message in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


def test_rules_that_need_data_are_refused_without_a_sample():
    with pytest.raises(ValueError, match="need a sample of training data"):
        transplant(model(2, STUDENT), model(1, TEACHER), BEST)


def test_a_block_map_of_another_depth_is_refused():
    with pytest.raises(DataError, match="transplant.blocks: 3 given, the student has 2"):
        transplant(model(2, STUDENT), model(1, TEACHER), TransplantConfig(blocks=(0, 1, 2)))


@pytest.mark.parametrize(
    "wrong", [{"num_batches": 0}, {"blocks": (-1, 0)}, {"source_dict": "dict.txt"}]
)
def test_a_plan_that_means_nothing_is_refused(wrong):
    with pytest.raises(ConfigError):
        TransplantConfig(**wrong)
