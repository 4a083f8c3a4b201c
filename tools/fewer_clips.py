"""Kaldi folders with fewer training clips of each keyword, to see what recordings are worth.

python tools/fewer_clips.py --data_dir DIR --keywords "JARVIS,SMART MIRROR" --clips 25 --out_dir OUT

Clips are recordings of the keyword alone. They are spread over the speakers, or with --few_speakers
come from as few of them as possible (those with the most clips first). All other training audio,
dev and test stay as they are.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.manifest import SPLITS, read_kaldi_table, write_kaldi_table
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
    add("--data_dir", type=Path, required=True, help="Kaldi folders train, dev and test")
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
    train = args.data_dir / SPLITS[0]
    text, speaker_of = read_kaldi_table(train / "text"), read_kaldi_table(train / "utt2spk")
    left_out: set[str] = set()
    for keyword in parse_keywords(args.keywords):
        own = [(k, speaker_of.get(k, k)) for k in sorted(text) if normalise(text[k]) == keyword]
        if len(own) < args.clips:
            raise DataError(f"{train}/text: {len(own)} clips of {keyword}; expected {args.clips}")
        kept = chosen_clips(own, args.clips, args.few_speakers, random.Random(args.seed))
        left_out |= {key for key, _ in own} - set(kept)
        num_speakers = len({speaker for key, speaker in own if key in kept})
        print(f"{keyword}: {len(kept)} of {len(own)} clips, {num_speakers} speakers")
    for split in SPLITS:
        for table in sorted((args.data_dir / split).rglob("*")):
            if table.is_file():
                _copy(table, args.data_dir, args.out_dir, left_out if split == SPLITS[0] else set())
    return 0


def _copy(table: Path, data_dir: Path, out_dir: Path, left_out: set[str]) -> None:
    """Write a table without the clips that are left out; paths of audio become absolute."""
    rows = {k: v for k, v in read_kaldi_table(table).items() if k not in left_out}
    if table.name == "wav.scp":
        rows = {key: str((data_dir / path).absolute()) for key, path in rows.items()}
    place = out_dir / table.relative_to(data_dir)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_kaldi_table(place, rows.items())


if __name__ == "__main__":
    sys.exit(run(main))
