"""Average the weights of several epochs into one checkpoint."""

import argparse
import sys
from pathlib import Path

from wekws.log import run
from wekws.train.average import average_model
from wekws.yaml_files import read_yaml


def main(argv: list[str] | None = None) -> int:
    """Write the average, and a YAML file that names its epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dst_model", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--src_path", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--num", type=int, default=30, help="number of epochs [%(default)s]")
    parser.add_argument(
        "--val_best", action="store_true",
        help="average the epochs of lowest cv_loss instead of the last ones",
    )  # fmt: skip
    args = parser.parse_args(argv)
    path = average_model(args.src_path, args.num, is_best=args.val_best, checkpoint=args.dst_model)
    chosen = read_yaml(path.with_suffix(".yaml"))
    epochs = ", ".join(map(str, chosen["averaged_epochs"]))
    print(f"{path}: mean of epochs {epochs} ({chosen['chosen']})")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
