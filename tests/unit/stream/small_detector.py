"""A detector with random weights."""

import torch
from tones import SMALL_CONFIG

from wekws.front_end import FrontEnd
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.stream.network import Keyword, SpotterModel
from wekws.stream.torch_network import TorchNetwork

FRONT_END = FrontEnd(
    sample_rate_hz=16000, num_mel_bins=80, frame_length_ms=25, frame_shift_ms=10,
    left_context=2, right_context=2, frame_skip=3, expected_dither=1.0,
)  # fmt: skip
TOKENS = ("<blk>", "<filler>", "嗨", "小", "问")


def random_network(front_end=FRONT_END, seed=0, **sizes):
    backbone = FSMNConfig(**{**SMALL_CONFIG["model"]["backbone"], **sizes})
    torch.manual_seed(seed)
    config = ModelConfig(input_dim=front_end.input_dim, output_dim=5, backbone=backbone)
    # Log-mel energies of the audio below: about 8, 3 up and down.
    cmvn = (torch.full((front_end.input_dim,), 8.0), torch.full((front_end.input_dim,), 0.3))
    model = KwsModel(config, cmvn).eval()
    with torch.no_grad():
        model.backbone.out_linear2.linear.weight.mul_(20)  # certain outputs that change
    return TorchNetwork(model, front_end)


def detector(network=None, **keyword):
    """A detector of two keywords with low thresholds, so that it detects a lot."""
    settings = {"threshold": 0.05, "max_duration_s": 0.9, **keyword}
    return SpotterModel(
        network=network or random_network(),
        tokens=TOKENS,
        keywords=(
            Keyword(text="嗨小", tokens=("嗨", "小"), **settings),
            Keyword(text="问问小", tokens=("问", "问", "小"), **settings),
        ),
        refractory_s=0.3,
    )
