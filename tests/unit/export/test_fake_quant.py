"""Fake quantisation in training, against the arithmetic of an exported int8 file."""

import argparse

import pytest
import torch
import torch.nn.functional as F

from wekws.bin import train, train_distill
from wekws.bin.train_flags import add_train_flags, train_options
from wekws.dataset.audio import read_audio
from wekws.dataset.features import expand_context, fbank
from wekws.dataset.manifest import read_data_list
from wekws.errors import ConfigError
from wekws.export.exporter import export_checkpoint
from wekws.model.checkpoint import load_model
from wekws.runlog.metrics_reader import read_metrics
from wekws.score.system import load_system
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


@pytest.fixture
def train_flags(checkpoint, tone_corpus, tmp_path):
    """Flags of a training of one epoch that starts from the checkpoint."""
    return [
        *("--config", str(tone_corpus.config_path), "--dict", str(tone_corpus.dict_path)),
        *("--train_data", str(tone_corpus.train_list), "--cv_data", str(tone_corpus.dev_list)),
        *("--cache_dir", str(tmp_path / "cache"), "--checkpoint", str(checkpoint)),
        *("--num_workers", "0", "--num_threads", "1", "--device", "cpu"),
        *("--override", "training_config.max_epoch=1"),
    ]


def test_the_flag_of_training(train_flags, tmp_path):
    flags, losses = train_flags, {}
    for name, more in (("exact", []), ("rounded", ["--fake_quant"])):
        train.main([*flags, "--model_dir", str(tmp_path / name), *more])
        losses[name] = [row["cv_loss"] for row in read_metrics(tmp_path / name) if "cv_loss" in row]
    # The same start, scored with rounding.
    assert losses["exact"][0] != losses["rounded"][0]
    assert losses["exact"][0] == pytest.approx(losses["rounded"][0], rel=0.1)
    state = torch.load(tmp_path / "rounded/final.pt", weights_only=True)
    assert state.keys() == torch.load(tmp_path / "exact/final.pt", weights_only=True).keys()
    with pytest.raises(ConfigError, match="--fake_quant"):
        same_rate = ["--override", "optim_conf.lr=0.0001"]
        train.main([*flags, *same_rate, "--model_dir", str(tmp_path / "rounded"), "--resume"])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--fake_quant"], 1e-4),
        (["--fake_quant", "--override", "optim_conf.lr=0.0005"], 5e-4),
        (["--fake_quant", "--overlay", "conf/overlays/recipe.yaml"], 1e-4),
        (["--overlay", "conf/overlays/recipe.yaml"], 2e-3),
    ],
)
def test_fine_tuning_has_a_low_learning_rate(train_flags, tmp_path, more, expected):
    parser = argparse.ArgumentParser()
    add_train_flags(parser)
    args = parser.parse_args([*train_flags, "--model_dir", str(tmp_path / "x"), *more])
    assert train_options(args).config.optim_conf.lr == expected


def test_a_model_to_fine_tune_is_needed(train_flags, checkpoint, tmp_path):
    place = train_flags.index("--checkpoint")
    flags = [*train_flags[:place], *train_flags[place + 2 :], "--model_dir", str(tmp_path / "x")]
    teacher = ["--teacher_checkpoint", str(checkpoint)]
    for main, more in (
        (train.main, []),
        (train_distill.main, teacher),
        (train_distill.main, [*teacher, "--init_from_teacher"]),
    ):
        with pytest.raises(ConfigError, match="--fake_quant: fine-tunes .* add --checkpoint"):
            main([*flags, *more, "--fake_quant"])
