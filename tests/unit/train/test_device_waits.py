"""No step waits for the device: run on the meta device, whose tensors have shapes but no values.

An operation that needs a value on the host (``item``, a mask as an index, a copy to the host) fails
there, as does one that combines tensors of the host and the device.
"""

import contextlib
import dataclasses

import pytest
import torch
from test_options import captured_run

from wekws.bin import train_distill
from wekws.train import loop
from wekws.train.distributed import Process
from wekws.train.running_means import RunningMeans
from wekws.train.step_inputs import step_generator


@pytest.fixture
def run(train_arguments, teacher, tmp_path, monkeypatch):
    paths = ("--teacher_checkpoint", teacher / "final.pt", "--model_dir", tmp_path / "run")
    settings = ("model.backbone.linear_dim=16", "distill_conf.consistency.weight=0.1")
    settings += ("ctc_conf.label_smoothing=0.1", "distill_conf.inner.weight=0.1")
    given = [x for setting in settings for x in ("--override", setting)]
    return captured_run(
        lambda: train_distill.main([*train_arguments, *map(str, paths), *given]), monkeypatch
    )


def ctc_that_needs_lengths_on_the_host(log_probs, labels, lengths, label_lengths, **options):
    """Stand for torch's, which has no form for the meta device; on a GPU it copies lengths back."""
    assert lengths.device.type == label_lengths.device.type == "cpu"
    return log_probs.sum()


def test_a_step_waits_for_no_value_on_the_device(run, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "ctc_loss", ctc_that_needs_lengths_on_the_host)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    batch = next(iter(loop.training_batches(run, 0)))
    device = torch.device("meta")
    for module in (run.model, run.teacher, run.objective):
        module.to(device)
    parts = dataclasses.replace(run, process=Process(0, 1, device))
    inputs = loop.step_inputs(parts, batch, step_generator(run.seed, 0, 0), 0.5)
    assert inputs.student.device == device
    loss = loop.backward(parts, inputs, 0.5)
    norm = torch.nn.utils.clip_grad_norm_(parts.parameters, 5.0)
    names = parts.objective.active_terms(0.5)
    assert {"ctc", "smoothing", "kd", "consistency", "inner_ctc", "inner_kd"} <= set(names)
    means = RunningMeans(parts.objective, names, process=parts.process, num_utterances_left=1)
    means.add(loss, norm, batch.num_global)
    assert norm.device == loss.total.device == device
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        float(norm)  # what such a wait looks like
