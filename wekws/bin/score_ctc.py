"""Score a data list with a checkpoint: score.txt, events.tsv and score.json."""

import argparse
import sys
import time
from pathlib import Path

import torch

from wekws.dataset.manifest import read_data_list
from wekws.errors import ConfigError
from wekws.files import file_sha256
from wekws.log import run
from wekws.machine import usable_cores
from wekws.score import scoring
from wekws.score.scores import write_json, write_scores


def main(argv: list[str] | None = None) -> int:
    """Load the system, score, write."""
    args = _parser().parse_args(argv)
    if args.batch_size < 1 or args.refractory_s < 0:
        raise ConfigError("--batch_size: expected >= 1; --refractory_s: expected >= 0")
    system = scoring.load_system(
        args.checkpoint,
        config=args.config,
        dict_path=args.dict,
        lexicon=args.lexicon,
        keywords_file=args.keywords_file,
    )
    decoder = scoring.make_decoder(args.decoder, system)
    cache_dir = args.cache_dir or args.test_data.parent / "cache"
    num_workers = args.num_workers or usable_cores()
    dataset = scoring.open_unfiltered(system, args.test_data, cache_dir, num_workers)
    durations = {u.key: u.duration for u in read_data_list(args.test_data)}

    began = time.monotonic()
    by_key = {
        scored.key: scored
        for scored in scoring.score_dataset(
            system,
            dataset,
            decoder,
            refractory_s=args.refractory_s,
            batch_size=args.batch_size,
            device=_device(args.device),
        )
    }
    wall_s = time.monotonic() - began
    hours = sum(durations[key] for key in dataset.keys) / 3600
    write_scores(args.result_dir, (by_key[key] for key in dataset.keys), system.hop_s)
    write_json(
        args.result_dir / "score.json",
        {
            "checkpoint": str(args.checkpoint),
            "checkpoint_sha256": file_sha256(args.checkpoint),
            "params": system.num_params,
            "decoder": args.decoder,
            "data_list": str(args.test_data),
            "keywords": list(system.label_set.keywords),
            "utterances": len(by_key),
            "not_scored": len(durations) - len(by_key),
            "hours": hours,
            "refractory_s": args.refractory_s,
            "hop_s": system.hop_s,
            "vocabulary": system.label_set.fingerprint,
        },
    )
    rate = hours * 3600 / max(wall_s, 1e-9)
    print(
        f"{args.result_dir / 'score.txt'}: {len(by_key)} utterances, {hours:.2f} h "
        f"in {wall_s:.1f} s ({rate:.0f} times real time)"
    )
    return 0


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="N.pt, final.pt, avg_N.pt")
    add("--config", type=Path, help="[config.yaml beside the checkpoint, as all of these]")
    add("--dict", type=Path, help="[dict.txt]")
    add("--lexicon", type=Path, help="[lexicon.txt, if there is one]")
    add("--keywords_file", type=Path, help="[keywords.txt]")
    add("--test_data", type=Path, required=True, help="data.list")
    add("--result_dir", type=Path, required=True)
    add("--decoder", choices=tuple(scoring.DECODERS), default="keyword")
    add("--cache_dir", type=Path, help="feature cache [cache beside --test_data]")
    add("--batch_size", type=int, default=256, help="utterances, at most [%(default)s]")
    add("--refractory_s", type=float, default=1.0, help="between two events [%(default)s]")
    add("--num_workers", type=int, default=0, help="extraction; 0: one a core")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
