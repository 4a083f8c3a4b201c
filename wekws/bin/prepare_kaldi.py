"""Copy the lists of a Kaldi folder, with absolute paths, one folder per split.

``DIR/{train,dev,test}`` hold ``wav.scp`` and ``text`` and optionally ``utt2spk``, ``utt2dur`` and
``utt2category``; paths are absolute or relative to DIR. Lists in folders below a split
(``test/long``) are added to it. Nothing is checked here: validate_data reports duplicates and other
problems.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.prepare import prepare_kaldi
from wekws.log import run


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists of every split and print their lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train, dev, test")
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the new lists")
    args = parser.parse_args(argv)
    for split, sizes in prepare_kaldi(args.data_dir, args.out_dir).items():
        lines = ", ".join(f"{size} in {table}" for table, size in sizes.items())
        print(f"{args.out_dir / split}: {lines}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
