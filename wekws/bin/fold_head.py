"""Fold a checkpoint's two output affines into one: the same logits from a merged head.

python -m wekws.bin.fold_head --checkpoint exp/student/avg_30.pt --out_dir exp/student_folded
"""

import argparse
import sys
from pathlib import Path

from wekws.log import run
from wekws.model.fold import fold_checkpoint
from wekws.model.model import num_parameters


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    path = Path
    parser.add_argument("--checkpoint", type=path, required=True, help="weights of the model")
    parser.add_argument(
        "--config", type=path, help="the model's configuration [config.yaml beside the checkpoint]"
    )
    parser.add_argument(
        "--out_dir", type=path, required=True,
        help="folder for folded.pt and the files that scoring reads; not the checkpoint's own",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Fold the head, write a folder that evaluate.sh takes, and print the sizes."""
    args = parse_arguments(argv)
    folded = fold_checkpoint(args.checkpoint, out_dir=args.out_dir, config=args.config)
    before, after = num_parameters(folded.before), num_parameters(folded.after)
    print(f"parameters  {before:,} -> {after:,} ({after / before - 1:+.1%})")
    if folded.before.config.backbone.is_head_merged:
        print("the head was merged already: folded.pt is a copy")
    if folded.why_larger:
        print(folded.why_larger)
    print(folded.path)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
