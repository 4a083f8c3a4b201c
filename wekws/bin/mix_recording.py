r"""Mix the keywords of a test set into its negatives: one long recording with reference events.

python -m wekws.bin.mix_recording --data_list data/X/test/data.list \
    --keywords_file data/X/dict/keywords.txt --hours 2 --snr_db 10 --out_dir exp/mixed
"""

import argparse
import sys
from pathlib import Path

from wekws.dataset.mixing import MixOptions, mix_recording
from wekws.dataset.vocabulary import read_keywords
from wekws.log import run


def main(argv: list[str] | None = None) -> int:
    """Write the recording and print what is in it."""
    args = _parser().parse_args(argv)
    mixed = mix_recording(
        args.data_list,
        read_keywords(args.keywords_file),
        args.out_dir,
        MixOptions(
            hours=args.hours,
            snr_db=args.snr_db,
            spacing_s=args.spacing_s,
            sample_rate_hz=args.sample_rate_hz,
            seed=args.seed,
        ),
    )
    print(f"{mixed.recording}: {mixed.hours:.2f} h, {mixed.num_keywords} keywords")
    print(mixed.references)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add, default = parser.add_argument, MixOptions()
    add(
        "--data_list", type=Path, required=True,
        help="test set: utterances of one keyword alone, and utterances without any",
    )  # fmt: skip
    add("--keywords_file", type=Path, required=True, help="one keyword per line")
    add("--out_dir", type=Path, required=True, help="folder for mixed.flac and references.tsv")
    add("--hours", type=float, default=default.hours, help="longest length [%(default)s]")
    add(
        "--snr_db", type=float, default=default.snr_db,
        help="power of a keyword above that of the background under it, in dB [%(default)s]",
    )  # fmt: skip
    add(
        "--spacing_s", type=float, default=default.spacing_s,
        help="mean time from one keyword to the next, in seconds [%(default)s]",
    )  # fmt: skip
    add("--sample_rate_hz", type=int, default=default.sample_rate_hz, help="rate [%(default)s]")
    add("--seed", type=int, default=default.seed, help="seed of order and places [%(default)s]")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
