"""Extract the features of a training list into the cache; write their CMVN statistics."""

import argparse
import sys

from wekws.dataset.cmvn_stats import compute_cmvn, write_cmvn
from wekws.dataset.dataset_conf import load_dataset_config
from wekws.files import require_not_input
from wekws.log import run


def main(argv: list[str] | None = None) -> int:
    """Write the statistics and print their size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="config whose dataset_conf is used")
    parser.add_argument(
        "--overlay", action="append", default=[],
        help="YAML merged over --config, as in training; may be repeated",
    )  # fmt: skip
    parser.add_argument("--data_list", required=True, help="training data.list")
    parser.add_argument("--cache_dir", required=True, help="folder of the feature caches")
    parser.add_argument("--cmvn_file", required=True, help="CMVN file to write (JSON)")
    parser.add_argument(
        "--num_workers", type=int, default=2, help="processes that extract features [2]"
    )
    args = parser.parse_args(argv)
    require_not_input(args.cmvn_file, args.data_list, args.config, *args.overlay)
    config = load_dataset_config(args.config, args.overlay)
    stats = compute_cmvn(
        args.data_list, config, cache_dir=args.cache_dir, num_workers=args.num_workers
    )
    write_cmvn(args.cmvn_file, stats)
    print(f"{args.cmvn_file}: {stats.frame_num} frames, {len(stats.mean)} bins")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
