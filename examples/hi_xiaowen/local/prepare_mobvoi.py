"""Kaldi folders from a corpus in Mobvoi's layout: {train,dev,test}/{wav.scp,text,utt2spk}."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from wekws.errors import DataError
from wekws.files import atomic_path
from wekws.log import run

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
MOBVOI_KEYWORDS = ("嗨小问", "你好问问")
FILLER = "<filler>"
NOISE = "<noise>"
MAX_NAMED = 10  # faults that an error message lists one by one


def read_keywords(resources_dir):
    """Keywords by id: keywords.txt of a synthesised corpus, Mobvoi's two otherwise."""
    path = resources_dir / "keywords.txt"
    if not path.exists():
        return list(MOBVOI_KEYWORDS)
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_transcripts(path):
    """Transcripts of a split: utt_id -> text; spaces between Mandarin characters are closed up.

    Returns: an empty dict when there is no such file.
    """
    transcripts = {}
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


def close_up(text):
    """Single spaces, and none beside a Mandarin character: `嗨 小 问` -> 嗨小问."""
    result = ""
    for word in text.split():
        joined = not result or is_mandarin(result[-1]) or is_mandarin(word[0])
        result += word if joined else f" {word}"
    return result


def is_mandarin(character):
    """Whether a character is a CJK ideograph."""
    return "\u3400" <= character <= "\u9fff"


def read_entries(path):
    """Entries of one JSON list.

    Raises: DataError when it is not a list of objects with utt_id and keyword_id.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: found {type(entries).__name__}; expected a list of objects")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"utt_id", "keyword_id"} <= entry.keys():
            raise DataError(f"{path}: entry {index} lacks utt_id or keyword_id")
    return entries


def text_of(entry, keywords, transcripts, path):
    """Text of one utterance: the keyword, the transcript, <noise> or <filler>.

    Raises: DataError for a keyword id that no keyword has, or one in the list of the other sign.
    """
    keyword_id, utt_id = entry["keyword_id"], entry["utt_id"]
    is_known = isinstance(keyword_id, int) and -1 <= keyword_id < len(keywords)
    if not is_known or (keyword_id >= 0) != path.name.startswith("p_"):
        raise DataError(
            f"{path}: '{utt_id}' has keyword_id {keyword_id}; expected "
            + (f"0 to {len(keywords) - 1}" if path.name.startswith("p_") else "-1")
        )
    if keyword_id >= 0:
        return keywords[keyword_id]
    if utt_id not in transcripts:
        return FILLER
    return transcripts[utt_id] or NOISE


def prepare_split(split, corpus_dir, transcripts_dir):
    """Rows (utt_id, wav, text, speaker) of one split, sorted by id.

    Raises: DataError that names duplicate ids and recordings that are not there.
    """
    resources_dir = corpus_dir / "mobvoi_hotword_dataset_resources"
    audio_dir = corpus_dir / "mobvoi_hotword_dataset"
    keywords = read_keywords(resources_dir)
    transcripts = read_transcripts(transcripts_dir / f"{split}.text")
    present = set(os.listdir(audio_dir))  # one listing: a stat for each of 300,000 files is slow
    rows, missing = {}, []
    for path in (resources_dir / f"{sign}_{split}.json" for sign in "pn"):
        for entry in read_entries(path):
            utt_id = entry["utt_id"]
            if utt_id in rows:
                raise DataError(f"{path}: '{utt_id}' occurs a second time in split {split}")
            if f"{utt_id}.wav" not in present:
                missing.append(utt_id)
            wav = (audio_dir / f"{utt_id}.wav").resolve()
            text = text_of(entry, keywords, transcripts, path)
            # Without a speaker the utterance is its own: nothing can be said of it across splits.
            rows[utt_id] = (utt_id, str(wav), text, entry.get("speaker_id") or utt_id)
    if missing:
        named = ", ".join(missing[:MAX_NAMED])
        raise DataError(f"{audio_dir}: {len(missing)} recordings of {split} are missing: {named}")
    return [rows[utt_id] for utt_id in sorted(rows)]


def write_split(rows, out_dir):
    """Write wav.scp, text and utt2spk of one split."""
    for name, column in (("wav.scp", 1), ("text", 2), ("utt2spk", 3)):
        with atomic_path(out_dir / name) as temporary:
            lines = (f"{row[0]} {row[column]}\n" for row in rows)
            temporary.write_text("".join(lines), encoding="utf-8")


def main(argv=None):
    """Prepare the three splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus_dir", type=Path, required=True)
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--transcripts_dir", type=Path, help="holds {split}.text")
    arguments = parser.parse_args(argv)
    default = arguments.corpus_dir / "mobvoi_hotword_dataset_resources"
    transcripts_dir = arguments.transcripts_dir or default
    splits = {s: prepare_split(s, arguments.corpus_dir, transcripts_dir) for s in SPLITS}
    for split, rows in splits.items():
        write_split(rows, arguments.out_dir / split)
        fillers = sum(row[2] == FILLER for row in rows)
        print(f"{arguments.out_dir / split}: {len(rows)} utterances, {fillers} without transcript")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
