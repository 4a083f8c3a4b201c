import pytest
import torch

from wekws.config import parse_section, to_mapping
from wekws.errors import ConfigError, DataError
from wekws.model.checkpoint import load_model, load_scored_model, load_weights, save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig, ignored_keys, read_model_config
from wekws.yaml_files import write_yaml

BACKBONE = {
    "type": "fsmn",
    "input_affine_dim": 5,
    "num_layers": 2,
    "linear_dim": 6,
    "proj_dim": 4,
    "left_order": 10,
    "right_order": 2,
    "output_affine_dim": 5,
}
CMVN = (torch.arange(10.0), torch.full((10,), 0.5))

# Keys and shapes of a WeKWS checkpoint of these sizes, typed from DESIGN's list.
WEKWS_KEYS = {
    "global_cmvn.mean": (10,),
    "global_cmvn.istd": (10,),
    "backbone.in_linear1.linear.weight": (5, 10),
    "backbone.in_linear1.linear.bias": (5,),
    "backbone.in_linear2.linear.weight": (6, 5),
    "backbone.in_linear2.linear.bias": (6,),
    "backbone.fsmn.0.0.linear.weight": (4, 6),
    "backbone.fsmn.0.1.conv_left.weight": (4, 1, 10, 1),
    "backbone.fsmn.0.1.conv_right.weight": (4, 1, 2, 1),
    "backbone.fsmn.0.2.linear.weight": (6, 4),
    "backbone.fsmn.0.2.linear.bias": (6,),
    "backbone.fsmn.1.0.linear.weight": (4, 6),
    "backbone.fsmn.1.1.conv_left.weight": (4, 1, 10, 1),
    "backbone.fsmn.1.1.conv_right.weight": (4, 1, 2, 1),
    "backbone.fsmn.1.2.linear.weight": (6, 4),
    "backbone.fsmn.1.2.linear.bias": (6,),
    "backbone.out_linear1.linear.weight": (5, 6),
    "backbone.out_linear1.linear.bias": (5,),
    "backbone.out_linear2.linear.weight": (3, 5),
    "backbone.out_linear2.linear.bias": (3,),
}


def model_config(**changes):
    section = {"input_dim": 10, "output_dim": 3, "backbone": BACKBONE}
    return parse_section(ModelConfig, {**section, **changes}, "test")


def saved(tmp_path, **changes):
    config = model_config()
    model = KwsModel(config, CMVN).eval()
    save_weights(model.state_dict(), tmp_path / "7.pt")
    write_yaml(tmp_path / "config.yaml", {"model": {**to_mapping(config), **changes}})
    return model


def test_the_same_weights_make_the_same_file(tmp_path):
    weights = saved(tmp_path).state_dict()
    save_weights(weights, tmp_path / "other.pt")
    assert (tmp_path / "other.pt").read_bytes() == (tmp_path / "7.pt").read_bytes()


def test_keys_and_shapes_are_those_of_wekws():
    state = KwsModel(model_config(), CMVN).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == WEKWS_KEYS


def test_a_wekws_checkpoint_loads_with_its_own_config(tmp_path):
    torch.manual_seed(3)
    state = {name: torch.randn(shape) for name, shape in WEKWS_KEYS.items()}
    torch.save(state, tmp_path / "base.pt")
    section = {
        "cmvn": {"cmvn_file": "gone/global_cmvn", "norm_var": True},
        "input_dim": 10,
        "preprocessing": {"type": "none"},
        "hidden_dim": 128,
        "backbone": BACKBONE,
        "classifier": {"type": "identity", "dropout": 0.1},
        "activation": {"type": "identity"},
    }
    write_yaml(tmp_path / "wekws.yaml", {"optim": "adam", "model": section})
    model = load_model(tmp_path / "base.pt", tmp_path / "wekws.yaml")
    assert model.config.output_dim == 3 and not model.training
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)


def test_saved_and_loaded_gives_the_same_logits(tmp_path):
    model = saved(tmp_path)
    loaded = load_model(tmp_path / "7.pt")
    x = torch.randn(2, 9, 10)
    assert torch.equal(loaded(x), model(x))


def test_every_mismatch_is_listed_with_shapes(tmp_path):
    saved(tmp_path)
    state = load_weights(tmp_path / "7.pt")
    del state["backbone.out_linear1.linear.bias"]
    state["backbone.extra"] = torch.zeros(2, 2)
    state["backbone.in_linear2.linear.weight"] = torch.zeros(6, 9)
    torch.save(state, tmp_path / "7.pt")
    with pytest.raises(DataError) as caught:
        load_model(tmp_path / "7.pt")
    message = str(caught.value)
    assert "7.pt" in message
    assert "missing backbone.out_linear1.linear.bias (5,)" in message
    assert "unexpected backbone.extra (2, 2)" in message
    assert "mismatch backbone.in_linear2.linear.weight: (6, 9), the model has (6, 5)" in message


def test_cmvn_that_the_config_promises_must_be_in_the_checkpoint(tmp_path):
    saved(tmp_path, cmvn={"cmvn_file": "global_cmvn"})
    state = load_weights(tmp_path / "7.pt")
    torch.save({k: v for k, v in state.items() if "cmvn" not in k}, tmp_path / "7.pt")
    with pytest.raises(DataError, match="missing global_cmvn.mean"):
        load_model(tmp_path / "7.pt")


def test_unreadable_checkpoints_are_named(tmp_path):
    with pytest.raises(DataError, match="no such checkpoint"):
        load_weights(tmp_path / "none.pt")
    whole = tmp_path / "whole.pt"
    torch.save({"a": torch.zeros(1000)}, whole)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.read_bytes()[:2000])
    empty = tmp_path / "empty.pt"
    empty.write_bytes(b"")
    other = tmp_path / "other.pt"
    torch.save({"epoch": 3}, other)
    code = tmp_path / "code.pt"
    code.write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    for path in (cut, empty, other, code):
        with pytest.raises(DataError, match=path.name):
            load_weights(path)


def test_a_checkpoint_without_config_asks_for_one(tmp_path):
    saved(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="config.yaml"):
        load_model(tmp_path / "7.pt")


def test_a_config_without_model_is_refused(tmp_path):
    write_yaml(tmp_path / "c.yaml", {"optim": "adam"})
    with pytest.raises(ConfigError, match="no section `model`"):
        read_model_config(tmp_path / "c.yaml")


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="preprocessing.type"):
        model_config(preprocessing={"type": "linear"})
    with pytest.raises(ConfigError, match="backbone.type"):
        model_config(backbone={**BACKBONE, "type": "mdtc"})


def test_keys_without_effect_are_named():
    assert ignored_keys(model_config()) == []
    config = model_config(hidden_dim=64, classifier={"type": "identity", "dropout": 0.5})
    assert ignored_keys(config) == ["hidden_dim", "classifier.dropout"]


def test_a_model_without_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="output_dim is the size of the vocabulary"):
        KwsModel(model_config(output_dim=0))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_weights({"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="b holds numbers that are not finite"):
        load_weights(tmp_path / "x.pt")


def test_scored_posteriors_have_the_temperature_of_the_configuration(tmp_path):
    trained = saved(tmp_path, score_temperature=2.0)
    feats = torch.randn(1, 20, 10)
    with torch.no_grad():
        logits = trained(feats)
        torch.testing.assert_close(load_model(tmp_path / "7.pt")(feats), logits)
        scored = load_scored_model(tmp_path / "7.pt")(feats).softmax(-1)
    torch.testing.assert_close(scored, (logits / 2).softmax(-1))


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_no_temperature(temperature):
    with pytest.raises(ConfigError, match="score_temperature"):
        model_config(score_temperature=temperature)
