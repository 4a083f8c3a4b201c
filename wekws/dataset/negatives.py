"""General negatives that join a corpus: folders of audio without a keyword.

A folder is a Kaldi tree (any ``wav.scp`` in it) or a plain folder of audio files. Each negative has
a category, so that false alarms can be counted per category, and a label text: its transcript only
where that is sure to be in the language of the keywords, otherwise ``<filler>`` or ``<noise>``.
Where the tokens are phonemes, a transcript in any known language is kept.
"""

import collections
import dataclasses
import hashlib
import itertools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import soundfile

from wekws.dataset.audio import AUDIO_SUFFIXES, AudioError, probe
from wekws.dataset.manifest import SPLITS, kaldi_rows, read_kaldi_table, write_kaldi_table
from wekws.dataset.vocabulary import FILLER_TOKEN, contains_keyword, words_of_language
from wekws.errors import DataError
from wekws.files import atomic_path

TextUse = Literal["auto", "use", "filler"]
"""Use of the transcripts of negatives: only those in the keywords' language, all, or none."""

NOISE_TOKEN = "<noise>"
# Shares of train and dev of what has no split of its own; the rest is test.
_TRAIN_SHARE, _DEV_SHARE = 0.6, 0.2
# A category with one of these in its name holds no speech.
_NOISE_NAMES = ("noise", "music", "sound", "ambien", "silence")
# Length above which a recording is cut, and the length of its pieces, in seconds. Training leaves
# out what is above 20.5 s (filter_conf.max_length); scoring batches of long recordings needs much
# memory.
_TRAIN_PIECES_S = (20.0, 10.0)
_OTHER_PIECES_S = (60.0, 60.0)
_MARKUP = re.compile(r"<[^<>\s]+>")
_LANGUAGE_CODE = re.compile("[a-z]{2,3}")
_MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Negative:
    """One recording of a folder of negatives."""

    key: str
    """Utterance id."""
    wav: str
    """Absolute path of the audio."""
    split: str
    """train, dev or test."""
    transcript: str
    """Words, markup, or nothing if the wording is unknown."""
    category: str
    """Kind of audio, such as speech or music."""
    language: str
    """Language of the transcript, such as ``en``; empty if unknown."""
    speaker: str
    """Speaker; empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Rule that decides the label text of a negative."""

    keywords: Sequence[str]
    """Keywords, in normalised form."""
    language: str
    """Language of the keywords, such as ``en``."""
    text_use: TextUse = "auto"
    """Use of transcripts."""
    has_phonemes: bool = False
    """Whether the tokens are phonemes, which other languages share."""
    scripts: frozenset[str] = field(init=False)
    """Scripts of the keywords."""

    def __post_init__(self) -> None:
        """Derive the scripts of the keywords."""
        object.__setattr__(self, "scripts", scripts_of("".join(self.keywords)))

    def keyword_in(self, negative: Negative) -> str | None:
        """Return the first keyword that the transcript contains, if any."""
        found = (word for word in self.keywords if contains_keyword(negative.transcript, word))
        return next(found, None)

    def text(self, negative: Negative) -> str:
        """Return the transcript, ``<filler>`` (speech) or ``<noise>`` (no speech).

        Markup stays as it is. Without any transcript, the category decides: a name with noise,
        music, sound, ambience or silence in it means no speech. Words are kept if ``text_use`` is
        ``use``; with ``auto``, if the language is known to be that of the keywords and all letters
        are of the keywords' scripts. Where the tokens are phonemes, words of another known language
        are kept too, see ``words_of_language``.
        """
        words = _MARKUP.sub("", negative.transcript).strip()
        if not words and negative.transcript:
            return negative.transcript
        if not words:
            is_noise = any(name in negative.category.lower() for name in _NOISE_NAMES)
            return NOISE_TOKEN if is_noise else FILLER_TOKEN
        if self.text_use == "use":
            return negative.transcript
        language = _language_code(negative)
        if self.text_use == "filler":
            return FILLER_TOKEN
        if language == self.language and scripts_of(words) <= self.scripts:
            return negative.transcript
        if self.has_phonemes and language not in ("", self.language):
            return words_of_language(words, language) or FILLER_TOKEN
        return FILLER_TOKEN


@dataclass(frozen=True, kw_only=True)
class AddedNegatives:
    """Account of the negatives that joined a corpus."""

    counts: Mapping[tuple[str, str], collections.Counter[str]]
    """Recordings by split and category, and for each use: ``text``, ``<filler>``, ``<noise>``."""
    with_keyword: Sequence[str]
    """``id (KEYWORD)`` of each recording that contains a keyword and was left out."""
    without_language: int
    """Transcripts that became filler because no language code is given for them."""

    def table(self) -> str:
        """Return a Markdown table of the counts."""
        uses = ("text", FILLER_TOKEN, NOISE_TOKEN)
        names = ("transcript", "filler", "noise")
        rows = [
            f"| split | negatives | recordings | {' | '.join(names)} |",
            "|---|---|---|---|---|---|",
        ]
        for (split, category), counts in self.counts.items():
            cells = [split, category, str(counts.total()), *(str(counts[use]) for use in uses)]
            rows.append(f"| {' | '.join(cells)} |")
        return "\n".join(rows)


def add_negatives(
    lists: str | os.PathLike[str],
    folders: Sequence[str | os.PathLike[str]],
    rule: LabelRule,
    *,
    train_as_dev: bool = False,
) -> AddedNegatives:
    """Add the negatives of some folders to the Kaldi lists of a corpus.

    lists: ``{train,dev,test}`` hold ``wav.scp`` and ``text`` with absolute paths; these,
    ``utt2spk`` and ``utt2category`` are extended.
    folders: see ``read_negatives``. Audio that the corpus lists as well counts once, as a negative.
    rule: decides the label texts. Recordings above 20 s (train) or 60 s (dev and test) are cut into
    pieces of at most 10 s or 60 s, which are written to ``lists/negatives``; words are not known
    to belong to a piece and become filler. A recording with a keyword in its transcript, here or
    in the corpus, is left out.
    train_as_dev: what is for training joins dev, unless its phonemes are learnt. Where the keywords
        of train are synthesised, a model learns from filler that real speech has no keyword.
    Raises: DataError if a folder has no audio, a table is damaged, or two recordings have one id.
    Audio that cannot be read is kept for ``validate`` to report.
    """
    lists = Path(lists)
    corpus = {split: _read_rows(lists / split / "wav.scp") for split in SPLITS}
    texts = {split: dict(_read_rows(lists / split / "text")) for split in SPLITS}
    listed = {
        os.path.realpath(wav): (split, key) for split, rows in corpus.items() for key, wav in rows
    }
    negatives = _distinct(negative for folder in folders for negative in read_negatives(folder))
    if train_as_dev:
        negatives = [
            n if n.split != "train" or _is_taught(n, rule) else dataclasses.replace(n, split="dev")
            for n in negatives
        ]

    kept, with_keyword, replaced = [], [], set()
    for negative in negatives:
        in_corpus = listed.get(os.path.realpath(negative.wav))
        found = rule.keyword_in(negative)
        if in_corpus and not found:
            own_text = texts[in_corpus[0]].get(in_corpus[1], "")
            found = next((w for w in rule.keywords if contains_keyword(own_text, w)), None)
        if found:
            with_keyword.append(f"{negative.key} ({found})")
            continue
        kept.append(negative)
        if in_corpus:
            replaced.add(in_corpus)
    kept = [piece for negative in kept for piece in _pieces(negative, lists / "negatives")]
    taken = {row for split, rows in corpus.items() for row in ((split, key) for key, _ in rows)}
    _refuse_taken({key for _, key in taken - replaced}, kept)
    for split in SPLITS:
        gone = {key for other, key in replaced if other == split}
        _extend(lists / split, gone, [n for n in kept if n.split == split], rule)
    return _account(kept, with_keyword, rule)


def _read_rows(path: Path) -> list[tuple[str, str]]:
    return [(row.key, row.value) for row in kaldi_rows(path)] if path.is_file() else []


def _distinct(negatives: Iterable[Negative]) -> list[Negative]:
    """Return the negatives, each audio file once (the first counts)."""
    by_wav: dict[str, Negative] = {}
    for negative in negatives:
        by_wav.setdefault(os.path.realpath(negative.wav), negative)
    return list(by_wav.values())


def _is_taught(negative: Negative, rule: LabelRule) -> bool:
    """Return whether the phonemes of a recording are known and it will not be cut."""
    return rule.has_phonemes and _has_words(rule.text(negative)) and _num_pieces(negative) == 1


def _has_words(text: str) -> bool:
    return bool(_MARKUP.sub("", text).strip())


def _language_code(negative: Negative) -> str:
    """Return the language as two or three letters, without a region; empty if it is no code."""
    code = re.split("[-_]", negative.language.lower())[0]
    return code if _LANGUAGE_CODE.fullmatch(code) else ""


def num_pieces(duration_s: float, split: str) -> int:
    """Return how many pieces a recording of this length is cut into, for a split; 1: it is not."""
    longest_s, piece_s = _TRAIN_PIECES_S if split == "train" else _OTHER_PIECES_S
    return 1 if duration_s <= longest_s else math.ceil(duration_s / piece_s)


def _num_pieces(negative: Negative) -> int:
    try:
        return num_pieces(probe(negative.wav).duration_s, negative.split)
    except AudioError:
        return 1


def _pieces(negative: Negative, out_dir: Path) -> list[Negative]:
    """Return a recording, or the pieces of one that is too long, as FLAC files in ``out_dir``."""
    num = _num_pieces(negative)
    if num == 1:
        return [negative]
    info = probe(negative.wav)
    pieces = [
        dataclasses.replace(
            negative,
            key=f"{negative.key}_{i:04d}",
            wav=os.path.abspath(out_dir / f"{negative.key}_{i:04d}.flac"),
            transcript=FILLER_TOKEN if _has_words(negative.transcript) else negative.transcript,
        )
        for i in range(num)
    ]
    blocks = soundfile.blocks(
        negative.wav, blocksize=math.ceil(info.num_frames / num), dtype="float32", always_2d=True
    )
    for piece, samples in zip(pieces, blocks, strict=True):
        if not _is_newer(piece.wav, negative.wav):
            with atomic_path(piece.wav) as temporary, open(temporary, "wb") as stream:
                soundfile.write(stream, samples.mean(1), info.sample_rate_hz, format="FLAC")
    return pieces


def _is_newer(path: str, source: str) -> bool:
    return os.path.isfile(path) and os.path.getmtime(path) >= os.path.getmtime(source)


def _refuse_taken(taken: set[str], kept: Sequence[Negative]) -> None:
    counts = collections.Counter(negative.key for negative in kept)
    twice = sorted(key for key, count in counts.items() if count > 1 or key in taken)
    if twice:
        raise DataError(
            f"--negatives: {len(twice)} ids are taken by other recordings, such as "
            f"{', '.join(twice[:_MAX_NAMED])}; rename them in wav.scp"
        )


def _extend(folder: Path, gone: set[str], added: Sequence[Negative], rule: LabelRule) -> None:
    """Remove some ids from the tables of a split, then add negatives."""
    new = {
        "wav.scp": [(negative.key, negative.wav) for negative in added],
        "text": [(negative.key, rule.text(negative)) for negative in added],
        "utt2spk": [(negative.key, negative.speaker) for negative in added if negative.speaker],
        "utt2category": [(negative.key, negative.category) for negative in added],
        "utt2dur": [],
    }
    for table, rows in new.items():
        own = [row for row in _read_rows(folder / table) if row[0] not in gone]
        write_kaldi_table(folder / table, [*own, *rows])


def _account(
    kept: Sequence[Negative], with_keyword: Sequence[str], rule: LabelRule
) -> AddedNegatives:
    counts: dict[tuple[str, str], collections.Counter[str]] = {}
    without_language = 0
    for negative in sorted(kept, key=lambda n: (SPLITS.index(n.split), n.category)):
        text = rule.text(negative)
        use = text if text in (FILLER_TOKEN, NOISE_TOKEN) else "text"
        counts.setdefault((negative.split, negative.category), collections.Counter())[use] += 1
        has_words = _has_words(negative.transcript)
        without_language += has_words and use != "text" and not _language_code(negative)
    return AddedNegatives(
        counts=counts,
        with_keyword=with_keyword,
        without_language=without_language if rule.text_use == "auto" else 0,
    )


def read_negatives(folder: str | os.PathLike[str]) -> list[Negative]:
    """Read a folder of negatives, ordered by path.

    Kaldi tree: every folder with ``wav.scp`` counts; if some of them are called ``negatives``,
    only those. ``text``, ``utt2spk``, ``utt2lang`` and ``utt2category`` are optional; the last two
    may also lie in ``folder`` itself, for all splits. Paths in ``wav.scp`` are absolute or relative
    to ``folder``. Plain folder: all WAV, FLAC, Ogg, Opus and MP3 files; the category is the first
    folder below ``folder``, or its own name.
    A recording below ``train``, ``dev`` or ``test`` belongs to that split. Any other is put into
    train, dev or test (60, 20, 20 %) by a hash of its speaker, if there is one, or of its path.
    Raises: DataError if there is no audio, or a table is damaged.
    """
    folder = Path(os.path.abspath(folder))
    below = [Path(place) for place, _, _ in sorted(os.walk(folder, followlinks=True))]
    kaldi = [place for place in below if (place / "wav.scp").is_file()]
    named = [place for place in kaldi if "negatives" in place.relative_to(folder).parts]
    negatives = [n for place in named or kaldi for n in _kaldi_negatives(folder, place)]
    if not kaldi:
        negatives = [n for place in below for n in _plain_negatives(folder, place)]
    if not negatives:
        kinds = ", ".join(AUDIO_SUFFIXES)
        found = "no audio in it" if folder.is_dir() else "no folder"
        raise DataError(f"--negatives {folder}: {found}; expected wav.scp, or files {kinds}, in it")
    return negatives


def _kaldi_negatives(folder: Path, place: Path) -> Iterator[Negative]:
    wavs, texts = (_table(place / name) for name in ("wav.scp", "text"))
    tables = [_table(folder / name) | _table(place / name) for name in ("utt2lang", "utt2category")]
    languages, categories = tables
    speakers = _table(place / "utt2spk")
    for key, wav in wavs.items():
        speaker = speakers.get(key, "")
        yield Negative(
            key=key,
            wav=os.path.join(folder, wav),
            split=_split(place.relative_to(folder).parts, speaker or wav),
            transcript=texts.get(key, ""),
            category=categories.get(key) or folder.name,
            language=languages.get(key, "").strip("-"),
            speaker=speaker,
        )


def _plain_negatives(folder: Path, place: Path) -> Iterator[Negative]:
    parts = place.relative_to(folder).parts
    kinds = [part for part in parts if part not in SPLITS]
    for path in sorted(place.iterdir()):
        if path.suffix.lower() in AUDIO_SUFFIXES:
            name = path.relative_to(folder).as_posix()
            yield Negative(
                key=re.sub(r"\s", "_", f"{folder.name}/{name}").replace("/", "-"),
                wav=str(path),
                split=_split(parts, name),
                transcript="",
                category=kinds[0] if kinds else folder.name,
                language="",
                speaker="",
            )


def _table(path: Path) -> dict[str, str]:
    return read_kaldi_table(path) if path.is_file() else {}


def _split(parts: Sequence[str], unit: str) -> str:
    """Return the split that a path names, else one by the hash of a unit that stays together."""
    if named := [part for part in parts if part in SPLITS]:
        return named[0]
    share = int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8]) / 2**64
    bounds = itertools.accumulate((_TRAIN_SHARE, _DEV_SHARE))
    return next((s for s, bound in zip(SPLITS, bounds, strict=False) if share < bound), "test")


def scripts_of(text: str) -> frozenset[str]:
    """Return the scripts of the letters of a text, by Unicode's names: LATIN, CJK, CYRILLIC."""
    letters = {char for char in unicodedata.normalize("NFKC", text) if char.isalpha()}
    return frozenset(unicodedata.name(char, "UNKNOWN").split()[0] for char in letters)


def language_of(keywords: Iterable[str]) -> Literal["zh", "en"]:
    """Return the language of keywords, as far as the recipe knows languages: zh for characters."""
    return "zh" if "CJK" in scripts_of("".join(keywords)) else "en"
