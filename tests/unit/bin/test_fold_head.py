"""fold_head: a folder in, a folder out that scores alike."""

import json

import pytest
import torch
from test_scoring_commands import make_list

from wekws.bin import score_ctc
from wekws.bin.fold_head import main
from wekws.config import to_mapping
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.vocabulary import Vocabulary, write_keywords
from wekws.errors import ConfigError
from wekws.model.checkpoint import load_model, save_weights
from wekws.model.fold import fold_checkpoint
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.yaml_files import read_yaml, write_yaml

TOKENS = ("<blk>", "<filler>", *"嗨小问")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "exp"
    Vocabulary(TOKENS).save(folder / "dict.txt")
    write_keywords(folder / "keywords.txt", ["嗨小问"])
    (folder / "run.json").write_text(json.dumps({"num_parameters": 1, "train_data": "d/l"}))
    sizes = (8, 2, 12, 8, 3, 1, 10)
    names = ("input_affine_dim", "num_layers", "linear_dim", "proj_dim", "left_order",
             "right_order", "output_affine_dim")  # fmt: skip
    backbone = FSMNConfig(**dict(zip(names, sizes, strict=True)))
    config = ModelConfig(input_dim=400, output_dim=5, backbone=backbone)
    torch.manual_seed(0)
    save_weights(
        KwsModel(config, (torch.zeros(400), torch.ones(400))).state_dict(), folder / "avg_3.pt"
    )
    sections = {"dataset_conf": DatasetConfig(), "model": config, "optim": "adam"}
    write_yaml(folder / "config.yaml", {k: to_mapping(v) for k, v in sections.items()})
    return folder


def fold(folder, out_dir, *more):
    flags = ["--checkpoint", folder / "avg_3.pt", "--out_dir", out_dir, *more]
    return main([str(flag) for flag in flags])


def test_what_it_writes_scores_like_what_it_was_given(folder, tmp_path, capsys):
    out = tmp_path / "folded"
    assert fold(folder, out) == 0
    # The head was 12 * 10 + 10 and 10 * 5 + 5, now 12 * 5 + 5.
    printed = capsys.readouterr().out
    before = sum(p.numel() for p in load_model(folder / "avg_3.pt").parameters())
    assert f"{before:,} -> {before - 120:,}" in printed and "larger" not in printed
    assert {path.name for path in out.iterdir()} == {
        "folded.pt", "config.yaml", "dict.txt", "keywords.txt", "run.json",
    }  # fmt: skip
    config = read_yaml(out / "config.yaml")
    assert config["model"]["backbone"]["output_affine_dim"] == 0 and config["optim"] == "adam"
    record = json.loads((out / "run.json").read_text())
    assert record["num_parameters"] == before - 120 and record["train_data"] == "d/l"
    assert record["folded_from"].endswith("exp/avg_3.pt")

    make_list(tmp_path / "test", ["嗨小问", "嗨", "问小"])
    confidences = [scores(tmp_path, path) for path in (folder / "avg_3.pt", out / "folded.pt")]
    assert confidences[0] and confidences[0] == pytest.approx(confidences[1], abs=2e-5)


def scores(root, checkpoint):
    result = root / checkpoint.stem
    flags = ["--checkpoint", checkpoint, "--test_data", root / "test" / "data.list"]
    flags += ["--result_dir", result, "--num_workers", 1, "--device", "cpu"]
    assert score_ctc.main([str(flag) for flag in flags]) == 0
    return [float(line.split()[-1]) for line in (result / "score.txt").read_text().splitlines()]


def test_folding_a_head_of_many_tokens_reports_the_growth(folder, tmp_path, capsys):
    model = load_model(folder / "avg_3.pt")
    save_weights(
        KwsModel(model.config.with_output_dim(100)).state_dict(), tmp_path / "big" / "0.pt"
    )
    section = to_mapping(model.config.with_output_dim(100))
    write_yaml(tmp_path / "big" / "config.yaml", {"model": section})
    assert main(["--checkpoint", f"{tmp_path}/big/0.pt", "--out_dir", f"{tmp_path}/out"]) == 0
    printed = capsys.readouterr().out
    assert "folding makes it larger: one affine of 12 x 100" in printed
    assert main(["--checkpoint", f"{tmp_path}/out/folded.pt", "--out_dir", f"{tmp_path}/o2"]) == 0
    assert "merged already" in capsys.readouterr().out


def test_a_checkpoint_is_folded_from_python(folder, tmp_path):
    folded = fold_checkpoint(folder / "avg_3.pt", out_dir=tmp_path / "folded")
    assert folded.path == tmp_path / "folded" / "folded.pt" and folded.why_larger == ""
    x = torch.randn(1, 9, 400)
    assert torch.equal(load_model(folded.path)(x), folded.after(x))
    torch.testing.assert_close(folded.after(x), folded.before(x), rtol=0, atol=1e-5)


def test_the_checkpoints_own_folder_is_not_overwritten(folder):
    with pytest.raises(ConfigError, match="name another folder"):
        fold(folder, folder / ".")
