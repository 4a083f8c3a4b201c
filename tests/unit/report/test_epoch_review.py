"""FRR of single epochs, from checkpoints to a table, and the choice of the best ones."""

import shutil

import pytest
from test_error_cases import project  # noqa: F401

from wekws.bin import evaluate_epochs
from wekws.errors import ConfigError
from wekws.files import read_json
from wekws.report.epoch_review import EpochScore, best_epochs, chosen_epochs, epoch_blocks
from wekws.yaml_files import read_yaml, write_yaml


def score(epoch, dev_frr, frr, cv_loss=1.0):
    return EpochScore(epoch=epoch, cv_loss=cv_loss, dev_frr=dev_frr, frr=frr)


def test_the_best_are_chosen_on_dev_and_reported_on_the_set():
    scores = [score(e, dev, 0.1 * e) for e, dev in enumerate((0.5, 0.4, 0.1, 0.2, 0.2, 0.3, 0.3))]
    assert [found.epoch for found in best_epochs(scores)] == [2, 3, 4, 5, 6]
    _, text, table = epoch_blocks(scores, "1/h")
    # The mean of 0.2 to 0.6.
    assert (
        "best epochs by FRR on dev: 2, 3, 4, 5, 6. Their mean FRR on the set is 40.0 %" in text.text
    )
    assert [row[0] for row in table.rows] == ["0", "1", "2 *", "3 *", "4 *", "5 *", "6 *"]
    no_dev = [score(0, None, 0.1, cv_loss=3.0), score(1, None, 0.2, cv_loss=2.0)]
    assert best_epochs(no_dev)[0].epoch == 1
    assert "best epochs by cv loss: 1, 0" in epoch_blocks(no_dev, "1/h")[1].text


@pytest.fixture
def run_of_epochs(project, tmp_path):  # noqa: F811
    """Epochs 8 to 11 of the same weights; 8 was of an earlier stage."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "dict.txt", "keywords.txt"):
        shutil.copy(project / "student" / name, run / name)
    for epoch in range(8, 12):
        shutil.copy(project / "student" / "final.pt", run / f"{epoch}.pt")
        info = {"epoch": epoch, "cv_loss": 9.0 - epoch / 2, "stage": "a" if epoch < 9 else "b"}
        write_yaml(run / f"{epoch}.yaml", info)
    lists = tmp_path / "lists"
    for split in ("dev", "test"):
        shutil.copytree(project / "lists", lists / split)
        shutil.copy(lists / split / "utt5.wav", project / "lists" / "utt4.wav")
    return run, lists


def test_a_range_of_epochs_is_scored_drawn_and_the_best_kept(run_of_epochs, capsys):
    run, lists = run_of_epochs
    flags = ["--model_dir", str(run), "--lists", str(lists), "--epochs", "10-11"]
    assert evaluate_epochs.main([*flags, "--device", "cpu", "--budgets", "900"]) == 0
    out = run / "epochs_test"
    assert {path.name for path in out.iterdir()} == {
        "epochs.md", "epochs.html", "epochs.json", "epochs.png",
    }  # fmt: skip
    content = read_json(out / "epochs.json")
    assert [row["epoch"] for row in content["epochs"]] == [10, 11]
    first, second = content["epochs"]
    assert first["frr"] == second["frr"] == first["dev_frr"] == content["mean_frr_of_best"]
    # Equal FRR: the lower cv loss decides.
    assert content["best"] == [11, 10] and read_yaml(run / "best_frr.yaml")["epoch"] == 11
    assert f"{run}/best_frr.pt: epoch 11" in capsys.readouterr().out


def test_epochs_of_earlier_stages_do_not_count(run_of_epochs):
    run, _ = run_of_epochs
    assert chosen_epochs(run, "all") == [9, 10, 11] == chosen_epochs(run, "0-11")
    with pytest.raises(ConfigError, match=r"--epochs 9-8: the first is after the last; .* 8-9\?"):
        chosen_epochs(run, "9-8")
    with pytest.raises(ConfigError, match="--epochs 1-8: no such epoch .* there are 9 to 11"):
        chosen_epochs(run, "1-8")
    with pytest.raises(ConfigError, match="--epochs 0-79: no such epoch .* there are 9 to 11"):
        chosen_epochs(run, "0-79")
    with pytest.raises(ConfigError, match="expected FIRST-LAST"):
        chosen_epochs(run, "last")
