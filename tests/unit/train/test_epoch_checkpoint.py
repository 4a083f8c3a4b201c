import pytest
import torch

from wekws.bin import train, train_distill
from wekws.errors import DataError
from wekws.train import build
from wekws.train.epoch_checkpoint import STATE_NAME, read_state

DISTILL = [
    "model.backbone.linear_dim=16",
    "training_config.ema_decay=0.5",
    "distill_conf.hidden.weight=0.5",
    "distill_conf.adversarial={weight: 0.1, hidden_dim: 4}",
]


def overrides(settings):
    return [text for setting in settings for text in ("--override", setting)]


def as_an_earlier_version_wrote_it(state):
    """Bring a state into the form of the first version: other names, hooks at the top."""
    names = {"layer_pairs.adapters.": "hidden.adapters.", "adversarial.": "rivals."}
    objective = dict(state["objective"])
    for new, old in names.items():
        objective = {name.replace(new, old): value for name, value in objective.items()}
    rival = objective.pop("rivals._extra_state")
    kept = {name: state[name] for name in ("epoch", "step", "optimizer", "learning_rate")}
    raw_model = state["hooks"]["raw_model"]
    return {**kept, "objective": objective, "rival": rival, "raw_model": raw_model,
            "teacher_weights": []}  # fmt: skip


def test_a_run_of_an_earlier_version_is_resumed(train_arguments, teacher, tmp_path):
    flags = [*train_arguments, "--teacher_checkpoint", str(teacher / "final.pt")]
    flags += overrides([*DISTILL, "training_config.max_epoch=2"])
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train_distill.main([*flags, "--model_dir", str(whole)]) == 0
    one = ["--model_dir", str(halves), "--override", "training_config.max_epoch=1"]
    assert train_distill.main([*flags, *one]) == 0
    state = torch.load(halves / STATE_NAME, weights_only=True)
    torch.save(as_an_earlier_version_wrote_it(state), halves / STATE_NAME)
    # The rate does not depend on the length, so that two epochs of one run are two of another.
    assert train_distill.main([*flags, "--model_dir", str(halves), "--resume"]) == 0
    weights = [torch.load(d / "final.pt", weights_only=True) for d in (whole, halves)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("a note"),
        lambda path: torch.save([1, 2], path),
    ],
    ids=["truncated", "empty", "text", "another object"],
)
def test_a_damaged_state_is_one_message_that_says_what_to_do(train_arguments, tmp_path, damage):
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run"), "--override"]
    assert train.main([*flags, "training_config.max_epoch=1"]) == 0
    damage(tmp_path / "run" / STATE_NAME)
    with pytest.raises(DataError, match=r"train_state.pt: not .*start another --model_dir"):
        train.main([*flags, "training_config.max_epoch=2", "--resume"])


def test_a_folder_without_a_finished_epoch_has_no_state(tmp_path):
    assert read_state(tmp_path) is None


def test_a_resume_with_another_vocabulary_names_it(train_arguments, tone_corpus, tmp_path):
    """Compared before any weights are loaded: no mismatch of shapes."""
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run"), "--override"]
    assert train.main([*flags, "training_config.max_epoch=1"]) == 0
    smaller = tmp_path / "dict.txt"
    smaller.write_text("<blk> 0\n<filler> 1\n嗨 2\n小 3\n")
    changed = list(flags)
    changed[changed.index("--dict") + 1] = str(smaller)
    with pytest.raises(ValueError, match="differs in model.output_dim"):
        train.main([*changed, "training_config.max_epoch=2", "--resume"])


@pytest.mark.parametrize(
    ("flag", "name"), [(["--seed", "9"], "--seed"), (["--bf16"], "--bf16")], ids=["seed", "bf16"]
)
def test_a_resume_with_another_seed_or_precision_is_refused(
    train_arguments, tmp_path, flag, name, caplog, monkeypatch
):
    monkeypatch.setattr(build, "has_bf16_instructions", lambda: False)
    flags = [*train_arguments, "--model_dir", str(tmp_path / "run"), "--override"]
    assert train.main([*flags, "training_config.max_epoch=1"]) == 0
    record = (tmp_path / "run/run.json").read_bytes()
    with pytest.raises(ValueError, match=f"began with another {name}"):
        train.main([*flags, "training_config.max_epoch=2", "--resume", *flag])
    assert (tmp_path / "run/run.json").read_bytes() == record
    assert ("computes it slower than float32; leave it out" in caplog.text) == (name == "--bf16")


def test_a_finished_training_without_its_state_is_not_overwritten(tmp_path):
    assert read_state(tmp_path) is None
    (tmp_path / "final.pt").touch()
    with pytest.raises(DataError, match="train_state.pt: no such file, and final.pt, which"):
        read_state(tmp_path)
