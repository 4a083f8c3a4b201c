"""Average the weights of several epochs into one checkpoint."""

import argparse
import sys
from pathlib import Path

from wekws.files import write_yaml
from wekws.log import run
from wekws.model.checkpoint import save_weights
from wekws.train.average import average_checkpoints, choose_epochs
from wekws.train.epoch_checkpoint import read_epoch_info


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
    epochs = choose_epochs(args.src_path, args.num, is_best=args.val_best)
    weights = average_checkpoints(args.src_path, epochs)
    save_weights(weights, args.dst_model)
    losses = {epoch: read_epoch_info(args.src_path, epoch)["cv_loss"] for epoch in epochs}
    chosen = "best by cv_loss" if args.val_best else "last"
    write_yaml(
        args.dst_model.with_suffix(".yaml"),
        {"averaged_epochs": epochs, "chosen": chosen, "cv_loss_of_epochs": losses},
    )
    print(f"{args.dst_model}: mean of epochs {', '.join(map(str, epochs))} ({chosen})")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
