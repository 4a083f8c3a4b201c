"""Transplants between models of two output affines and of one."""

import dataclasses
from pathlib import Path

import pytest
import torch
from small_models import MERGED, STUDENT, TEACHER, model, sample_of
from test_transplant import RULES, rule_name

from wekws.config import load_yaml_with_base, parse_section
from wekws.dataset.vocabulary import Vocabulary
from wekws.distill.output_surgery import select_outputs
from wekws.distill.transplant import Sample, TransplantConfig, transplant
from wekws.distill.transplant.head import split_head
from wekws.errors import DataError
from wekws.model.checkpoint import model_of
from wekws.model.fold import fold_head
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config

CONF = Path(__file__).parents[3] / "conf"
HEAD = "backbone.out_linear2.linear"


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_same_sizes_but_for_the_head_give_the_same_function_under_every_rule(rule):
    teacher, student = model(1, TEACHER), model(2, TEACHER, output_affine_dim=0)
    report = transplant(student, teacher, rule, sample=sample_of(teacher))
    assert {row.action for row in report} == {"copied"}
    x = torch.randn(2, 9, 10)
    torch.testing.assert_close(student(x), teacher(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_a_merged_source_fills_two_affines(rule):
    teacher = fold_head(model(1, TEACHER))
    student = model(2, TEACHER)
    transplant(student, teacher, rule, sample=sample_of(teacher))
    x = torch.randn(2, 9, 10)
    torch.testing.assert_close(student(x), teacher(x), rtol=0, atol=1e-5)
    twin = model(2, TEACHER, output_affine_dim=0)
    transplant(twin, teacher, rule, sample=sample_of(teacher))
    assert all(torch.equal(twin.state_dict()[k], v) for k, v in teacher.state_dict().items())


def test_a_merged_head_takes_columns_of_the_folded_matrix():
    teacher, student = model(1, TEACHER), model(2, MERGED)
    transplant(student, teacher, TransplantConfig())
    folded = fold_head(teacher).state_dict()
    filled = student.state_dict()
    assert torch.equal(filled[f"{HEAD}.weight"], folded[f"{HEAD}.weight"][:, :7])
    assert torch.equal(filled[f"{HEAD}.bias"], folded[f"{HEAD}.bias"])


@pytest.mark.parametrize("rule", [r for r in RULES if r.head != "copy"], ids=rule_name)
@pytest.mark.parametrize("sizes", [MERGED, STUDENT], ids=["merged", "pair"])
def test_every_rule_fills_a_smaller_student_from_either_source(rule, sizes):
    for source in (model(1, TEACHER), fold_head(model(1, TEACHER))):
        student = model(2, sizes)
        report = transplant(student, source, rule, sample=sample_of(source))
        assert [row.name for row in report] == list(student.state_dict())
        assert all(torch.isfinite(value).all() for value in student.state_dict().values())


def test_compensation_reaches_a_merged_head():
    # All blocks are the teacher's; only one channel that the head read is dropped, and it is
    # constant: the bias can take it over without loss.
    teacher = model(1, TEACHER)
    with torch.no_grad():
        teacher.backbone.fsmn[2][2].linear.weight[7] = 0.0
        teacher.backbone.fsmn[2][2].linear.bias[7] = 2.0
    student = model(2, TEACHER, linear_dim=7, num_layers=1, output_affine_dim=0)
    rule = TransplantConfig(compensation="mean", blocks=(2,))
    report = transplant(student, teacher, rule, sample=sample_of(teacher))
    assert {row.action for row in report if HEAD in row.name} == {"mean"}
    kept = fold_head(teacher).state_dict()[f"{HEAD}.weight"][:, :7]
    assert torch.equal(student.state_dict()[f"{HEAD}.weight"], kept)


def test_a_copied_head_must_fit_the_folded_one():
    teacher = model(1, TEACHER)
    with pytest.raises(DataError, match=r"does not fit:\n  .*source \(3, 8\), student \(3, 7\)"):
        transplant(model(2, MERGED), teacher, TransplantConfig(head="copy"))
    student = model(2, MERGED, linear_dim=8)
    rule = TransplantConfig(compensation="sequential", head="copy")
    report = transplant(student, teacher, rule, sample=sample_of(teacher))
    assert {row.action for row in report if HEAD in row.name} == {"copied"}


def test_a_projected_merged_head_follows_the_teacher():
    teacher, student = model(1, TEACHER), model(2, MERGED)
    transplant(student, teacher, TransplantConfig())
    sliced = student.state_dict()[f"{HEAD}.weight"].clone()
    report = transplant(
        student, teacher, TransplantConfig(head="project"), sample=sample_of(teacher)
    )
    assert {row.action for row in report if HEAD in row.name} == {"projected"}
    assert not torch.equal(student.state_dict()[f"{HEAD}.weight"], sliced)


def test_a_split_narrower_than_the_tokens_is_the_best_of_its_rank():
    merged = fold_head(model(1, TEACHER, output_dim=5))
    weight = merged.state_dict()[f"{HEAD}.weight"]
    split = split_head(merged, 2).state_dict()
    product = split[f"{HEAD}.weight"] @ split["backbone.out_linear1.linear.weight"]
    lost = torch.linalg.svdvals(weight)[2:].square().sum().sqrt()
    assert float((product - weight).norm()) == pytest.approx(float(lost), rel=1e-4)


def test_outputs_of_a_merged_head_go_by_token():
    base = Vocabulary(("<blk>", "<filler>", "A", "B", "C"))
    target = Vocabulary(("<blk>", "<filler>", "C"))
    whole = model(1, MERGED, output_dim=5)
    state = select_outputs(whole.state_dict(), base, target)
    small = model_of(whole.config.with_output_dim(3), state, source="test")
    x = torch.randn(2, 9, 10)
    torch.testing.assert_close(small(x), whole(x)[..., [0, 1, 4]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["s1", "s5"])
def test_the_shipped_overlay_fits_the_shipped_students(name):
    section = load_yaml_with_base(CONF / "overlays" / "transplant.yaml")["transplant"]
    config = parse_section(TransplantConfig, section, "transplant")
    torch.manual_seed(0)
    cmvn = (torch.zeros(400), torch.ones(400))
    teacher = KwsModel(read_model_config(CONF / "fsmn_ctc_teacher.yaml"), cmvn)
    student = KwsModel(read_model_config(CONF / f"fsmn_ctc_student_{name}.yaml"), cmvn)
    sample = Sample.of(teacher, [(torch.randn(4, 100, 400), torch.full((4,), 100))])
    report = transplant(student, teacher, dataclasses.replace(config, num_batches=1), sample=sample)
    assert {row.action for row in report if HEAD in row.name} == {"projected"}
    assert {row.source_name.split(".")[2] for row in report if ".fsmn." in row.name} == {
        "0", "1", "3",
    }  # fmt: skip
