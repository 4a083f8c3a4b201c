"""Write the audio of a ``data.list`` into tar files (WebDataset) that training reads in order."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.shards import write_shards
from wekws.log import run


def main(argv: Sequence[str] | None = None) -> int:
    """Write the shards and print the list to train on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_list", type=Path, required=True, help="list of the audio files")
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="folder for the shards and their data.list"
    )
    parser.add_argument("--shard_size", type=int, default=500, help="utterances per shard [500]")
    parser.add_argument("--seed", type=int, default=0, help="seed of their order [0]")
    args = parser.parse_args(argv)
    path = write_shards(args.data_list, args.out_dir, shard_size=args.shard_size, seed=args.seed)
    num_shards = len(list(args.out_dir.glob("*.tar")))
    print(f"{path}: {num_shards} shards; train on this list")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
