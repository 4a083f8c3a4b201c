"""Join ``wav.scp`` and ``text`` into WeKWS's ``data.list``, with durations."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.prepare import make_data_list
from wekws.log import run


def main(argv: Sequence[str] | None = None) -> int:
    """Write the list and print its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wav_scp", type=Path, required=True, help="audio files, `id path`")
    parser.add_argument("--text", type=Path, required=True, help="transcripts, `id transcript`")
    parser.add_argument(
        "--utt2dur", type=Path, help="durations to compare with those of the audio, `id seconds`"
    )
    parser.add_argument(
        "--utt2category", type=Path, help="kinds of audio, such as speech or music, `id category`"
    )
    parser.add_argument("--data_list", type=Path, required=True, help="data.list to write")
    parser.add_argument(
        "--num_workers", type=int, default=2, help="processes that read audio headers [2]"
    )
    args = parser.parse_args(argv)
    utterances = make_data_list(
        args.wav_scp,
        args.text,
        data_list=args.data_list,
        utt2dur=args.utt2dur,
        utt2category=args.utt2category,
        num_workers=args.num_workers,
    )
    hours = sum(utterance.duration for utterance in utterances) / 3600
    print(f"{args.data_list}: {len(utterances)} utterances, {hours:.3f} hours")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
