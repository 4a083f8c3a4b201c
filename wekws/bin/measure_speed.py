"""Time the forward pass of a student and its teacher on one CPU thread: speed.json.

python -m wekws.bin.measure_speed --teacher_checkpoint exp/X/teacher/avg_30.pt \
    --checkpoint exp/X/student/avg_30.pt
"""

import argparse
import sys
from pathlib import Path

from wekws.errors import ConfigError
from wekws.log import run
from wekws.sweep.speed_record import NAME, measure_speed


def main(argv: list[str] | None = None) -> int:
    """Load both models, time them in turn, write the figures beside the student."""
    args = _parser().parse_args(argv)
    if not args.duration_s > 0:
        raise ConfigError(f"--duration_s {args.duration_s}: expected > 0")
    record = measure_speed(args.teacher_checkpoint, args.checkpoint, args.duration_s)
    teacher_ms, student_ms = (record[name]["forward_ms"] for name in ("teacher", "student"))
    print(
        f"{args.checkpoint.parent / NAME}: for {args.duration_s:g} s of audio the teacher takes "
        f"{teacher_ms:.2f} ms, the student {student_ms:.2f} ms: it is "
        f"{record['speed_up']:.1f} times as fast"
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
