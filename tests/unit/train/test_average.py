import pytest
import torch

from wekws.bin import average_model
from wekws.errors import ConfigError, DataError
from wekws.train.average import average_states, choose_epochs
from wekws.train.epoch_checkpoint import best_first, save_final
from wekws.yaml_files import read_yaml, write_yaml


@pytest.fixture
def model_dir(tmp_path):
    for epoch, loss in ((8, 3.0), (9, 1.0), (10, 2.0), (11, 4.0)):
        weights = {"w": torch.tensor([float(epoch), 0.0]), "n": torch.tensor(epoch)}
        torch.save(weights, tmp_path / f"{epoch}.pt")
        write_yaml(tmp_path / f"{epoch}.yaml", {"epoch": epoch, "lr": 0.1, "cv_loss": loss})
    write_yaml(tmp_path / "config.yaml", {})
    write_yaml(tmp_path / "12.yaml", {"epoch": 12, "cv_loss": 0.0})  # its weights are missing
    return tmp_path


def test_last_and_best_epochs_single_digits_included(model_dir):
    assert choose_epochs(model_dir, 3, is_best=False) == [9, 10, 11]
    assert choose_epochs(model_dir, 3, is_best=True) == [8, 9, 10]


def test_weights_without_their_figures_are_left_out_and_named(model_dir, caplog):
    (model_dir / "10.yaml").unlink()
    assert choose_epochs(model_dir, 3, is_best=False) == [8, 9, 11]
    assert "10.pt: no 10.yaml beside it; the epoch is left out" in caplog.text


def test_stages_and_depths_are_never_mixed(model_dir):
    """The best two by cv loss, 9 and 10, were of a stage without distillation."""
    for epoch, stage in ((8, "task"), (9, "task"), (10, "task"), (11, "distil"), (12, "distil")):
        info = {"epoch": epoch, "cv_loss": 5.0 - epoch / 10 if epoch > 10 else 1.0, "stage": stage}
        write_yaml(model_dir / f"{epoch}.yaml", info)
    torch.save({"w": torch.tensor([1.0, 0.0]), "n": torch.tensor(1)}, model_dir / "12.pt")
    assert choose_epochs(model_dir, 2, is_best=True) == [11, 12]
    assert best_first(model_dir) == [12, 11]
    with pytest.raises(DataError, match="holds 2 epoch .*, and 3 of earlier stages"):
        choose_epochs(model_dir, 3, is_best=False)
    write_yaml(model_dir / "11.yaml", {"epoch": 11, "cv_loss": 0.1, "stage": "distil",
                                       "num_layers": 2})  # fmt: skip
    assert choose_epochs(model_dir, 1, is_best=True) == [12]


def test_best_is_a_copy_of_the_epoch_of_lowest_cv_loss(model_dir):
    save_final(model_dir, 11)
    assert read_yaml(model_dir / "best.yaml")["epoch"] == 9
    assert torch.load(model_dir / "best.pt", weights_only=True)["w"].tolist() == [9.0, 0.0]
    assert read_yaml(model_dir / "final.yaml")["epoch"] == 11


@pytest.mark.parametrize("num", [0, 5])
def test_fewer_than_asked_is_refused(model_dir, num):
    with pytest.raises(DataError, match=f"holds 4 epoch checkpoints.*asked to average {num}"):
        choose_epochs(model_dir, num, is_best=True)


def test_floats_are_averaged_in_double_and_counters_are_the_newests():
    # In float32 the sum 2**24 + 1 + 1 loses both ones.
    values = [(2.0**24, 3), (1.0, 4), (1.0, 5)]
    states = [{"w": torch.tensor([value]), "n": torch.tensor(n)} for value, n in values]
    mean = average_states(states, ["a", "b", "c"])
    assert mean["w"].dtype == torch.float32 and mean["n"].dtype == torch.int64
    assert mean["w"].item() == torch.tensor((2.0**24 + 2) / 3, dtype=torch.float32).item()
    assert mean["n"].item() == 5


def test_other_models_are_refused_by_name():
    with pytest.raises(DataError, match="a and b are of different models: v, w"):
        average_states([{"w": torch.zeros(1)}, {"w": torch.zeros(2), "v": torch.zeros(1)}], "ab")


def test_the_command_says_which_epochs_went_in(model_dir, capsys):
    target = model_dir / "avg_2.pt"
    flags = ["--dst_model", str(target), "--src_path", str(model_dir), "--num", "2", "--val_best"]
    assert average_model.main(flags) == 0
    assert "mean of epochs 9, 10 (best by cv_loss)" in capsys.readouterr().out
    assert torch.load(target, weights_only=True)["w"].tolist() == [9.5, 0.0]
    assert read_yaml(target.with_suffix(".yaml"))["averaged_epochs"] == [9, 10]


@pytest.mark.parametrize("name", ["9.pt", "final.pt"])
def test_an_average_does_not_replace_a_checkpoint_of_the_run(model_dir, name):
    before = (model_dir / "9.pt").read_bytes()
    with pytest.raises(ConfigError, match=f"{name}: is an input too"):
        average_model.main(["--src_path", str(model_dir), "--dst_model", str(model_dir / name),
                            "--num", "2"])  # fmt: skip
    assert (model_dir / "9.pt").read_bytes() == before


def test_an_epoch_whose_loss_is_not_a_number_is_named(model_dir):
    write_yaml(model_dir / "9.yaml", {"epoch": 9, "cv_loss": float("nan")})
    with pytest.raises(DataError, match=r"9\.yaml: cv_loss is nan.*leave epoch 9 out"):
        choose_epochs(model_dir, 2, is_best=True)
