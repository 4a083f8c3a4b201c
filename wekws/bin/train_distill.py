"""Distil a student with CTC and the outputs of a frozen teacher, or of several.

The loss is alpha * CTC + (1 - alpha) * distillation: alpha weighs the labels.
"""

import argparse
import sys
from pathlib import Path

from wekws.bin.train_flags import add_train_flags, print_trained, train_options
from wekws.log import run as run_command
from wekws.train.build import train_model


def main(argv: list[str] | None = None) -> int:
    """Distil as the flags say, print the checkpoint."""
    args = _parser().parse_args(argv)
    options = train_options(
        args,
        alpha=args.alpha,
        temperature=args.temperature,
        teachers=tuple(args.teacher_checkpoint),
        teacher_config=args.teacher_config,
        init_from_teacher=args.init_from_teacher,
        start_from=args.start_from,
    )
    print_trained(train_model(options))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add_train_flags(parser)
    parser.add_argument(
        "--teacher_checkpoint", type=Path, action="append", required=True,
        help="checkpoint of the teacher; several are mixed as distill_conf.teachers says",
    )  # fmt: skip
    parser.add_argument(
        "--teacher_config", type=Path, help="the teacher's YAML [config.yaml beside the checkpoint]"
    )
    parser.add_argument(
        "--init_from_teacher", action="store_true",
        help="start from the teacher's weights, as section `transplant` says",
    )  # fmt: skip
    parser.add_argument(
        "--start_from", type=Path,
        help="model with the same outputs to start from in this way, such as the base after output "
        "surgery [the first teacher]",
    )  # fmt: skip
    parser.add_argument(
        "--alpha",
        help="weight of CTC (the labels), a number from 0 to 1 or the name of a schedule; "
        "distillation has the weight 1 - alpha [distill_conf.alpha]",
    )
    parser.add_argument(
        "--temperature",
        help="divides the logits of student and teacher in distillation [distill_conf.temperature]",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
