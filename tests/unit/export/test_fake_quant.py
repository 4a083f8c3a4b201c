"""Fake quantisation in training, against the arithmetic of an exported int8 file."""

import pytest
import torch
import torch.nn.functional as F

from wekws.bin import train
from wekws.dataset.audio import read_audio
from wekws.dataset.features import expand_context, fbank
from wekws.dataset.manifest import read_data_list
from wekws.errors import ConfigError
from wekws.export.exporter import export_checkpoint
from wekws.model.checkpoint import load_model
from wekws.runlog.metrics_reader import read_metrics
from wekws.score.scoring import load_system
from wekws.train.fake_quant import add_fake_quant, round_input, round_weight


def test_rounding_by_hand():
    # Rows in steps of 0.64 / 64 = 0.01 and of 64 / 64 = 1.
    weight = torch.tensor([[0.64, -0.014], [-64.0, 0.4]])
    assert round_weight(weight).tolist() == [pytest.approx([0.64, -0.01]), [-64.0, 0.0]]
    # From -1 to 1.55 there are 255 steps of 0.01.
    x = torch.tensor([-1.0, 0.004, 0.0, 1.55])
    assert round_input(x).tolist() == pytest.approx([-1.0, 0.0, 0.0, 1.55])
    assert round_input(torch.zeros(3)).tolist() == [0, 0, 0] and round_input(x[:0]).numel() == 0


def test_gradients_pass_the_rounding():
    weight = torch.randn(3, 4, requires_grad=True)
    x = torch.randn(5, 4, requires_grad=True)
    (round_weight(weight).sum() + 2 * round_input(x).sum()).backward()
    assert weight.grad.eq(1).all() and x.grad.eq(2).all()


@pytest.fixture(scope="module")
def frames(checkpoint, tone_corpus):
    """Input frames of a recording for calibration, (1, T, 400)."""
    front_end = load_system(checkpoint).dataset_config.front_end
    wav = read_data_list(tone_corpus.dev_list)[0].wav
    feats = fbank(read_audio(wav, front_end.sample_rate_hz), front_end)[None]
    return expand_context(feats, torch.tensor([feats.shape[1]]), front_end)[0]


@torch.inference_mode()
def test_it_predicts_what_int8_does(checkpoint, tone_corpus, frames, tmp_path):
    path = tmp_path / "x.int8.onnx"
    export_checkpoint(checkpoint, path, precision="int8", data_list=tone_corpus.dev_list)
    lengths = torch.tensor([frames.shape[1]])
    int8 = load_system(path).log_probs(frames, lengths).exp()
    model = load_model(checkpoint, checkpoint.parent / "config.yaml").eval()
    exact = model(frames, lengths).softmax(-1)
    add_fake_quant(model)
    rounded = model(frames, lengths).softmax(-1)
    # As far from float32 as int8 is; not the same numbers, for the ranges are those of the batch.
    ratio = float((rounded - exact).abs().mean() / (int8 - exact).abs().mean())
    assert 0.5 < ratio < 2


def test_training_mends_what_rounding_broke(checkpoint, frames):
    """One channel 300 times as large takes the steps of the others; float32 is as before."""
    model = load_model(checkpoint, checkpoint.parent / "config.yaml")
    backbone = model.backbone
    with torch.no_grad():
        target = model(frames).softmax(-1)
        rows = backbone.in_linear2(backbone.in_linear1(model.global_cmvn(frames)))
        channel = int(rows[0].amax(0).argmax())
        backbone.in_linear2.linear.weight[channel] *= 300
        backbone.in_linear2.linear.bias[channel] *= 300
        backbone.blocks[0].layers[0].linear.weight[:, channel] /= 300
        torch.testing.assert_close(model(frames).softmax(-1), target, atol=1e-3, rtol=0)
    add_fake_quant(model)

    def distance():
        return F.kl_div(model(frames).log_softmax(-1)[0], target[0], reduction="batchmean")

    with torch.no_grad():
        before = float(distance())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    for _ in range(40):
        optimizer.zero_grad()
        loss = distance()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for n, p in model.named_parameters() if "linear.weight" in n)
    assert float(loss.detach()) < before / 5


def test_the_flag_of_training(tone_corpus, tmp_path):
    flags = [
        *("--config", str(tone_corpus.config_path), "--dict", str(tone_corpus.dict_path)),
        *("--train_data", str(tone_corpus.train_list), "--cv_data", str(tone_corpus.dev_list)),
        *("--cmvn_file", str(tone_corpus.cmvn_path), "--cache_dir", str(tmp_path / "cache")),
        *("--num_workers", "0", "--num_threads", "1", "--device", "cpu"),
        *("--override", "training_config.max_epoch=1"),
    ]
    losses = {}
    for name, more in (("exact", []), ("rounded", ["--fake_quant"])):
        train.main([*flags, "--model_dir", str(tmp_path / name), *more])
        losses[name] = [row["cv_loss"] for row in read_metrics(tmp_path / name) if "cv_loss" in row]
    # The same start, scored with rounding.
    assert losses["exact"][0] != losses["rounded"][0]
    assert losses["exact"][0] == pytest.approx(losses["rounded"][0], rel=0.1)
    state = torch.load(tmp_path / "rounded/final.pt", weights_only=True)
    assert state.keys() == torch.load(tmp_path / "exact/final.pt", weights_only=True).keys()
    with pytest.raises(ConfigError, match="--fake_quant"):
        train.main([*flags, "--model_dir", str(tmp_path / "rounded"), "--resume"])
