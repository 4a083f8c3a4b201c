"""The graph for WeKWS's runtimes: their names and shapes, and the outputs of WeKWS's own FSMN."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from wekws.dataset.features import expand_context
from wekws.export.graph import delay_frames, kept_frames
from wekws.export.wekws_layout import cache_shape, wekws_graph
from wekws.front_end import FrontEnd
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "wekws_fsmn.txt"
SIZES = FSMNConfig(
    input_affine_dim=5, num_layers=2, linear_dim=6, proj_dim=4,
    left_order=3, right_order=2, output_affine_dim=5,
)  # fmt: skip


def front_end(left, right, skip, mels=4):
    return FrontEnd(
        sample_rate_hz=16000, num_mel_bins=mels, frame_length_ms=25, frame_shift_ms=10,
        left_context=left, right_context=right, frame_skip=skip, expected_dither=0.0,
    )  # fmt: skip


def network(fe):
    torch.manual_seed(0)
    config = ModelConfig(input_dim=fe.input_dim, output_dim=3, backbone=SIZES)
    return KwsModel(config, (torch.zeros(fe.input_dim), torch.ones(fe.input_dim))).eval()


def session(model, fe):
    graph = wekws_graph(model, fe).SerializeToString()
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def run(graph, fbank, sizes, cache):
    rows, place = [], 0
    for size in [*sizes, len(fbank)]:
        part = fbank[None, place : place + size]
        if part.shape[1]:
            out, cache = graph.run(["output", "r_cache"], {"input": part, "cache": cache})
            rows.append(out[0])
        place += size
    return np.concatenate(rows), cache


def golden():
    """Probabilities (20, 3), and the cache (proj, frames, layers) after the last frame."""
    lines = [x for x in GOLDEN.read_text().splitlines() if not x.startswith("#")]
    rows = [np.array(line.split(), np.float32) for line in lines]
    return np.stack(rows[:-1]), rows[-1].reshape(SIZES.proj_dim, -1, SIZES.num_layers)


def golden_model(fe):
    """The weights that WeKWS's FSMN had: sines, tensor by tensor in the order of their names."""
    model = network(fe)
    state = model.state_dict()
    for k, name in enumerate(sorted(state)):
        places = torch.arange(state[name].numel(), dtype=torch.float64)
        values = 0.7 * torch.sin(1.3 * places + 0.7 * k) + name.endswith("istd")
        state[name] = values.float().reshape(state[name].shape)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("sizes", [[], [1] * 41, [7, 2, 1, 20]], ids=str)
def test_outputs_and_cache_are_those_of_wekws_itself(sizes):
    fe = front_end(1, 1, 2)
    frames = torch.arange(41, dtype=torch.float64)[:, None]
    bins = torch.arange(1, 5, dtype=torch.float64)
    fbank = (3 * torch.sin(0.37 * frames * bins) + bins).float().numpy()
    expected, expected_cache = golden()
    dim, length = cache_shape(SIZES, fe)
    model = session(golden_model(fe), fe)
    found, cache = run(model, fbank, sizes, np.zeros((1, dim, length), np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    kept = kept_frames(SIZES)
    for i in range(SIZES.num_layers):
        memory = cache[0, :, i * kept : (i + 1) * kept]
        np.testing.assert_allclose(memory, expected_cache[:, :, i], atol=2e-5)


def test_names_and_shapes_are_those_that_the_runtimes_use():
    fe = front_end(2, 2, 3, mels=80)
    graph = session(network(fe), fe)
    inputs = {value.name: value.shape for value in graph.get_inputs()}
    outputs = {value.name: value.shape for value in graph.get_outputs()}
    # 2 blocks keep 2 + 2 frames of 4 channels; 4 frames of 80 bins and a count fill 81 columns.
    assert inputs == {"input": [1, "T", 80], "cache": [1, 4, 8 + 81]}
    assert outputs == {"output": [1, "U", 3], "r_cache": [1, 4, 8 + 81]}


@pytest.mark.parametrize("context", [(2, 2, 3), (0, 0, 1), (1, 3, 2), (2, 5, 3), (0, 1, 3)])
@pytest.mark.parametrize("sizes", [[], [1] * 90, [2, 3, 1, 50, 1]], ids=["whole", "ones", "mixed"])
def test_away_from_the_start_outputs_are_ours_late(context, sizes):
    fe = front_end(*context)
    model = network(fe)
    fbank = torch.randn(1, 90, 4)
    frames, _ = expand_context(fbank, torch.tensor([90]), fe)
    ours = model(frames)[0].softmax(-1).detach().numpy()
    cache = np.zeros((1, *cache_shape(SIZES, fe)), np.float32)
    late, _ = run(session(model, fe), fbank[0].numpy(), sizes, cache)
    delay, edge = delay_frames(SIZES), SIZES.num_layers * kept_frames(SIZES)
    np.testing.assert_allclose(late[delay + edge :], ours[edge : len(late) - delay], atol=1e-6)
    # Frames whose right context is complete: all but the last ones.
    assert len(late) == len(range(0, 90 - fe.right_context, fe.frame_skip))
