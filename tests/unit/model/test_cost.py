import dataclasses

import pytest
import torch

from wekws.dataset.dataset_conf import DatasetConfig
from wekws.front_end import FrontEnd
from wekws.model.cost import model_cost
from wekws.model.model import KwsModel, num_parameters
from wekws.model.model_conf import FSMNConfig, ModelConfig

TINY = ModelConfig(
    input_dim=10,
    output_dim=3,
    backbone=FSMNConfig(
        input_affine_dim=5,
        num_layers=2,
        linear_dim=6,
        proj_dim=4,
        left_order=3,
        right_order=1,
        left_stride=2,
        output_affine_dim=5,
    ),
)
# A block: 6*4 projection, 4*(3+1) taps, 4*6 + 6 expansion = 24 + 16 + 30.
PARTS = {
    "in_linear1": 55,
    "in_linear2": 36,
    "fsmn.0": 70,
    "fsmn.1": 70,
    "out_linear1": 35,
    "out_linear2": 18,
}


def test_cost_by_hand():
    cost = model_cost(TINY, DatasetConfig().front_end)
    assert cost["params_by_part"] == PARTS
    assert list(cost["params_by_part"]) == list(PARTS)
    assert cost["params"] == 284
    # Weights without biases: 50 + 30 + 2 * (24 + 16 + 24) + 30 + 15 = 253 a frame of 30 ms.
    assert cost["macs_per_second"] == round(253 / 0.03)
    # Each block reads 4 frames back and 1 ahead: 10 hops of 30 ms; 4 spliced frames; one window.
    assert cost["receptive_field_ms"] == 300 + 40 + 25
    assert cost["lookahead_ms"] == 60 + 20 + 25
    # 284 parameters and 2 * 10 of CMVN. int8: 253 weights; scales for 5 + 6 + 2 * (4 + 4 + 4 + 6)
    # + 5 + 3 = 55 output channels; 31 biases; CMVN.
    assert cost["size_bytes"] == {"fp32": 1216, "fp16": 608, "int8": 253 + 4 * (55 + 31 + 20)}


def test_another_front_end_moves_times_and_macs():
    front_end = FrontEnd(
        sample_rate_hz=16000,
        num_mel_bins=5,
        frame_length_ms=20,
        frame_shift_ms=5,
        left_context=0,
        right_context=1,
        frame_skip=1,
        expected_dither=0.0,
    )
    cost = model_cost(TINY, front_end)
    assert cost["macs_per_second"] == round(253 / 0.005)
    assert cost["receptive_field_ms"] == 50 + 5 + 20
    assert cost["lookahead_ms"] == 10 + 5 + 20


@pytest.mark.parametrize(
    "changes", [{}, {"output_affine_dim": 0}, {"right_order": 0}, {"num_layers": 1}]
)
def test_the_cost_is_that_of_the_network(changes):
    config = dataclasses.replace(TINY, backbone=dataclasses.replace(TINY.backbone, **changes))
    model = KwsModel(config, (torch.zeros(10), torch.ones(10)))
    cost = model_cost(config, DatasetConfig().front_end)
    assert cost["params"] == num_parameters(model)
    tensors = model.state_dict().values()
    assert cost["size_bytes"]["fp32"] == 4 * sum(tensor.numel() for tensor in tensors)
    weights = [tensor for tensor in tensors if tensor.dim() > 1]
    assert cost["macs_per_second"] == round(sum(w.numel() for w in weights) / 0.03)
