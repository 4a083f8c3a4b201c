"""Train an FSMN with CTC, from a random start or from a checkpoint."""

import argparse
import sys

from wekws.dataset.label_set import LabelSet
from wekws.log import run as run_command
from wekws.model.cost import num_parameters
from wekws.train import distributed, session
from wekws.train.grow import at_start
from wekws.train.loop import fit


def main(argv: list[str] | None = None) -> int:
    """Load configuration, build data and model; resume; loop; close."""
    parser = argparse.ArgumentParser(description=__doc__)
    session.add_arguments(parser)
    args = parser.parse_args(argv)
    process = distributed.start(args.device, args.num_threads)
    outputs = LabelSet.load(args.dict, lexicon=args.lexicon, keywords_file=args.keywords_file)
    experiment = session.read_experiment(args, outputs.vocabulary)
    data = session.open_data(args, experiment, outputs, process)

    model = session.make_model(args, at_start(args, experiment).model, outputs.vocabulary)
    run = session.build_run(
        args, process, experiment, outputs, model=model, teacher=None, data=data
    )
    fit(run)
    distributed.stop(process)
    if process.is_first:
        print(f"{args.model_dir / 'final.pt'}: {num_parameters(model):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
