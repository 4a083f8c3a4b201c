"""Long recordings through score_list, piece by piece, against the same recordings as a whole."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from tones import SMALL_CONFIG

from wekws.dataset import features
from wekws.dataset.manifest import Utterance, write_data_list
from wekws.errors import DataError
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config
from wekws.score import scoring
from wekws.score.scores import read_score_info, read_timed_events
from wekws.yaml_files import write_yaml

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with random weights, and recordings of 0.5, 4 and 6 s."""
    root = tmp_path_factory.mktemp("long")
    write_yaml(root / "config.yaml", SMALL_CONFIG)
    tokens = ["<blk>", "<filler>", "嗨", "小", "问"]
    rows = "".join(f"{token} {i}\n" for i, token in enumerate(tokens))
    (root / "dict.txt").write_text(rows, encoding="utf-8")
    (root / "keywords.txt").write_text("嗨小问\n小问问\n", encoding="utf-8")
    torch.manual_seed(0)
    cmvn = torch.full((400,), 8.0), torch.full((400,), 0.3)
    model = KwsModel(read_model_config(root / "config.yaml"), cmvn)
    with torch.no_grad():
        model.backbone.out_linear2.linear.weight.mul_(10)
    save_weights(model.state_dict(), root / "final.pt")
    rng = np.random.default_rng(0)
    utterances = []
    for key, seconds in (("a", 0.5), ("b", 4.0), ("c", 6.0)):
        path = root / f"{key}.wav"
        levels = np.repeat(10 ** rng.uniform(-3, -1, round(10 * seconds)), RATE // 10)
        soundfile.write(path, levels * rng.standard_normal(len(levels)), RATE)
        utterances.append(Utterance(key=key, wav=str(path), txt="嗨小问", duration=seconds))
    write_data_list(root / "data.list", utterances)
    return root


def scored(folder, name, **options):
    scoring.score_list(
        folder / "final.pt", folder / "data.list", folder / name, refractory_s=0.3,
        cache_dir=folder / f"{name}_cache", **options,
    )  # fmt: skip
    return read_timed_events(folder / name), read_score_info(folder / name)


@pytest.mark.parametrize(
    "options", [{}, {"max_duration_s": 0}, {"decoder": "prefix_beam"}], ids=["auto", "0", "beam"]
)
@pytest.mark.parametrize("longest_s", [1.0, 0.1])
def test_pieces_give_the_same_events(folder, monkeypatch, options, longest_s):
    expected, info = scored(folder, "whole", **options)
    assert sum(map(len, expected.values())) >= (0 if "decoder" in options else 3)
    monkeypatch.setattr(scoring, "LONG_S", longest_s)
    # Pieces of 0.5 s go through the model.
    monkeypatch.setattr(features, "_PIECE_FRAMES", 50)
    found, long_info = scored(folder, "pieces", **options)
    assert found.keys() == expected.keys()
    for place, events in expected.items():
        assert [(e.start_s, e.end_s) for e in found[place]] == [
            (e.start_s, e.end_s) for e in events
        ]
        np.testing.assert_allclose(
            [e.confidence for e in found[place]], [e.confidence for e in events], atol=2e-5
        )
    same = ("utterances", "hours", "audio", "not_scored")
    assert [long_info[name] for name in same] == [info[name] for name in same]
    # What is long is not in the cache; if all is, there is no cache.
    assert (folder / "pieces_cache").exists() == (longest_s == 1.0)
    if longest_s == 1.0:
        (meta,) = (folder / "pieces_cache").glob("*/offsets.npy")
        assert np.diff(np.load(meta)).tolist() == [48]
        shutil.rmtree(folder / "pieces_cache")


def test_a_damaged_long_recording_is_named(folder, monkeypatch, tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes((folder / "c.wav").read_bytes()[:-1000])
    utterance = Utterance(key="cut", wav=str(path), txt="嗨小问", duration=6.0)
    write_data_list(tmp_path / "data.list", [utterance])
    monkeypatch.setattr(scoring, "LONG_S", 1.0)
    with pytest.raises(DataError, match=r"cut.wav: .* bytes of samples"):
        scoring.score_list(folder / "final.pt", tmp_path / "data.list", tmp_path / "out")
