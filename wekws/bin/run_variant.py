"""Train, average and score one run of an ablation, as its variant.yaml says.

It continues where it was interrupted; a run that is trained is only scored.
"""

import argparse
import sys
from pathlib import Path

from wekws.log import run
from wekws.sweep.run_job import run_job


def main(argv: list[str] | None = None) -> int:
    """Do the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--run_dir", type=Path, required=True, help="folder of the run, with its variant.yaml")
    add("--num_threads", type=int, default=0, help="CPU threads for training; 0 = all cores")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="[%(default)s]")
    add("--keep_epochs", action="store_true", help="keep the weights of every epoch")
    args = parser.parse_args(argv)
    run_job(
        args.run_dir,
        device=args.device,
        num_threads=args.num_threads,
        keep_epochs=args.keep_epochs,
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
