"""The loop through its two commands, on a corpus of tones."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from wekws.bin import train, train_distill
from wekws.errors import PEER_LOST, ConfigError, DataError
from wekws.files import hold_folder
from wekws.model.model_conf import read_model_config
from wekws.runlog.metrics_reader import read_metrics
from wekws.yaml_files import read_yaml, write_yaml


def weights_of(path):
    return torch.load(path, weights_only=True)


def same_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_training_learns_and_leaves_what_wekws_users_expect(teacher):
    for name in ("0.pt", "0.yaml", "11.pt", "final.pt", "config.yaml", "dict.txt", "run.json"):
        assert (teacher / name).exists(), name
    assert same_weights(teacher / "final.pt", teacher / "11.pt")
    info = read_yaml(teacher / "11.yaml")
    assert info["epoch"] == 11 and info["lr"] == 0.005
    rows = [row for row in read_metrics(teacher) if row["kind"] == "cv"]
    assert [row["epoch"] for row in rows] == [-1, *range(12)]
    assert rows[-1]["cv_loss"] < 0.5 * rows[0]["cv_loss"]
    assert info["cv_loss"] == rows[-1]["cv_loss"]
    steps = [row for row in read_metrics(teacher) if row["kind"] == "step"]
    fields = {"epoch", "step", "ctc", "loss", "lr", "grad_norm", "utt_per_s", "eta_s"}
    assert fields <= steps[0].keys()
    assert json.loads((teacher / "run.json").read_text())["num_train"] == 20


def test_the_cv_loss_is_of_tokens_that_training_has(train_arguments, tone_corpus, tmp_path, caplog):
    lines = tone_corpus.dev_list.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[-1]) | {"key": "unknown", "txt": "嗨 小 天 气"}
    (tmp_path / "dev").mkdir()
    dev_list = tmp_path / "dev" / "data.list"
    dev_list.write_text("\n".join([*lines, json.dumps(row)]) + "\n", encoding="utf-8")
    losses = []
    with caplog.at_level("INFO"):
        for name, cv_list in (("plain", tone_corpus.dev_list), ("unknown", dev_list)):
            more = ["--cv_data", str(cv_list), "--model_dir", str(tmp_path / name)]
            more += ["--override", "training_config.max_epoch=1"]
            assert train.main([*train_arguments, *more]) == 0
            losses.append(
                [r["cv_loss"] for r in read_metrics(tmp_path / name) if r["kind"] == "cv"]
            )
    assert f"{dev_list}: 1 left out: a token unseen in training" in caplog.text
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    # What tells a run to resume from another is the whole list, as before.
    assert json.loads((tmp_path / "unknown" / "run.json").read_text())["num_cv"] == len(lines) + 1
    dev_list.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="every utterance has a token unseen in training"):
        train.main(
            [*train_arguments, "--cv_data", str(dev_list), "--model_dir", str(tmp_path / "x")]
        )


def distill_flags(train_arguments, teacher, model_dir, *more):
    return [
        *train_arguments,
        *("--teacher_checkpoint", str(teacher / "final.pt"), "--model_dir", str(model_dir)),
        *more,
    ]


def test_a_same_size_transplant_starts_at_the_teachers_level(train_arguments, teacher, tmp_path):
    model_dir = tmp_path / "student"
    flags = distill_flags(train_arguments, teacher, model_dir, "--init_from_teacher")
    assert train_distill.main([*flags, "--override", "training_config.max_epoch=1"]) == 0
    rows = read_metrics(model_dir)
    start = next(row for row in rows if row["kind"] == "cv" and row["epoch"] == -1)
    reference = next(row for row in rows if row["kind"] == "teacher")
    assert start["cv_loss"] == pytest.approx(reference["cv_loss"], rel=1e-6)
    assert start["cv_kd"] == pytest.approx(0.0, abs=1e-5)
    gap = next(row for row in rows if row["kind"] == "start")
    assert gap["epoch"] == -1 and gap["random"] > gap["teacher"]
    assert gap["gap_closed"] == pytest.approx(1.0, rel=1e-6)


def test_a_random_start_has_no_gap_to_report(train_arguments, teacher, tmp_path):
    flags = distill_flags(train_arguments, teacher, tmp_path / "random")
    train_distill.main([*flags, "--override", "training_config.max_epoch=1"])
    own = read_metrics(tmp_path / "random")
    assert not any(row["kind"] == "start" for row in own)
    flags = distill_flags(train_arguments, teacher, tmp_path / "sliced", "--init_from_teacher")
    small = ("--override", "model.backbone.linear_dim=16")
    train_distill.main([*flags, "--override", "training_config.max_epoch=1", *small])
    flags = distill_flags(train_arguments, teacher, tmp_path / "random_small", *small)
    train_distill.main([*flags, "--override", "training_config.max_epoch=1"])
    # The figure for random is that of the run that starts there, and of the same seed.
    start = next(r for r in read_metrics(tmp_path / "sliced") if r["kind"] == "start")
    cv = next(r for r in read_metrics(tmp_path / "random_small") if r["kind"] == "cv")
    assert start["random"] == pytest.approx(cv["cv_loss"], rel=1e-9)


@pytest.mark.parametrize("source", ["", "base"])
def test_a_fitted_transplant_starts_near_the_teacher(
    train_arguments, teacher, tone_corpus, tmp_path, source
):
    rules = {"channels": "activation", "pairs": "data_svd", "compensation": "sequential"}
    rules["head"] = "project"
    if source:
        # The same weights under a larger, reordered vocabulary.
        rules["source"] = str(larger_vocabulary(teacher, tmp_path / "base"))
    flags = distill_flags(train_arguments, teacher, tmp_path / "run", "--init_from_teacher")
    for key, value in rules.items():
        flags += ["--override", f"transplant.{key}={value}"]
    small = ("linear_dim=18", "proj_dim=8", "num_layers=2", "input_affine_dim=12")
    for item in small:
        flags += ["--override", f"model.backbone.{item}"]
    assert train_distill.main([*flags, "--override", "training_config.max_epoch=1"]) == 0
    start = next(row for row in read_metrics(tmp_path / "run") if row["kind"] == "start")
    assert start["gap_closed"] > 0.9
    assert (
        train_distill.main([*flags, "--override", "training_config.max_epoch=2", "--resume"]) == 0
    )


def test_a_log_begins_with_the_pairs_and_the_direction_of_alpha(
    train_arguments, teacher, tmp_path, caplog
):
    flags = distill_flags(train_arguments, teacher, tmp_path / "run", "--init_from_teacher")
    more = ("distill_conf.hidden.weight=0.1", "training_config.max_epoch=1")
    with caplog.at_level("INFO"):
        assert train_distill.main([*flags, *(x for m in more for x in ("--override", m))]) == 0
    lines = [record.getMessage() for record in caplog.records]
    pairs = next(i for i, line in enumerate(lines) if line.startswith("paired layers"))
    alpha = next(i for i, line in enumerate(lines) if "weighs CTC (the labels)" in line)
    tensors = [i for i, record in enumerate(caplog.records) if "student_init" in record.name]
    assert tensors and max(pairs, alpha) < min(tensors)


def larger_vocabulary(checkpoint_dir, out_dir):
    """Write the model with its outputs among others, in another order; return its path."""
    tokens = ["<blk>", "<filler>", "多", "问", "嗨", "余", "小"]
    rows = {"<blk>": 0, "<filler>": 1, "嗨": 2, "小": 3, "问": 4}
    state = weights_of(checkpoint_dir / "final.pt")
    for part in ("weight", "bias"):
        name = f"backbone.out_linear2.linear.{part}"
        old = state[name]
        new = torch.stack([old[rows.get(token, 1)] for token in tokens])
        state[name] = new
    out_dir.mkdir()
    torch.save(state, out_dir / "final.pt")
    config = read_yaml(checkpoint_dir / "config.yaml")
    config["model"]["output_dim"] = len(tokens)
    write_yaml(out_dir / "config.yaml", config)
    lines = [f"{token} {i}\n" for i, token in enumerate(tokens)]
    (out_dir / "dict.txt").write_text("".join(lines), encoding="utf-8")
    return out_dir / "final.pt"


def test_a_smaller_student_learns_from_the_teacher(train_arguments, teacher, tmp_path):
    small = (
        "--override",
        "model.backbone.linear_dim=16",
        "--override",
        "model.backbone.proj_dim=8",
    )
    more = ("--init_from_teacher", "--override", "training_config.max_epoch=6", *small)
    model_dir = tmp_path / "student"
    flags = distill_flags(train_arguments, teacher, model_dir, *more, "--alpha", "0.3")
    assert train_distill.main(flags) == 0
    rows = [row for row in read_metrics(model_dir) if row["kind"] == "cv"]
    assert rows[-1]["cv_kd"] < 0.5 * rows[0]["cv_kd"]
    assert rows[-1]["cv_loss"] < rows[0]["cv_loss"]
    last = rows[-1]
    assert last["train_loss"] == pytest.approx(0.3 * last["train_ctc"] + 0.7 * last["train_kd"])


def test_the_teacher_stays_as_it_was(train_arguments, teacher, tmp_path):
    before = weights_of(teacher / "final.pt")
    flags = distill_flags(train_arguments, teacher, tmp_path / "student")
    train_distill.main([*flags, "--override", "training_config.max_epoch=1"])
    after = weights_of(teacher / "final.pt")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_interrupted_after_an_epoch_and_resumed_equals_uninterrupted(train_arguments, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train.main([*train_arguments, "--model_dir", str(whole)]) == 0
    first = ["--override", "training_config.max_epoch=1"]
    assert train.main([*train_arguments, "--model_dir", str(halves), *first]) == 0
    assert train.main([*train_arguments, "--model_dir", str(halves), "--resume"]) == 0
    assert same_weights(whole / "final.pt", halves / "final.pt")
    without_pace = [
        [
            {k: v for k, v in row.items() if k not in ("utt_per_s", "eta_s", "seconds")}
            for row in rows
        ]
        for rows in (read_metrics(whole), read_metrics(halves))
    ]
    assert without_pace[0] == without_pace[1]


def test_killed_in_the_middle_of_an_epoch_and_resumed_equals_uninterrupted(
    train_arguments, teacher, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = ("--override", "training_config.log_interval=1", "--init_from_teacher")
    flags = distill_flags(train_arguments, teacher, whole, *config)
    assert train_distill.main(flags) == 0
    flags = distill_flags(train_arguments, teacher, killed, *config, "--resume")
    command = [sys.executable, "-m", "wekws.bin.train_distill", *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(row["kind"] == "step" and row["epoch"] == 1 for row in read_metrics(killed)):
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "0.pt").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert same_weights(whole / "final.pt", killed / "final.pt")


def test_a_folder_with_a_run_is_not_overwritten(train_arguments, teacher):
    with pytest.raises(ConfigError, match="holds a run already; continue it with --resume"):
        train.main([*train_arguments, "--model_dir", str(teacher)])


def test_a_resume_with_another_configuration_is_refused(train_arguments, tmp_path):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run")]
    assert train.main([*flags, "--override", "training_config.max_epoch=1"]) == 0
    with pytest.raises(ConfigError, match="differs in optim_conf.lr"):
        train.main([*flags, "--resume", "--override", "optim_conf.lr=0.1"])


def test_a_resume_may_change_the_temperature_of_scores(train_arguments, tmp_path):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run")]
    once = ("--override", "training_config.max_epoch=1")
    assert train.main([*flags, *once]) == 0
    before = (tmp_path / "run" / "0.pt").read_bytes()
    soft = ("--override", "model.score_temperature=2")
    assert train.main([*flags, *once, "--resume", *soft]) == 0
    assert (tmp_path / "run" / "0.pt").read_bytes() == before
    assert read_model_config(tmp_path / "run" / "config.yaml").score_temperature == 2.0


def test_confidences_in_the_log_have_the_temperature_of_scores(train_arguments, teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "flat")
    config = read_yaml(tmp_path / "flat" / "config.yaml")
    config["model"]["score_temperature"] = 4.0
    write_yaml(tmp_path / "flat" / "config.yaml", config)
    logged = []
    for folder in (teacher, tmp_path / "flat"):
        flags = distill_flags(train_arguments, folder, tmp_path / f"student_{folder.name}")
        assert train_distill.main([*flags, "--override", "training_config.max_epoch=1"]) == 0
        rows = read_metrics(tmp_path / f"student_{folder.name}")
        logged.append(next(row for row in rows if row["kind"] == "teacher"))
    assert logged[0]["cv_loss"] == logged[1]["cv_loss"]
    means = [[one["mean"] for one in row["confidences"].values()] for row in logged]
    assert means[0] != means[1]


def with_flag(arguments, name, value):
    changed = list(arguments)
    changed[changed.index(name) + 1] = str(value)
    return changed


def test_a_resume_with_other_inputs_is_refused(train_arguments, teacher, tmp_path):
    once = ["--override", "training_config.max_epoch=1"]
    flags = distill_flags(train_arguments, teacher, tmp_path / "run", *once)
    assert train_distill.main(flags) == 0
    moved, fewer = tmp_path / "moved.list", tmp_path / "fewer.list"
    lines = Path(flags[flags.index("--train_data") + 1]).read_text().splitlines(keepends=True)
    moved.write_text("".join(lines))
    fewer.write_text("".join(lines[1:]))
    assert train_distill.main([*with_flag(flags, "--train_data", moved), "--resume"]) == 0
    with pytest.raises(ConfigError, match="began with another --train_data"):
        train_distill.main([*with_flag(flags, "--train_data", fewer), "--resume"])
    other = with_flag(flags, "--teacher_checkpoint", teacher / "0.pt")
    with pytest.raises(ConfigError, match="began with another --teacher_checkpoint"):
        train_distill.main([*other, "--resume"])


def test_a_cmvn_of_the_configuration_is_named_where_the_checkpoint_has_another(
    train_arguments, teacher, tmp_path
):
    place = train_arguments.index("--cmvn_file")
    cmvn = json.loads(Path(train_arguments[place + 1]).read_text())
    cmvn["mean_stat"] = [1.05 * value for value in cmvn["mean_stat"]]
    (tmp_path / "cmvn").write_text(json.dumps(cmvn))
    flags = [*train_arguments[:place], *train_arguments[place + 2 :]]
    flags += ["--checkpoint", str(teacher / "final.pt"), "--model_dir", str(tmp_path / "run")]
    flags += ["--override", f"model.cmvn.cmvn_file={tmp_path / 'cmvn'}"]
    with pytest.raises(ConfigError, match=f"and {tmp_path / 'cmvn'} normalise features"):
        train.main(flags)


def test_a_resume_with_another_cmvn_is_refused(train_arguments, tmp_path):
    flags = [*train_arguments, "--override", "training_config.max_epoch=1"]
    flags += ["--model_dir", str(tmp_path / "run")]
    assert train.main(flags) == 0
    cmvn = json.loads(Path(flags[flags.index("--cmvn_file") + 1]).read_text())
    cmvn["mean_stat"] = [1.05 * value for value in cmvn["mean_stat"]]
    (tmp_path / "cmvn").write_text(json.dumps(cmvn))
    with pytest.raises(ConfigError, match="normalise features differently"):
        train.main([*with_flag(flags, "--cmvn_file", tmp_path / "cmvn"), "--resume"])


@pytest.mark.parametrize("is_distilled", [False, True])
def test_two_processes_end_where_one_does(is_distilled, train_arguments, teacher, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    options = []  # with SpecAugment, whose masks do not depend on the number of processes
    if is_distilled:  # adapters, a gate, discriminators, a block that is added; steps in two parts
        pair = "pairs: [{student: backbone.fsmn.0.2, teacher: backbone.fsmn.0.2}]"
        hidden = f"distill_conf.hidden={{weight: 1.0, gate: {{openness: 0.3}}, {pair}}}"
        options += ["--override", hidden]
        options += ["--override", "distill_conf.adversarial={weight: 0.5}"]
        options += ["--override", "training_config.accum_grad=2"]
        options += ["--override", "model.backbone.linear_dim=16"]
        options += ["--override", "model.backbone.num_layers=2"]
        options += ["--override", "progressive={start_blocks: 1, every: 2, new_block: teacher}"]
    module = train_distill if is_distilled else train

    def flags(folder):
        if is_distilled:
            return distill_flags(train_arguments, teacher, folder, *options)
        return [*train_arguments, "--model_dir", str(folder), *options]

    assert module.main(flags(one)) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    if is_distilled:
        agents = [[*launcher, "--standalone", "--nproc_per_node", "2"]]
    else:  # two launchers with an address each, as on two machines
        rendezvous = ("--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free_port()}")
        launcher += ["--nnodes", "2", "--nproc_per_node", "1", *rendezvous, "--local_addr"]
        agents = [[*launcher, f"127.0.0.{i}"] for i in (1, 2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [*agent, "-m", module.__name__, *flags(two)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for agent in agents
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    first, second = weights_of(one / "final.pt"), weights_of(two / "final.pt")
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-3, atol=1e-4)
    rows = [[r for r in read_metrics(d) if r["kind"] == "cv"] for d in (one, two)]
    for a, b in zip(*rows, strict=True):
        assert a["cv_loss"] == pytest.approx(b["cv_loss"], rel=1e-3)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_process_that_is_killed_ends_the_others_with_one_line(train_arguments, tmp_path):
    more = ("--override", "training_config.max_epoch=2000", "--model_dir", str(tmp_path / "run"))
    command = [sys.executable, "-m", "wekws.bin.train", *train_arguments, *more]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first, second = (
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (tmp_path / "run" / "0.pt").exists():
        assert first.poll() is second.poll() is None
        time.sleep(0.02)
    second.kill()
    _, errors = first.communicate(timeout=240)
    second.communicate()
    assert first.returncode == PEER_LOST
    assert "error: process 0 of 2 ends: another process has ended" in errors
    assert "Traceback" not in errors


def test_a_gradient_that_is_not_finite_stops_and_names_the_utterances(train_arguments, tmp_path):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run")]
    with pytest.raises(DataError, match=r"epoch 0, step \d+.*not finite.*train\d+"):
        train.main([*flags, "--override", "optim_conf.lr=1e38"])


def test_a_teacher_with_another_vocabulary_is_refused(train_arguments, teacher, tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text("<blk> 0\n<filler> 1\n嗨 2\n问 3\n小 4\n", encoding="utf-8")
    flags = distill_flags(train_arguments, teacher, tmp_path / "student", "--dict", str(path))
    with pytest.raises(ConfigError, match="fingerprint"):
        train_distill.main(flags)


def test_a_teacher_with_another_frame_rate_is_refused(train_arguments, teacher, tmp_path):
    flags = distill_flags(train_arguments, teacher, tmp_path / "student")
    with pytest.raises(ConfigError, match="frame_skip"):
        train_distill.main([*flags, "--override", "dataset_conf.frame_skip=2"])


def test_two_starts_are_refused(train_arguments, teacher, tmp_path):
    more = ("--init_from_teacher", "--checkpoint", str(teacher / "final.pt"))
    with pytest.raises(ConfigError, match="two starts"):
        train_distill.main(distill_flags(train_arguments, teacher, tmp_path / "s", *more))


def test_replaced_audio_is_noticed_on_resume(train_arguments, tone_corpus, tmp_path):
    """The list and the size of the file stay; only what is in it differs."""
    shutil.copytree(tone_corpus.root, tmp_path / "corpus")
    listed = tmp_path / "corpus/train/data.list"
    listed.write_text(listed.read_text().replace(str(tone_corpus.root), str(tmp_path / "corpus")))
    flags = with_flag(train_arguments, "--train_data", listed)
    flags += ["--override", "training_config.max_epoch=1", "--model_dir", str(tmp_path / "run")]
    assert train.main(flags) == 0
    os.utime(tmp_path / "corpus/train3.wav", (1, 1))
    assert train.main([*flags, "--resume"]) == 0
    shutil.copyfile(tmp_path / "corpus/train8.wav", tmp_path / "corpus/train3.wav")
    with pytest.raises(ConfigError, match="began with another --train_data"):
        train.main([*flags, "--resume"])


def test_a_run_is_not_shortened(train_arguments, tmp_path):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run"), "--override"]
    assert train.main([*flags, "training_config.max_epoch=2"]) == 0
    with pytest.raises(ConfigError, match="has 2 epochs already, but .*max_epoch is 1"):
        train.main([*flags, "training_config.max_epoch=1", "--resume"])


def test_a_run_in_use_is_refused(train_arguments, tmp_path):
    with hold_folder(tmp_path / "run"), pytest.raises(ConfigError, match="another process is wri"):
        train.main([*train_arguments, "--model_dir", str(tmp_path / "run")])


def test_a_run_is_not_written_beside_its_teacher(train_arguments, teacher):
    with pytest.raises(ConfigError, match="whose files the output would overwrite"):
        train_distill.main(distill_flags(train_arguments, teacher, teacher))


def test_a_rate_that_is_too_high_is_blamed_on_the_rate(train_arguments, tmp_path):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run")]
    with pytest.raises(DataError, match=r"diverged at a learning rate of 1e\+06: lower"):
        train.main([*flags, "--override", "optim_conf.lr=1e6"])
