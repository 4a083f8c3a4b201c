"""Time the forward pass of a student and its teacher on one CPU thread: speed.json.

python -m wekws.bin.measure_speed --teacher_checkpoint exp/X/teacher/avg_30.pt \
    --checkpoint exp/X/student/avg_30.pt
"""

import argparse
import sys
from pathlib import Path

import torch

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.errors import ConfigError
from wekws.files import write_json
from wekws.log import run
from wekws.model.checkpoint import config_beside, load_model
from wekws.model.model import num_parameters
from wekws.model.speed import forward_ms


def main(argv: list[str] | None = None) -> int:
    """Load both models, time them in turn, write the figures beside the student."""
    args = _parser().parse_args(argv)
    if not args.duration_s > 0:
        raise ConfigError(f"--duration_s {args.duration_s}: expected > 0")
    torch.set_num_threads(1)
    paths = {"teacher": args.teacher_checkpoint, "student": args.checkpoint}
    models = {name: load_model(path) for name, path in paths.items()}
    front_end = load_dataset_config(config_beside(args.checkpoint)).front_end
    num_frames = max(1, round(1000 * args.duration_s / front_end.hop_ms))
    times = dict(zip(models, forward_ms(list(models.values()), num_frames), strict=True))
    record: dict = {"num_threads": 1, "batch_size": 1, "duration_s": args.duration_s}
    for name, model in models.items():
        record[name] = {
            "checkpoint": str(paths[name]),
            "params": num_parameters(model),
            "forward_ms": round(times[name], 4),
        }
    record["speed_up"] = round(times["teacher"] / times["student"], 3)
    path = args.checkpoint.parent / "speed.json"
    write_json(path, record)
    print(
        f"{path}: for {args.duration_s:g} s of audio the teacher takes {times['teacher']:.2f} ms, "
        f"the student {times['student']:.2f} ms: it is {record['speed_up']:.1f} times as fast"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--teacher_checkpoint", type=Path, required=True, help="checkpoint of the teacher")
    add(
        "--checkpoint", type=Path, required=True,
        help="checkpoint of the student; speed.json is written beside it",
    )  # fmt: skip
    add(
        "--duration_s",
        type=float,
        default=3.0,
        help="length of the utterance, in seconds [%(default)s]",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
