"""A checkpoint with random weights, and recordings for it."""

import shutil

import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config


@pytest.fixture(scope="session")
def checkpoint(tone_corpus, tmp_path_factory):
    """avg_2.pt with all that scoring needs beside it; its outputs are certain and change."""
    folder = tmp_path_factory.mktemp("exp")
    shutil.copy(tone_corpus.config_path, folder / "config.yaml")
    shutil.copy(tone_corpus.dict_path, folder / "dict.txt")
    shutil.copy(tone_corpus.keywords_path, folder / "keywords.txt")
    torch.manual_seed(0)
    cmvn = (torch.full((400,), 8.0), torch.full((400,), 0.3))
    model = KwsModel(read_model_config(folder / "config.yaml"), cmvn)
    with torch.no_grad():
        model.backbone.out_linear2.linear.weight.mul_(10)
    save_weights(model.state_dict(), folder / "avg_2.pt")
    return folder / "avg_2.pt"
