"""Train an FSMN with CTC, from a random start or from a checkpoint."""

import argparse
import sys

from wekws.bin.train_flags import add_train_flags, print_trained, train_options
from wekws.log import run as run_command
from wekws.train.build import train_model


def main(argv: list[str] | None = None) -> int:
    """Train as the flags say, print the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_train_flags(parser)
    print_trained(train_model(train_options(parser.parse_args(argv))))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
