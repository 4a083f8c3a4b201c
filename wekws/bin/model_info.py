"""Print the cost of a configured model: parameters, MACs, receptive field, look-ahead, bytes.

python -m wekws.bin.model_info --config conf/fsmn_ctc_teacher.yaml --num_tokens 20
python -m wekws.bin.model_info --exported exp/X/avg_30.int8.onnx
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wekws.errors import ConfigError
from wekws.log import run
from wekws.stream.onnx_network import OnnxNetwork, load_exported


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--config", type=Path, help="YAML of the model")
    model.add_argument("--exported", type=Path, help="ONNX file of wekws.bin.export_onnx")
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
    if args.exported is not None:
        print_exported(args.exported, args.json)
        return 0
    # Imported here: they bring torch, which --help does without.
    from wekws.dataset.dataset_conf import load_dataset_config
    from wekws.model.cost import model_cost
    from wekws.model.model_conf import read_model_config

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


def print_exported(path: Path, as_json: bool) -> None:
    """Print what an exported file contains and costs."""
    network = OnnxNetwork(path)
    texts = network.description.to_texts()
    if as_json:
        print(json.dumps(texts, indent=2, ensure_ascii=False))
        return
    rows = [
        ("precision", network.description.precision),
        ("parameters", f"{network.description.num_parameters:,}"),
        ("MACs per second of audio", f"{network.description.macs_per_second:,}"),
        ("look-ahead", f"{network.look_ahead * network.front_end.hop_ms:g} ms of frames"),
        ("state per stream", f"{4 * network.state_size:,} bytes"),
        ("size of the file", f"{path.stat().st_size:,} bytes"),
        ("tokens", f"{len(network.description.tokens)}"),
    ]
    for keyword in load_exported(path).keywords:
        threshold = "none" if keyword.threshold is None else f"{keyword.threshold:.6g}"
        rows.append((f"threshold of {keyword.text}", threshold))
    print("\n".join([str(path), *(f"{name:<26}{value}" for name, value in rows)]))


def format_table(cost: Mapping[str, Any], title: str) -> str:
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
