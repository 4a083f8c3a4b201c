"""Extract the features of a training list and write their CMVN statistics."""

import argparse
import sys

from wekws.dataset.cmvn_stats import compute_cmvn, write_cmvn
from wekws.log import run
from wekws.train.train_config import load_experiment


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML with a dataset_conf section")
    parser.add_argument("--overlay", action="append", default=[], help="YAML laid over it")
    parser.add_argument("--data_list", required=True, help="training data.list")
    parser.add_argument("--cache_dir", required=True, help="where feature caches are kept")
    parser.add_argument("--cmvn_file", required=True, help="statistics to write (JSON)")
    parser.add_argument("--num_workers", type=int, default=2, help="extracting processes")
    args = parser.parse_args(argv)
    config = load_experiment(args.config, overlays=args.overlay).dataset_conf
    stats = compute_cmvn(args.data_list, config, args.cache_dir, args.num_workers)
    write_cmvn(args.cmvn_file, stats)
    print(f"{args.cmvn_file}: {stats.frame_num} frames, {len(stats.mean)} bins")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
