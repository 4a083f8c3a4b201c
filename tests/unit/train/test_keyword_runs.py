"""The keyword term through the training commands, on the tones."""

import os
import statistics
import subprocess
import sys

import pytest
import torch

from wekws.bin import train, train_distill
from wekws.errors import ConfigError
from wekws.runlog.metrics_reader import read_metrics
from wekws.train.epoch_checkpoint import STATE_NAME

OVERLAY = ("--overlay", "conf/overlays/keyword.yaml")


def cv_rows(model_dir):
    return [row for row in read_metrics(model_dir) if row["kind"] == "cv"]


def test_the_overlay_separates_the_keyword_from_its_parts(train_arguments, tmp_path):
    settings = ["dataset_conf.batch_conf.batch_size=4", "dataset_conf.spec_aug=false"]
    settings += ["optim_conf.lr=0.007", "training_config.max_epoch=20"]
    flags = [*train_arguments, *OVERLAY, *(x for s in settings for x in ("--override", s))]
    assert train.main([*flags, "--model_dir", str(tmp_path / "run")]) == 0
    rows = cv_rows(tmp_path / "run")
    assert all({"cv_keyword", "cv_miss_rate", "cv_miss_rate_嗨小问"} <= row.keys() for row in rows)
    gaps = [row["keyword_positive"] - row["keyword_negative"] for row in rows[1:]]
    assert gaps[-1] > gaps[0] + 0.3
    assert rows[-1]["train_keyword"] < 0.4 * rows[1]["train_keyword"]
    # Of eight positives; an epoch of these few steps may miss some again.
    assert rows[1]["keyword_misses"] > 0.8
    assert statistics.fmean(row["keyword_misses"] for row in rows[-5:]) < 0.2
    steps = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "step"]
    assert all("weighted_keyword" in row for row in steps)


def test_beside_a_teacher(train_arguments, teacher, tmp_path):
    flags = [*train_arguments, *OVERLAY, "--override", "training_config.max_epoch=1"]
    flags += ["--teacher_checkpoint", str(teacher / "final.pt"), "--model_dir", str(tmp_path / "x")]
    assert train_distill.main(flags) == 0
    row = cv_rows(tmp_path / "x")[-1]
    assert {"train_keyword", "train_kd", "cv_keyword", "cv_kd"} <= row.keys()


def test_a_run_without_keywords_is_refused(train_arguments, tmp_path):
    place = train_arguments.index("--keywords_file")
    flags = [*train_arguments[:place], *train_arguments[place + 2 :], *OVERLAY]
    with pytest.raises(ConfigError, match="give --keywords_file"):
        train.main([*flags, "--model_dir", str(tmp_path / "run")])


def test_mining_in_two_processes_is_that_of_one(train_arguments, tmp_path):
    settings = ["dataset_conf.spec_aug=false", "keyword_conf={weight: 1.0, mined_share: 0.1}"]
    flags = [*train_arguments, *(x for s in settings for x in ("--override", s)), "--model_dir"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert train.main([*flags, str(one)]) == 0
    launcher = [sys.executable, "-m", "wekws.bin.launch", "2"]
    done = subprocess.run(
        [*launcher, "-m", "wekws.bin.train", *flags, str(two)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    mined = [
        torch.load(d / STATE_NAME, weights_only=True)["hooks"]["hard_negatives"]["mined"]
        for d in (one, two)
    ]
    assert torch.equal(*mined) and len(mined[0]) == 2
    for a, b in zip(cv_rows(one), cv_rows(two), strict=True):
        assert a["cv_loss"] == pytest.approx(b["cv_loss"], rel=1e-3)
        assert a["cv_keyword"] == pytest.approx(b["cv_keyword"], rel=1e-3)
