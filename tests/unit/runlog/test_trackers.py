"""Trackers: what each service gets, offline."""

import sys

import pytest

from wekws.errors import ConfigError
from wekws.runlog import trackers
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.runlog.trackers import NAMES, numbers_of, require_trackers, trackers_from_text


class Recorder:
    """Stands for the module or the run of a service; keeps the calls."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return self

        return call

    def of(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


def write_rows(folder, name):
    writer = MetricsWriter(
        folder / "synth" / "student", last_epoch=-2, is_first=True, trackers=(name,),
        settings={"optim_conf": {"lr": 0.1}},
    )  # fmt: skip
    writer.write("step", 10, {"epoch": 0, "kd": 2.5, "alpha": 0.5})
    writer.write("layers", 10, {"epoch": 0, "gradient": {"fsmn.0": 1.5}})
    writer.write("stage", 10, {"epoch": 1, "name": "align", "task": 0.0})
    writer.close()


def test_numbers_of_a_row_with_mappings():
    row = {"epoch": 3, "gradient": {"fsmn.0": 1.5}, "name": "x", "loss": 2}
    assert numbers_of("layers", row) == {"layers/gradient/fsmn.0": 1.5, "layers/loss": 2}


def test_tensorboard_has_layers_and_the_names_of_stages(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_rows(tmp_path, "tensorboard")
    found = EventAccumulator(str(tmp_path / "synth/student/tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"step/kd", "step/alpha", "layers/gradient/fsmn.0", "stage/task"} <= set(tags["scalars"])
    text = found.Tensors("stage/text_summary")[0]
    assert text.step == 10 and text.tensor_proto.string_val[0].decode() == "epoch 1: align"


def test_weights_and_biases_gets_the_same_numbers(tmp_path, monkeypatch):
    service = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", service)
    write_rows(tmp_path, "wandb")
    [(_, begun)] = service.of("init")
    assert (begun["project"], begun["name"], begun["resume"]) == ("synth", "student", "allow")
    assert begun["config"] == {"optim_conf": {"lr": 0.1}} and len(begun["id"]) == 16
    logged = [(args[0], kwargs["step"]) for args, kwargs in service.of("log")]
    assert logged == [
        ({"step/kd": 2.5, "step/alpha": 0.5}, 10),
        ({"layers/gradient/fsmn.0": 1.5}, 10),
        ({"stage/task": 0.0}, 10),
        ({"stage": "epoch 1: align"}, 10),
    ]
    assert service.of("finish") == [((), {})]


def test_swanlab_gets_the_same_numbers(tmp_path, monkeypatch):
    service = Recorder()
    service.Text = lambda text: f"text {text}"
    monkeypatch.setitem(sys.modules, "swanlab", service)
    write_rows(tmp_path, "swanlab")
    [(_, begun)] = service.of("init")
    assert (begun["project"], begun["name"]) == ("synth", "student")
    assert begun["log_dir"].endswith("synth/student/swanlab")
    logged = [args[0] for args, _ in service.of("log")]
    assert logged[0] == {"step/kd": 2.5, "step/alpha": 0.5}
    assert logged[-1] == {"stage": "text epoch 1: align"}
    assert service.of("finish") == [((), {})]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tensorboard"])
def test_the_services_themselves_without_a_network(tmp_path, monkeypatch, name):
    """Only where the packages are installed: pip install -e .[wandb,swanlab]."""
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write_rows(tmp_path, name)
    assert any(path.is_file() for path in (tmp_path / "synth/student" / name).rglob("*"))


def test_a_tracker_that_does_not_exist_or_is_not_installed(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: object())
    assert trackers_from_text("none") == ()
    assert trackers_from_text("wandb,tensorboard") == ("tensorboard", "wandb")
    with pytest.raises(ConfigError, match="--tracker wandbb: expected some of tensorboard, wandb"):
        trackers_from_text("wandbb")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; pip install -e .\[swanlab\]"):
        require_trackers(["swanlab"])
