"""CPU time of a forward pass, one utterance at a time."""

import time
from collections.abc import Sequence

import torch

from wekws.model.model import KwsModel


@torch.inference_mode()
def forward_ms(models: Sequence[KwsModel], num_frames: int, repeats: int = 30) -> list[float]:
    """Return for each model the CPU time in ms of one utterance of ``num_frames`` frames.

    CMVN and network without the front end, batch of 1; the caller sets the number of threads. The
    models take turns, so that the load of the machine affects all alike. The result is the least
    of the repeats, after three warm-up calls.
    """
    feats = torch.randn(1, num_frames, models[0].config.input_dim)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(3 + repeats):
        for model, taken in zip(models, times, strict=True):
            began = time.process_time()
            model(feats)
            taken.append(1000 * (time.process_time() - began))
    return [min(taken[3:]) for taken in times]
