"""Train a student with CTC and the posteriors of a frozen teacher, or of several."""

import argparse
import sys
from pathlib import Path

from wekws.dataset.label_set import LabelSet
from wekws.errors import ConfigError
from wekws.log import run as run_command
from wekws.model.cost import num_parameters
from wekws.train import distributed, session
from wekws.train.grow import at_start
from wekws.train.loop import fit
from wekws.train.student_init import make_student, random_student
from wekws.train.teachers import as_one, load_teachers


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the flags; ``--alpha`` and ``--temperature`` become overrides of the configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    session.add_arguments(parser)
    parser.add_argument(
        "--teacher_checkpoint", type=Path, action="append", required=True,
        help="repeatable: several teachers are mixed as distill_conf.teachers says",
    )  # fmt: skip
    parser.add_argument("--teacher_config", type=Path, help="[config.yaml beside the checkpoint]")
    parser.add_argument(
        "--init_from_teacher", action="store_true", help="start as section `transplant` says"
    )
    parser.add_argument(
        "--alpha", help="weight of CTC, 1 - alpha is distillation's: a number, or a shape's name"
    )
    parser.add_argument("--temperature", help="of both posteriors in distillation")
    args = parser.parse_args(argv)
    if args.init_from_teacher and args.checkpoint:
        raise ConfigError("--init_from_teacher and --checkpoint: two starts; give one")
    for name in ("alpha", "temperature"):
        if getattr(args, name) is not None:
            args.override.append(f"distill_conf.{name}={getattr(args, name)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Load configuration, build teacher, data and student; resume; loop; close."""
    args = parse_arguments(argv)
    process = distributed.start(args.device, args.num_threads)
    outputs = LabelSet.load(args.dict, lexicon=args.lexicon, keywords_file=args.keywords_file)
    experiment = session.read_experiment(args, outputs.vocabulary)
    teachers = load_teachers(args, experiment, outputs)
    data = session.open_data(args, experiment, outputs, process)

    begun = at_start(args, experiment, teachers[0])
    student = make_student(args, begun, outputs, teachers[0], data[0])
    run = session.build_run(
        args, process, experiment, outputs, model=student, teacher=as_one(teachers), data=data
    )
    if args.init_from_teacher and run.start_epoch == 0:
        # Evaluated once, before the first step: what the transplant is measured against.
        run.random = random_student(args.seed, begun, teachers[0]).to(process.device)
    fit(run)
    distributed.stop(process)
    if process.is_first:
        print(f"{args.model_dir / 'final.pt'}: {num_parameters(student):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
