import dataclasses
from pathlib import Path

import pytest
import torch

from wekws.config import load_yaml_with_base
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.model.cost import model_cost
from wekws.model.fold import fold_head, why_larger
from wekws.model.model import KwsModel, num_parameters
from wekws.model.model_conf import FSMNConfig, ModelConfig, read_model_config

CONF = Path(__file__).parents[3] / "conf"
SIZES = FSMNConfig(
    input_affine_dim=5,
    num_layers=2,
    linear_dim=6,
    proj_dim=4,
    left_order=3,
    right_order=1,
    output_affine_dim=4,
)


def model(output_dim=3, has_cmvn=True, **changes):
    torch.manual_seed(3)
    backbone = dataclasses.replace(SIZES, **changes)
    config = ModelConfig(input_dim=10, output_dim=output_dim, backbone=backbone)
    return KwsModel(config, (torch.randn(10), torch.rand(10) + 1) if has_cmvn else None).eval()


def test_a_pair_by_hand():
    # [1 2] after [[1 0], [3 1]] is [7 2]; its bias 1 * 5 + 2 * 7 + 9.
    pair = model(output_dim=1, linear_dim=2, output_affine_dim=2)
    with torch.no_grad():
        pair.backbone.out_linear1.linear.weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 1.0]]))
        pair.backbone.out_linear1.linear.bias.copy_(torch.tensor([5.0, 7.0]))
        pair.backbone.out_linear2.linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        pair.backbone.out_linear2.linear.bias.copy_(torch.tensor([9.0]))
    folded = fold_head(pair).state_dict()
    assert folded["backbone.out_linear2.linear.weight"].tolist() == [[7.0, 2.0]]
    assert folded["backbone.out_linear2.linear.bias"].tolist() == [28.0]
    assert not any("out_linear1" in name for name in folded)


@pytest.mark.parametrize("has_cmvn", [True, False])
def test_logits_stay_and_nothing_is_shared(has_cmvn):
    unfolded = model(has_cmvn=has_cmvn)
    before = {name: tensor.clone() for name, tensor in unfolded.state_dict().items()}
    folded = fold_head(unfolded)
    x, lengths = torch.randn(3, 20, 10), torch.tensor([20, 7, 1])
    logits = unfolded(x, lengths)
    torch.testing.assert_close(folded(x, lengths), logits, rtol=0, atol=1e-5)
    assert folded.config.backbone.is_head_merged and folded.config.output_dim == 3
    again = fold_head(folded)
    assert torch.equal(again(x, lengths), folded(x, lengths))
    with torch.no_grad():
        folded.backbone.in_linear1.linear.weight.zero_()
    assert all(torch.equal(before[name], v) for name, v in unfolded.state_dict().items())


def test_a_merged_head_is_trained_and_counted_as_one_layer():
    merged = model(output_affine_dim=0)
    x = torch.randn(2, 9, 10)
    merged(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in merged.parameters())
    cost = model_cost(merged.config, DatasetConfig().front_end)
    # in 55 + 36, two blocks of 24 + 16 + 30, head 6 * 3 + 3.
    assert list(cost["params_by_part"].values()) == [55, 36, 70, 70, 21]
    assert list(cost["params_by_part"])[-1] == "out_linear2"
    # Weights: 50 + 30 + 2 * (24 + 16 + 24) + 18 a frame of 30 ms.
    assert cost["macs_per_second"] == round(226 / 0.03)
    inner = merged.backbone.inner_out(last_block(merged, x))
    torch.testing.assert_close(merged(x)[0], merged.backbone.out_linear2(inner))


def last_block(network, x):
    """(T, H) output of the last block for the first utterance, taken by a hook."""
    outputs = []
    hook = network.backbone.fsmn[-1][2].register_forward_hook(lambda *call: outputs.append(call[2]))
    network(x)
    hook.remove()
    return outputs[0][: x.shape[1]]


@pytest.mark.parametrize(
    ("name", "num_tokens", "is_larger"),
    [("teacher", 20, False), ("teacher", 319, False), ("teacher", 499, True), ("base", 2599, True)],
)
def test_the_reason_is_given_exactly_where_folding_adds_parameters(name, num_tokens, is_larger):
    config = read_model_config(CONF / f"fsmn_ctc_{name}.yaml").with_output_dim(num_tokens)
    before = KwsModel(config)
    reason = why_larger(config.backbone, num_tokens)
    after = num_parameters(fold_head(before))
    assert (after > num_parameters(before)) is is_larger is bool(reason)
    if is_larger:
        assert f"250 x {num_tokens}" in reason and "140" in reason
    assert why_larger(fold_head(before).config.backbone, num_tokens) == ""


def test_the_narrow_students_have_a_merged_head():
    for name in ("s1", "s2", "s3", "s4", "s5"):
        section = load_yaml_with_base(CONF / f"fsmn_ctc_student_{name}.yaml")["model"]["backbone"]
        assert section["output_affine_dim"] == 0 and section["linear_dim"] == 250
