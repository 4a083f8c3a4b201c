"""Kaldi folders with fewer training clips of each keyword, to see what recordings are worth.

python tools/fewer_clips.py --data_dir DIR --keywords "JARVIS,SMART MIRROR" --clips 25 --out_dir OUT

Clips are recordings of the keyword alone. They are spread over the speakers, or with --few_speakers
come from as few of them as possible (those with the most clips first). All other training audio,
dev and test stay as they are.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.manifest import read_kaldi_table, write_kaldi_table
from wekws.dataset.prepare import prepare_kaldi
from wekws.dataset.vocabulary import normalise, parse_keywords
from wekws.errors import ConfigError, DataError
from wekws.log import run


def chosen_clips(
    speakers: Sequence[tuple[str, str]], num_clips: int, few_speakers: bool, rng: random.Random
) -> list[str]:
    """Return ids of ``num_clips`` clips; speakers: id and speaker of each clip of a keyword."""
    clips: defaultdict[str, list[str]] = defaultdict(list)
    for key, speaker in speakers:
        clips[speaker].append(key)
    for own in clips.values():
        rng.shuffle(own)
    if few_speakers:
        most_first = sorted(clips.values(), key=len, reverse=True)
        return [key for own in most_first for key in own][:num_clips]
    in_turn = rng.sample(list(clips.values()), len(clips))
    rounds = range(max(map(len, in_turn)))
    return [own[i] for i in rounds for own in in_turn if i < len(own)][:num_clips]


def main(argv: list[str] | None = None) -> int:
    """Write the folders and say how many clips and speakers of each keyword are in train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--data_dir",
        type=Path,
        required=True,
        help="Kaldi folders train, dev and test; utt2spk in train",
    )
    add("--keywords", required=True, help="separated by commas")
    add("--clips", type=int, required=True, help="training clips of each keyword")
    add("--few_speakers", action="store_true", help="of as few speakers as possible")
    add("--seed", type=int, default=1, help="of the choice [%(default)s]")
    add("--out_dir", type=Path, required=True, help="new folder; audio stays where it is")
    args = parser.parse_args(argv)
    if args.clips < 1:
        raise ConfigError(f"--clips {args.clips}: expected >= 1")
    if args.out_dir.exists():
        raise ConfigError(f"--out_dir {args.out_dir}: exists; name a new folder")
    with tempfile.TemporaryDirectory() as folder:
        prepare_kaldi(args.data_dir, folder)
        _keep_fewer(Path(folder) / "train", args)
        shutil.copytree(folder, args.out_dir)
    return 0


def _keep_fewer(train: Path, args: argparse.Namespace) -> None:
    """Remove the other clips of each keyword from the tables of a training set."""
    text, speaker_of = read_kaldi_table(train / "text"), read_kaldi_table(train / "utt2spk")
    left_out: set[str] = set()
    for keyword in parse_keywords(args.keywords):
        own = [key for key in sorted(text) if normalise(text[key]) == keyword]
        if len(own) < args.clips:
            raise DataError(
                f"{args.data_dir}/train: {len(own)} clips of {keyword}; expected {args.clips}"
            )
        if unknown := [key for key in own if key not in speaker_of]:
            raise DataError(f"{args.data_dir}/train/utt2spk: {unknown[0]} has no speaker")
        speakers = [(key, speaker_of[key]) for key in own]
        kept = chosen_clips(speakers, args.clips, args.few_speakers, random.Random(args.seed))
        left_out |= set(own) - set(kept)
        num_speakers = len({speaker_of[key] for key in kept})
        print(f"{keyword}: {len(kept)} of {len(own)} clips, {num_speakers} speakers")
    for table in train.iterdir():
        rows = read_kaldi_table(table)
        write_kaldi_table(table, ((k, v) for k, v in rows.items() if k not in left_out))


if __name__ == "__main__":
    sys.exit(run(main))
