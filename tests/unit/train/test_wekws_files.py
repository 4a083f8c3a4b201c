"""Configurations of earlier WeKWS are read; WeKWS builds the models of our run folders."""

import itertools
import re
from pathlib import Path

import pytest
import torch

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.errors import ConfigError
from wekws.model.checkpoint import load_weights
from wekws.model.cmvn import load_cmvn
from wekws.train.train_config import load_train_config
from wekws.yaml_files import read_yaml

WEKWS_OF_2023 = """
dataset_conf:
    filter_conf: {max_length: 2048, min_length: 0}
    resample_conf: {resample_rate: 16000}
    speed_perturb: false
    feature_extraction_conf:
        feature_type: 'fbank'
        num_mel_bins: 80
        frame_shift: 10
        frame_length: 25
        dither: 0.5
    context_expansion: true
    context_expansion_conf: {left: 2, right: 2}
    frame_skip: 3
    spec_aug: false
    shuffle: true
    shuffle_conf: {shuffle_size: 1500}
    batch_conf: {batch_size: 256}
model:
    input_dim: 400
    output_dim: 5
    preprocessing: {type: none}
    hidden_dim: 128
    backbone: {type: fsmn, input_affine_dim: 140, num_layers: 4, linear_dim: 250, proj_dim: 128,
        left_order: 10, right_order: 2, left_stride: 1, right_stride: 1, output_affine_dim: 140}
    classifier: {type: identity, dropout: 0.1}
    activation: {type: identity}
optim: adam
optim_conf: {lr: 0.001, weight_decay: 0.0001}
training_config: {grad_clip: 5, max_epoch: 80, log_interval: 10, criterion: ctc}
"""


def test_a_configuration_of_wekws_before_february_2025(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(WEKWS_OF_2023)
    config = load_train_config(path)
    assert config.dataset_conf == load_dataset_config(path)
    assert config.dataset_conf.fbank_conf.dither == 0.5
    assert config.dataset_conf.front_end.input_dim == 400
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("dataset_conf: {fbank_conf: {dither: 0.1}}\n")
    fbank = load_train_config(path, overlays=[overlay]).dataset_conf.fbank_conf
    assert (fbank.dither, fbank.num_mel_bins) == (0.1, 80)
    path.write_text(WEKWS_OF_2023.replace("num_mel_bins: 80", "num_mel_bins: many"))
    with pytest.raises(ConfigError, match=r"config\.yaml: dataset_conf\.fbank_conf\.num_mel_bins"):
        load_train_config(path)


def wekws_cmvn(path):
    """The rules by which WeKWS reads a CMVN file whose name contains `kaldi`."""
    assert "kaldi" in path
    lines, found, copies = Path(path).read_text().splitlines(keepends=True), {}, 0
    for line, following in itertools.pairwise(lines):
        for name in ("AddShift", "Rescale", "Splice"):
            if name in line:
                words = line.strip().split(" ")
                values = re.findall(r"[\[](.*?)[\]]", following)[0].strip().split(" ")
                assert len(words) == 3
                found[name] = [float(value) for value in values]
                if name == "Splice":
                    assert len(values) * int(words[2]) == int(words[1])
                    copies = len(values)
                else:
                    assert len(values) == int(words[1])
    return [-value for value in found["AddShift"]] * copies, found["Rescale"] * copies


def test_wekws_builds_the_model_of_a_run_folder(teacher):
    """Its model has CMVN buffers only where config.yaml names a file, of the size in that file."""
    config = read_yaml(teacher / "config.yaml")["model"]
    needed = {"cmvn", "input_dim", "output_dim", "hidden_dim", "preprocessing", "backbone"}
    assert needed | {"classifier", "activation"} <= config.keys()
    assert config["cmvn"]["norm_var"] is True and config["classifier"]["dropout"] == 0.1
    mean, istd = wekws_cmvn(config["cmvn"]["cmvn_file"])
    weights = load_weights(teacher / "final.pt")
    assert torch.equal(torch.tensor(mean), weights["global_cmvn.mean"])
    assert torch.equal(torch.tensor(istd), weights["global_cmvn.istd"])
    assert len(mean) == config["input_dim"]
    own = load_cmvn(config["cmvn"]["cmvn_file"], config["input_dim"])
    assert torch.equal(own[0], weights["global_cmvn.mean"])
