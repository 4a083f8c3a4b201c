"""Training from shards and without a cache, through the command."""

import pytest
import torch
from test_loop import same_weights, with_flag

from wekws.bin import make_shards, train
from wekws.runlog.metrics_reader import read_metrics


@pytest.mark.parametrize("source", ["shards", "audio"])
def test_a_run_learns_and_resumes_to_the_same_weights(
    source, train_arguments, tone_corpus, tmp_path
):
    flags = [*train_arguments, "--override", "dataset_conf.cache=none"]
    if source == "shards":
        made = ("--data_list", tone_corpus.train_list, "--out_dir", tmp_path / "shards")
        assert make_shards.main([*map(str, made), "--shard_size", "6"]) == 0
        flags = with_flag(flags, "--train_data", tmp_path / "shards" / "data.list")
    whole, halves = tmp_path / "whole", tmp_path / "halves"

    def run(folder, num_epochs, *more):
        length = ("--override", f"training_config.max_epoch={num_epochs}")
        return train.main([*flags, "--model_dir", str(folder), *length, *more])

    assert run(whole, 4) == 0
    assert run(halves, 2) == 0
    assert run(halves, 4, "--resume") == 0
    assert same_weights(whole / "final.pt", halves / "final.pt")
    rows = [row for row in read_metrics(whole) if row["kind"] == "cv"]
    assert rows[-1]["cv_loss"] < 0.7 * rows[0]["cv_loss"]
    assert not (tmp_path / "cache").exists()
    weights = torch.load(whole / "final.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())
