"""Train an FSMN with CTC, from a random start or from a checkpoint."""

import argparse
import sys

from wekws.distill.objective import Objective
from wekws.log import run as run_command
from wekws.train import distributed, session
from wekws.train.learning_rate import LearningRate
from wekws.train.loop import fit


def main(argv: list[str] | None = None) -> int:
    """Load configuration, build data, model, optimiser; resume; loop; close."""
    parser = argparse.ArgumentParser(description=__doc__)
    session.add_arguments(parser)
    args = parser.parse_args(argv)
    process = distributed.start(args.device, args.num_threads)
    outputs = session.read_outputs(args)
    experiment = session.read_experiment(args, outputs.vocabulary)
    train_set, cv_set = session.open_data(args, experiment, outputs, process)

    model = session.make_model(args, experiment.model, outputs.vocabulary)
    model.to(process.device)
    objective = Objective(experiment.distill_conf, experiment.ctc_conf, has_teacher=False)
    optimizer = session.make_optimizer(experiment, model, objective)
    parts = {
        "model": model,
        "teacher": None,
        "objective": objective,
        "optimizer": optimizer,
        "learning_rate": LearningRate.of(optimizer, experiment),
        "train_set": train_set,
        "cv_set": cv_set,
    }
    run = session.build_run(args, process, experiment, outputs, parts)
    fit(run)
    distributed.stop(process)
    if process.is_first:
        print(f"{args.model_dir / 'final.pt'}: {session.num_parameters(model):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
