import pytest
import torch

from wekws.bin.surgery import main
from wekws.config import to_mapping
from wekws.dataset.vocabulary import Vocabulary
from wekws.distill.output_surgery import cut_outputs, select_outputs
from wekws.errors import ConfigError, DataError
from wekws.model.checkpoint import load_model, save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.yaml_files import write_yaml

HEAD = "backbone.out_linear2.linear"
BASE = Vocabulary(("<blk>", "<filler>", "A", "B", "C", "D", "E"))
TARGET = Vocabulary(("<blk>", "<filler>", "E", "B"))


def base_model(output_dim=7):
    torch.manual_seed(4)
    backbone = FSMNConfig(
        input_affine_dim=5,
        num_layers=2,
        linear_dim=6,
        proj_dim=4,
        left_order=3,
        right_order=2,
        output_affine_dim=5,
    )
    config = ModelConfig(input_dim=8, output_dim=output_dim, backbone=backbone)
    return KwsModel(config, (torch.ones(8), torch.full((8,), 2.0))).eval()


def test_rows_go_by_token():
    state = base_model().state_dict()
    selected = select_outputs(state, BASE, TARGET)
    rows = [0, 1, 6, 3]
    assert torch.equal(selected[f"{HEAD}.weight"], state[f"{HEAD}.weight"][rows])
    assert torch.equal(selected[f"{HEAD}.bias"], state[f"{HEAD}.bias"][rows])
    others = [name for name in state if HEAD not in name]
    assert all(torch.equal(selected[name], state[name]) for name in others)
    assert set(selected) == set(state)


def test_kept_logits_are_the_base_models():
    model = base_model()
    small = KwsModel(model.config.with_output_dim(4), (torch.zeros(8), torch.ones(8))).eval()
    small.load_weights(select_outputs(model.state_dict(), BASE, TARGET), source="test")
    x, lengths = torch.randn(3, 40, 8), torch.tensor([40, 11, 1])
    kept = model(x, lengths)[:, :, [0, 1, 6, 3]]
    # The products are the same; a matrix of another height may add them up in another order.
    torch.testing.assert_close(small(x, lengths), kept, rtol=1e-6, atol=1e-6)
    exact, small = model.double()(x.double())[:, :, [0, 1, 6, 3]], small.double()
    torch.testing.assert_close(small(x.double()), exact, rtol=1e-14, atol=1e-14)


def test_the_same_vocabulary_changes_nothing():
    state = base_model().state_dict()
    selected = select_outputs(state, BASE, BASE)
    assert all(torch.equal(selected[name], state[name]) for name in state)


def test_the_given_weights_stay_as_they_are():
    state = base_model().state_dict()
    select_outputs(state, BASE, TARGET)[f"{HEAD}.bias"].zero_()
    assert len(state[f"{HEAD}.bias"]) == 7 and state[f"{HEAD}.bias"].abs().sum() > 0


def test_large_to_small_to_smaller_is_large_to_smaller():
    state = base_model().state_dict()
    last = Vocabulary(("<blk>", "<filler>", "B"))
    once = select_outputs(state, BASE, last)
    twice = select_outputs(select_outputs(state, BASE, TARGET), TARGET, last)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_every_token_that_the_source_lacks_is_named():
    wanted = Vocabulary(("<blk>", "<filler>", "嗨", "A", "问"))
    with pytest.raises(DataError, match="lacks 2 of 5 wanted tokens: '嗨' '问'"):
        select_outputs(base_model().state_dict(), BASE, wanted)


def test_a_dictionary_longer_than_the_output_is_refused_where_it_matters():
    state = base_model(output_dim=6).state_dict()  # token E, id 6, has no output
    with pytest.raises(DataError, match="6 outputs, its dictionary 7 tokens.*'E'"):
        select_outputs(state, BASE, TARGET)
    selected = select_outputs(state, BASE, Vocabulary(("<blk>", "<filler>", "D")))
    assert torch.equal(selected[f"{HEAD}.weight"][2], state[f"{HEAD}.weight"][5])


def test_weights_without_output_layer_are_refused():
    with pytest.raises(DataError, match="out_linear2"):
        select_outputs({"backbone.x": torch.zeros(1)}, BASE, TARGET)


@pytest.fixture
def base_dir(tmp_path):
    model = base_model()
    save_weights(model.state_dict(), tmp_path / "base/final.pt")
    content = {"dataset_conf": {"frame_skip": 3}, "model": to_mapping(model.config)}
    write_yaml(tmp_path / "base/config.yaml", content)
    BASE.save(tmp_path / "base/dict.txt")
    TARGET.save(tmp_path / "dict.txt")
    return tmp_path


def cut(base_dir, *more):
    return main(
        [
            *("--checkpoint", str(base_dir / "base/final.pt")),
            *("--source_dict", str(base_dir / "base/dict.txt")),
            *("--dict", str(base_dir / "dict.txt")),
            *("--out_dir", str(base_dir / "cut")),
            *more,
        ]
    )


def test_command_writes_a_model_that_loads_and_prints_what_it_kept(base_dir, capsys):
    (base_dir / "text").write_text("u1 BE\nu2 AB\nu3\n")
    assert cut(base_dir, "--text", str(base_dir / "text")) == 0
    small, base = load_model(base_dir / "cut/init.pt"), load_model(base_dir / "base/final.pt")
    x = torch.randn(1, 5, 8)
    torch.testing.assert_close(small(x), base(x)[:, :, [0, 1, 6, 3]], rtol=1e-6, atol=1e-6)
    assert Vocabulary.load(base_dir / "cut/dict.txt") == TARGET
    assert "frame_skip: 3" in (base_dir / "cut/config.yaml").read_text()
    out = capsys.readouterr().out
    # B, E, B of the 4 tokens; the head loses 3 rows of 5 weights and a bias.
    assert "4 of 7" in out and "75.00% of 4" in out
    num_params = sum(p.numel() for p in base.parameters())
    assert f"{num_params} -> {num_params - 18}" in out


def test_outputs_are_cut_from_python(base_dir):
    cut = cut_outputs(
        base_dir / "base/final.pt",
        source_dict=base_dir / "base/dict.txt",
        dictionary=base_dir / "dict.txt",
        out_dir=base_dir / "cut",
    )
    assert (cut.path, cut.vocabulary) == (base_dir / "cut/init.pt", TARGET)
    assert (cut.before.config.output_dim, cut.after.config.output_dim) == (7, 4)
    x = torch.randn(1, 5, 8)
    assert torch.equal(load_model(cut.path)(x), cut.after(x))


def test_the_lexicon_goes_along(base_dir):
    given, beside = base_dir / "given.txt", base_dir / "base/lexicon.txt"
    given.write_text("BE B E\n")
    written = base_dir / "cut/lexicon.txt"
    cut(base_dir, "--lexicon", str(given))
    assert written.read_text() == "BE B E\n"
    cut(base_dir)
    assert not written.exists()
    beside.write_text("BE E B\n")
    cut(base_dir)
    assert written.read_text() == "BE E B\n"


def test_command_refuses_text_without_tokens(base_dir):
    (base_dir / "text").write_text("u1\n")
    with pytest.raises(DataError, match="no tokens"):
        cut(base_dir, "--text", str(base_dir / "text"))
    assert not (base_dir / "cut").exists()  # found before anything was written


def test_command_refuses_to_overwrite_the_source(base_dir, monkeypatch):
    # As typed beside the model: relative, and by another spelling of the same folder.
    monkeypatch.chdir(base_dir)
    before = {path.name: path.read_bytes() for path in (base_dir / "base").iterdir()}
    for out_dir in ("base", "base/../base", str(base_dir / "base")):
        flags = ["--checkpoint", "base/final.pt", "--source_dict", "base/dict.txt"]
        with pytest.raises(ConfigError, match="name another folder"):
            main([*flags, "--dict", "dict.txt", "--out_dir", out_dir])
    assert before == {path.name: path.read_bytes() for path in (base_dir / "base").iterdir()}
