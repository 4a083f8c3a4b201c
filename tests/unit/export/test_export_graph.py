"""The streaming graph against the model on whole recordings."""

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wekws.errors import ConfigError
from wekws.export.graph import delay_frames, smallest_form, stream_graph
from wekws.model.cost import state_size
from wekws.model.model import KwsModel, num_parameters
from wekws.model.model_conf import CMVNConfig, FSMNConfig, ModelConfig

SIZES = {
    "input_affine_dim": 5, "num_layers": 2, "linear_dim": 6, "proj_dim": 4,
    "left_order": 3, "right_order": 2, "output_affine_dim": 5,
}  # fmt: skip
SHAPES = [
    {},
    {"right_order": 0},
    {"left_order": 1},
    {"left_stride": 2, "right_stride": 3},
    {"output_affine_dim": 0},
    {"num_layers": 1, "left_order": 1, "right_order": 1},
]


def model(has_cmvn=True, norm_var=True, **changes):
    torch.manual_seed(3)
    backbone = FSMNConfig(**{**SIZES, **changes})
    config = ModelConfig(
        input_dim=7, output_dim=3, backbone=backbone, cmvn=CMVNConfig(norm_var=norm_var)
    )
    return KwsModel(config, (torch.randn(7), torch.rand(7) + 1) if has_cmvn else None).eval()


def session(graph):
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def in_chunks(graph, network, x, lengths, sizes):
    """Log-probabilities (B, T, V) of recordings that go through the graph in chunks."""
    delay = delay_frames(network.config.backbone)
    x = np.concatenate([x, np.zeros((len(x), delay, x.shape[2]), np.float32)], axis=1)
    valid = (np.arange(x.shape[1]) < lengths[:, None]).astype(np.float32)
    state = np.zeros((len(x), state_size(network.config.backbone)), np.float32)
    rows, place = [], 0
    for size in [*sizes, x.shape[1]]:
        part = {"frames": x[:, place : place + size], "valid": valid[:, place : place + size]}
        if part["frames"].shape[1]:
            out, state = graph.run(None, {**part, "state": state})
            rows.append(out)
        place += size
    return np.concatenate(rows, axis=1)[:, delay:]


def check(network, lengths, sizes, graph=None):
    x = torch.randn(len(lengths), max(lengths), 7)
    lengths = torch.tensor(lengths)
    expected = network(x, lengths).log_softmax(-1).detach().numpy()
    graph = graph or session(stream_graph(network))
    found = in_chunks(graph, network, x.numpy(), lengths.numpy(), sizes)
    for row, length in enumerate(lengths.tolist()):
        np.testing.assert_allclose(found[row, :length], expected[row, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_the_graph_is_the_model_for_any_orders_and_batch(changes):
    check(model(**changes), [17, 9, 1], [1, 2, 5, 1])


@pytest.mark.parametrize(("has_cmvn", "norm_var"), [(False, True), (True, False)])
def test_cmvn_is_that_of_the_model(has_cmvn, norm_var):
    check(model(has_cmvn=has_cmvn, norm_var=norm_var), [9], [4])


NETWORK = model()
GRAPH = session(stream_graph(NETWORK))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 9), max_size=30),
)
def test_any_chunks_give_the_outputs_of_the_whole(lengths, sizes):
    check(NETWORK, lengths, sizes, GRAPH)


def test_the_head_is_folded_where_that_is_smaller():
    small = model()
    folded = smallest_form(small)
    assert folded.config.backbone.is_head_merged
    assert num_parameters(folded) < num_parameters(small)
    wide = KwsModel(ModelConfig(input_dim=7, output_dim=99, backbone=FSMNConfig(**SIZES)))
    assert smallest_form(wide) is wide


def test_a_network_without_memory_is_refused():
    with pytest.raises(ConfigError, match="no memory"):
        stream_graph(model(left_order=1, right_order=0))
