import pytest
import torch
from small_models import tiny_model

from wekws.distill.taps import forward_tapped, tap_widths
from wekws.errors import ConfigError


def test_features_of_a_block_are_its_rectified_output_on_valid_frames_alone():
    network = tiny_model(num_layers=1)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    output = forward_tapped(network, x, lengths, ["backbone.fsmn.0.2"])
    rows = output.features["backbone.fsmn.0.2"]
    assert rows.shape == (7, 10) and rows.min() == 0.0 and rows.max() > 0.0
    logits = network.backbone.out_linear2(network.backbone.out_linear1(rows))
    torch.testing.assert_close(logits[5:], output.logits[1, :2])
    assert not network.backbone.fsmn[0][2]._forward_hooks


def test_bfloat16_gives_features_of_the_same_frames():
    network, path = tiny_model(num_layers=1), "backbone.fsmn.0.2"
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    exact = forward_tapped(network, x, lengths, [path]).features[path]
    with torch.autocast("cpu", torch.bfloat16):
        rough = forward_tapped(network, x, lengths, [path]).features[path]
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.02)


def test_no_hook_is_left_after_an_error():
    network = tiny_model(num_layers=1)
    with pytest.raises(RuntimeError):
        forward_tapped(network, torch.zeros(1, 2, 3), torch.tensor([2]), ["backbone.fsmn.0.2"])
    assert not network.backbone.fsmn[0][2]._forward_hooks


def test_widths_and_paths_that_are_no_layer():
    network = tiny_model(num_layers=1)
    widths = tap_widths(network, ["backbone.in_linear2", "backbone.fsmn.0.0"], "student")
    assert widths == {"backbone.in_linear2": 10, "backbone.fsmn.0.0": 6}
    with pytest.raises(ConfigError, match="student: no module fsmn.9"):
        tap_widths(network, ["fsmn.9"], "student")
    with pytest.raises(ConfigError, match="teacher: backbone.fsmn.0 is no layer with an output"):
        tap_widths(network, ["backbone.fsmn.0"], "teacher")
