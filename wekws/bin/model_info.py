"""Print the cost of a configured model: parameters, MACs, receptive field, look-ahead, bytes.

python -m wekws.bin.model_info --config conf/fsmn_ctc_teacher.yaml --num_tokens 20
"""

import argparse
import json
import sys
from pathlib import Path

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.errors import ConfigError
from wekws.log import run
from wekws.model.checkpoint import read_model_config
from wekws.model.cost import ModelCost, model_cost


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="YAML of the model")
    parser.add_argument(
        "--num_tokens", type=int, help="tokens of the vocabulary [output_dim of the configuration]"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the cost as JSON instead of a table"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Read the configuration, compute the cost, print it."""
    args = parse_arguments(argv)
    config = read_model_config(args.config)
    if args.num_tokens is not None:
        if args.num_tokens < 1:
            raise ConfigError(f"--num_tokens {args.num_tokens}: expected at least 1")
        config = config.with_output_dim(args.num_tokens)
    if config.output_dim == 0:
        raise ConfigError(f"{args.config}: model.output_dim: not set; give --num_tokens")
    cost = model_cost(config, load_dataset_config(args.config).front_end)
    if args.json:
        print(json.dumps(cost, indent=2))
    else:
        print(format_table(cost, f"{args.config}, {config.output_dim} tokens"))
    return 0


def format_table(cost: ModelCost, title: str) -> str:
    """Return the cost as a table with a title line."""
    rows = [("parameters", f"{cost['params']:,}")]
    rows += [(f"  {part}", f"{count:,}") for part, count in cost["params_by_part"].items()]
    rows += [
        ("MACs per second of audio", f"{cost['macs_per_second']:,}"),
        ("receptive field", f"{cost['receptive_field_ms']:g} ms"),
        ("look-ahead", f"{cost['lookahead_ms']:g} ms"),
        ("state per stream", f"{cost['state_bytes']:,} bytes"),
    ]
    rows += [(f"size in {kind}", f"{size:,} bytes") for kind, size in cost["size_bytes"].items()]
    width = max(len(value) for _, value in rows)
    return "\n".join([title, *(f"{name:<26}{value:>{width}}" for name, value in rows)])


if __name__ == "__main__":
    sys.exit(run(main))
