"""Speed of a student against its teacher, measured on one CPU thread: ``speed.json``."""

from pathlib import Path
from typing import Any

import torch

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.files import read_json, write_json
from wekws.model.checkpoint import load_model
from wekws.model.model import num_parameters
from wekws.model.model_conf import config_beside
from wekws.model.speed import forward_ms

NAME = "speed.json"


def measure_speed(teacher: Path, student: Path, duration_s: float = 3.0) -> dict[str, Any]:
    """Time the forward pass of two checkpoints in turn; write ``speed.json`` beside the student.

    duration_s: length of the utterance, above 0.
    Returns: the record: for teacher and student ``params`` and ``forward_ms`` (CPU time per
    utterance), and ``speed_up``.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = {"teacher": teacher, "student": student}
    models = {name: load_model(path) for name, path in paths.items()}
    front_end = load_dataset_config(config_beside(student)).front_end
    num_frames = max(1, round(1000 * duration_s / front_end.hop_ms))
    times = dict(zip(models, forward_ms(list(models.values()), num_frames), strict=True))
    torch.set_num_threads(num_threads)
    record: dict[str, Any] = {"num_threads": 1, "batch_size": 1, "duration_s": duration_s}
    for name, model in models.items():
        record[name] = {
            "checkpoint": str(paths[name]),
            "params": num_parameters(model),
            "forward_ms": round(times[name], 4),
        }
    record["speed_up"] = round(times["teacher"] / times["student"], 3)
    write_json(student.parent / NAME, record)
    return record


def known_speed(teacher: Path, student: Path) -> dict[str, Any]:
    """Return the record beside the student; it is measured where there is none of this teacher."""
    path = student.parent / NAME
    record = read_json(path) if path.exists() else {}
    asked = {"teacher": str(teacher), "student": str(student)}
    if record and all(record[name]["checkpoint"] == asked[name] for name in asked):
        return record
    return measure_speed(teacher, student)
