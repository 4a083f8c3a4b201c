"""List every problem of a corpus; exit status 2 if one of them is an error."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.dataset.label_set import LabelSet
from wekws.dataset.validate import validate
from wekws.log import run
from wekws.machine import usable_cores


def main(argv: Sequence[str] | None = None) -> int:
    """Check all splits, write both reports, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train, dev, test")
    parser.add_argument("--keywords_file", type=Path, required=True, help="keywords, one per line")
    parser.add_argument("--dict", type=Path, required=True, help="dict.txt with the label tokens")
    parser.add_argument("--lexicon", type=Path, help="pronunciations, `WORD unit unit ...`")
    parser.add_argument(
        "--config", type=Path, required=True, help="config whose dataset_conf defines the front end"
    )
    parser.add_argument(
        "--overlay", type=Path, action="append", default=[],
        help="YAML laid over --config, as in training; may be repeated",
    )  # fmt: skip
    parser.add_argument("--out_dir", type=Path, required=True, help="folder of the two reports")
    parser.add_argument(
        "--num_workers", type=int, default=usable_cores(),
        help="processes that read audio [all cores]",
    )  # fmt: skip
    parser.add_argument(
        "--disjoint_speakers", action="store_true", help="a speaker in two splits is an error"
    )
    args = parser.parse_args(argv)
    report = validate(
        args.data_dir,
        LabelSet.load(args.dict, lexicon=args.lexicon, keywords_file=args.keywords_file),
        load_dataset_config(args.config, args.overlay).front_end,
        num_workers=args.num_workers,
        disjoint_speakers=args.disjoint_speakers,
    )
    report.write(args.out_dir)
    report.log()
    print(report.counts_table())
    print(f"{args.out_dir / 'validation.md'}: {report.summary()}")
    return 2 if report.count("error") else 0


if __name__ == "__main__":
    sys.exit(run(main))
