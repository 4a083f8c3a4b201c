"""Score data lists with a checkpoint: score.txt, events.tsv and score.json."""

import argparse
import sys
import typing
from pathlib import Path

from wekws.decode.duration import max_duration_from_text
from wekws.errors import ConfigError
from wekws.log import run
from wekws.machine import usable_cores
from wekws.score.scores import SCORES_NAME
from wekws.score.scoring import DecoderName, score_list


def main(argv: list[str] | None = None) -> int:
    """Score the lists and print the pace."""
    args = _parser().parse_args(argv)
    if len(args.test_data) != len(args.result_dir):
        raise ConfigError(
            f"--result_dir: given {len(args.result_dir)} times, --test_data {len(args.test_data)} "
            "times; expected a folder for each list"
        )
    for data_list, result_dir in zip(args.test_data, args.result_dir, strict=True):
        _score(args, data_list, result_dir)
    return 0


def _score(args: argparse.Namespace, data_list: Path, result_dir: Path) -> None:
    scored = score_list(
        args.checkpoint,
        data_list,
        result_dir,
        decoder=args.decoder,
        config=args.config,
        dict_path=args.dict,
        lexicon=args.lexicon,
        keywords_file=args.keywords_file,
        cache_dir=args.cache_dir,
        batch_size=args.batch_size,
        refractory_s=args.refractory_s,
        max_duration_s=max_duration_from_text(args.max_duration_s),
        num_workers=args.num_workers,
        device=args.device,
    )
    rate = scored.hours * 3600 / max(scored.seconds, 1e-9)
    print(
        f"{result_dir / SCORES_NAME}: {scored.num_utterances} utterances, "
        f"{scored.hours:.2f} h in {scored.seconds:.1f} s ({rate:.0f} times real time)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="model: N.pt, final.pt, avg_N.pt or N.onnx")
    add("--config", type=Path, help="configuration [config.yaml beside the checkpoint]")
    add("--dict", type=Path, help="dictionary of tokens [dict.txt beside the checkpoint]")
    add("--lexicon", type=Path, help="lexicon [lexicon.txt beside the checkpoint, if there is one]")
    add("--keywords_file", type=Path, help="one keyword per line [keywords.txt beside it]")
    add(
        "--test_data", type=Path, action="append", required=True,
        help="data.list to score; may be repeated, each with its --result_dir",
    )  # fmt: skip
    add("--result_dir", type=Path, action="append", required=True, help="folder to write to")
    add(
        "--decoder", choices=typing.get_args(DecoderName), default="keyword",
        help="keyword: a confidence for every utterance; prefix_beam: as in WeKWS [%(default)s]",
    )  # fmt: skip
    add("--cache_dir", type=Path, help="feature cache [cache beside --test_data]")
    add("--batch_size", type=int, default=256, help="utterances per batch [%(default)s]")
    add(
        "--refractory_s", type=float, default=1.0,
        help="shortest time between two events of a keyword, in seconds [%(default)s]",
    )  # fmt: skip
    add(
        "--max_duration_s", default="auto",
        help="longest duration of a keyword in seconds; 0 = no limit; auto = by its tokens "
        "[%(default)s]",
    )  # fmt: skip
    add(
        "--num_workers", type=int, default=usable_cores(),
        help="processes that extract features; 0 = this process [all cores]",
    )  # fmt: skip
    add(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="auto: the GPU if there is one [%(default)s]",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
