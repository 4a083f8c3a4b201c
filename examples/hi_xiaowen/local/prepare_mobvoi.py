"""Write Kaldi folders from a corpus in Mobvoi's layout: {train,dev,test}/{wav.scp,text,utt2spk}."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.vocabulary import MOBVOI_KEYWORDS
from wekws.errors import DataError
from wekws.files import atomic_path
from wekws.log import run

SPLITS = ("train", "dev", "test")
FILLER = "<filler>"
NOISE = "<noise>"
MAX_NAMED = 10  # missing recordings that an error message names


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One utterance of a JSON list of the corpus."""

    utt_id: str
    """Utterance id; its recording is UTT_ID.wav."""
    keyword_id: object
    """Keyword id as the list gives it; not checked yet."""
    speaker_id: str | None
    """Speaker, None where the list has none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One utterance of a Kaldi folder."""

    utt_id: str
    """Utterance id."""
    wav: str
    """Absolute path of the recording."""
    text: str
    """Keyword, transcript, <filler> or <noise>."""
    speaker: str
    """Speaker; the utterance id where the speaker is not known."""


def read_keywords(resources_dir: Path) -> list[str]:
    """Keywords in the order of their ids.

    A synthesised corpus lists them in keywords.txt; without this file they are Mobvoi's two.
    """
    path = resources_dir / "keywords.txt"
    if not path.exists():
        return list(MOBVOI_KEYWORDS)
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_transcripts(path: Path) -> dict[str, str]:
    """Transcripts of a split: utt_id -> text, without spaces between Mandarin characters.

    Returns: an empty dict when there is no such file.
    Raises: DataError for an utterance id that occurs twice.
    """
    transcripts: dict[str, str] = {}
    if not path.exists():
        return transcripts
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        utt_id, _, text = line.strip().partition(" ")
        if not utt_id:
            continue
        if utt_id in transcripts:
            raise DataError(f"{path}:{number}: '{utt_id}' occurs a second time")
        transcripts[utt_id] = close_up(text)
    return transcripts


def close_up(text: str) -> str:
    """Reduce spaces to one, and to none beside a Mandarin character: `嗨 小 问` -> 嗨小问."""
    result = ""
    for word in text.split():
        joined = not result or is_mandarin(result[-1]) or is_mandarin(word[0])
        result += word if joined else f" {word}"
    return result


def is_mandarin(character: str) -> bool:
    """Whether a character is a CJK ideograph."""
    return "\u3400" <= character <= "\u9fff"


def read_entries(path: Path) -> list[Entry]:
    """Entries of one JSON list.

    Raises: DataError when it is not a list of objects with utt_id and keyword_id.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: found {type(entries).__name__}; expected a list of objects")
    result = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"utt_id", "keyword_id"} <= entry.keys():
            raise DataError(f"{path}: entry {index} lacks utt_id or keyword_id")
        speaker_id = entry.get("speaker_id")
        result.append(
            Entry(utt_id=entry["utt_id"], keyword_id=entry["keyword_id"], speaker_id=speaker_id)
        )
    return result


def text_of(entry: Entry, keywords: list[str], transcripts: dict[str, str], list_path: Path) -> str:
    """Text of one utterance: the keyword, the transcript, <noise> or <filler>.

    The transcript of a positive counts if it contains the keyword.

    Raises: DataError for a keyword id out of range, or for a positive id in a list of negatives
        (n_*.json) or the reverse.
    """
    keyword_id, utt_id = entry.keyword_id, entry.utt_id
    has_keywords = list_path.name.startswith("p_")
    if (
        not isinstance(keyword_id, int)
        or not -1 <= keyword_id < len(keywords)
        or (keyword_id >= 0) != has_keywords
    ):
        raise DataError(
            f"{list_path}: '{utt_id}' has keyword_id {keyword_id}; expected "
            + (f"0 to {len(keywords) - 1}" if has_keywords else "-1")
        )
    if keyword_id >= 0:
        keyword = keywords[keyword_id]
        transcript = transcripts.get(utt_id, "")
        return transcript if keyword in transcript else keyword
    if utt_id not in transcripts:
        return FILLER
    return transcripts[utt_id] or NOISE


def prepare_split(split: str, corpus_dir: Path, transcripts_dir: Path) -> list[Row]:
    """Rows of one split, sorted by utterance id.

    Raises: DataError that names duplicate ids and missing recordings.
    """
    resources_dir = corpus_dir / "mobvoi_hotword_dataset_resources"
    audio_dir = corpus_dir / "mobvoi_hotword_dataset"
    keywords = read_keywords(resources_dir)
    transcripts = read_transcripts(transcripts_dir / f"{split}.text")
    present = set(os.listdir(audio_dir))  # one listing: 300,000 calls of stat are slow
    rows: dict[str, Row] = {}
    missing = []
    for path in (resources_dir / f"{sign}_{split}.json" for sign in "pn"):
        for entry in read_entries(path):
            utt_id = entry.utt_id
            if utt_id in rows:
                raise DataError(f"{path}: '{utt_id}' occurs a second time in split {split}")
            if f"{utt_id}.wav" not in present:
                missing.append(utt_id)
            rows[utt_id] = Row(
                utt_id=utt_id,
                wav=str((audio_dir / f"{utt_id}.wav").resolve()),
                text=text_of(entry, keywords, transcripts, path),
                # An unknown speaker becomes a speaker of its own: whether it occurs in another
                # split cannot be known.
                speaker=entry.speaker_id or utt_id,
            )
    if missing:
        named = ", ".join(missing[:MAX_NAMED])
        raise DataError(f"{audio_dir}: {len(missing)} recordings of {split} are missing: {named}")
    return [rows[utt_id] for utt_id in sorted(rows)]


def write_split(rows: list[Row], out_dir: Path) -> None:
    """Write wav.scp, text and utt2spk of one split."""
    columns = {
        "wav.scp": [row.wav for row in rows],
        "text": [row.text for row in rows],
        "utt2spk": [row.speaker for row in rows],
    }
    for name, values in columns.items():
        with atomic_path(out_dir / name) as temporary:
            lines = (f"{row.utt_id} {value}\n" for row, value in zip(rows, values, strict=True))
            temporary.write_text("".join(lines), encoding="utf-8")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus_dir",
        type=Path,
        required=True,
        help="folder with mobvoi_hotword_dataset/ and mobvoi_hotword_dataset_resources/",
    )
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="folder for the Kaldi folders train, dev, test"
    )
    parser.add_argument(
        "--transcripts_dir",
        type=Path,
        help="folder with {train,dev,test}.text, the transcripts of the negatives "
        "(default: the corpus's resources folder; a negative without transcript becomes <filler>)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the three splits."""
    arguments = parse_arguments(argv)
    default = arguments.corpus_dir / "mobvoi_hotword_dataset_resources"
    transcripts_dir = arguments.transcripts_dir or default
    splits = {s: prepare_split(s, arguments.corpus_dir, transcripts_dir) for s in SPLITS}
    for split, rows in splits.items():
        write_split(rows, arguments.out_dir / split)
        fillers = sum(row.text == FILLER for row in rows)
        print(f"{arguments.out_dir / split}: {len(rows)} utterances, {fillers} without transcript")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
