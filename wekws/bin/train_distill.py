"""Train a student with CTC and a frozen teacher's posteriors."""

import argparse
import sys
from pathlib import Path

from wekws.errors import ConfigError
from wekws.log import run as run_command
from wekws.model.checkpoint import config_beside, load_model
from wekws.model.cost import num_parameters
from wekws.model.model import KwsModel
from wekws.train import distributed, session
from wekws.train.experiment import ExperimentConfig
from wekws.train.loop import fit
from wekws.train.start import make_student, random_student, require_same_front_end


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the flags; ``--alpha`` and ``--temperature`` become overrides of the configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    session.add_arguments(parser)
    parser.add_argument("--teacher_checkpoint", type=Path, required=True)
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
    outputs = session.read_outputs(args)
    experiment = session.read_experiment(args, outputs.vocabulary)
    teacher = load_teacher(args, experiment, outputs)
    data = session.open_data(args, experiment, outputs, process)

    student = make_student(args, experiment, outputs, teacher, data[0])
    run = session.build_run(
        args, process, experiment, outputs, model=student, teacher=teacher, data=data
    )
    if args.init_from_teacher and run.start_epoch == 0:
        # Evaluated once, before the first step: what the transplant is measured against.
        run.random = random_student(args.seed, experiment, teacher).to(process.device)
    fit(run)
    distributed.stop(process)
    if process.is_first:
        print(f"{args.model_dir / 'final.pt'}: {num_parameters(student):,} parameters")
    return 0


def load_teacher(
    args: argparse.Namespace, experiment: ExperimentConfig, outputs: session.Outputs
) -> KwsModel:
    """Return the frozen teacher.

    Raises: ConfigError if its vocabulary, frame rate, features or CMVN are not the student's.
    """
    config_path = args.teacher_config or config_beside(args.teacher_checkpoint)
    require_same_front_end(config_path, experiment)
    session.require_same_vocabulary(args.teacher_checkpoint, outputs.vocabulary)
    teacher = load_model(args.teacher_checkpoint, config_path)
    if teacher.config.output_dim != outputs.vocabulary.size:
        raise ConfigError(
            f"{args.teacher_checkpoint}: {teacher.config.output_dim} outputs; {args.dict} has "
            f"{outputs.vocabulary.size} tokens"
        )
    cmvn = session.read_cmvn(args, experiment.model)
    if cmvn is not None:
        theirs = (teacher.global_cmvn.mean, teacher.global_cmvn.istd)
        session.require_same_cmvn(theirs, cmvn, str(args.teacher_checkpoint), "the run's CMVN")
    return teacher.requires_grad_(False).eval()


if __name__ == "__main__":
    sys.exit(run_command(main))
