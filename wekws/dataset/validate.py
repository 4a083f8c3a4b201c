"""Every problem of a corpus in one pass, before anything is trained on it."""

import collections
import functools
import hashlib
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from wekws.dataset.audio import AudioError, AudioInfo, decode
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import KaldiRow, kaldi_rows
from wekws.dataset.problems import Report, SplitReport
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.front_end import FrontEnd

# -80 dBFS: three steps of a 16-bit converter.
_SILENT_PEAK = 1e-4
# utt2dur is rounded by its writers; more than this is another file.
_DURATION_TOLERANCE_S = 0.1
# Fewer files than this are read before a pool has started.
_MIN_PARALLEL = 64


@dataclass(kw_only=True)
class _Split:
    """The lists of one split; of a duplicate id the first line counts."""

    name: str
    wavs: dict[str, str]
    texts: dict[str, str]
    speakers: dict[str, str]
    durations: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Scan:
    """One audio file, decoded: its header and peak, or its flaw; and a digest of its bytes."""

    info: AudioInfo | None = None
    peak: float = 0.0
    digest: str = ""
    flaw: str = ""
    found: str = ""


def validate(
    split_dirs: Mapping[str, str | os.PathLike[str]],
    labels: LabelSet,
    front_end: FrontEnd,
    *,
    num_workers: int = 1,
    disjoint_speakers: bool = False,
) -> Report:
    """Check the Kaldi folders of all splits, decoding every audio file once.

    split_dirs: folder by split name; a keyword absent from `dev` is only a warning.
    disjoint_speakers: a speaker in two splits is an error, not a warning.
    """
    report = Report()
    if disjoint_speakers:
        report.raise_to_error("speaker_in_two_splits")
    splits = [_read_split(name, Path(path), report) for name, path in split_dirs.items()]
    scans = _scan_all({wav for split in splits for wav in split.wavs.values()}, num_workers)
    _check_keyword_tokens(labels, report)
    for split in splits:
        _check_pairs(split, report)
        _check_audio(split, scans, front_end, report)
        _check_labels(split, scans, front_end, labels, report)
        report.splits[split.name] = _summarise(
            split, scans, labels.keywords, front_end.sample_rate_hz
        )
        _check_keywords(split.name, report)
    _check_overlaps(splits, scans, report)
    return report


def _read_split(name: str, folder: Path, report: Report) -> _Split:
    wavs = _read_table(folder / "wav.scp", report)
    texts = _read_table(folder / "text", report)
    speakers = _read_table(folder / "utt2spk", report)
    for table, rows in (("wav.scp", wavs), ("text", texts)):
        if not rows:
            report.add("list_empty", str(folder / table), "no file or no lines")
    return _Split(
        name=name,
        wavs=wavs,
        texts=texts,
        # A corpus may copy one utt2spk into every split.
        speakers={key: speakers[key] for key in speakers.keys() & wavs.keys()},
        durations=_read_table(folder / "utt2dur", report),
    )


def _read_table(path: Path, report: Report) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows: dict[str, KaldiRow] = {}
    try:
        for row in kaldi_rows(path):
            first = rows.setdefault(row.key, row)
            if first is not row:
                found = f"'{row.key}' as in line {first.line}"
                report.add("duplicate_id", f"{path}:{row.line}", found)
    except DataError as error:
        report.add("list_unreadable", str(path), str(error))
    return {key: row.value for key, row in rows.items()}


def _scan_all(paths: set[str], num_workers: int) -> dict[str, _Scan]:
    ordered = sorted(paths)
    progress = functools.partial(tqdm, total=len(ordered), desc="audio", unit="file", disable=None)
    if num_workers <= 1 or len(ordered) < _MIN_PARALLEL:
        return dict(zip(ordered, progress(map(_scan, ordered)), strict=True))
    with ProcessPoolExecutor(num_workers) as pool:
        return dict(zip(ordered, progress(pool.map(_scan, ordered, chunksize=32)), strict=True))


def _scan(path: str) -> _Scan:
    try:
        samples, info = decode(path)
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha1").hexdigest()
    except AudioError as error:
        return _Scan(flaw=error.kind, found=error.found)
    return _Scan(info=info, peak=float(max(samples.max(), -samples.min())), digest=digest)


def _num_frames(info: AudioInfo, front_end: FrontEnd) -> int:
    """Return the filterbank frames of a file once it is resampled."""
    ratio = front_end.sample_rate_hz / info.sample_rate_hz
    return front_end.num_frames(math.ceil(info.num_frames * ratio))


def _check_keyword_tokens(labels: LabelSet, report: Report) -> None:
    ids = labels.vocabulary.ids
    for keyword in labels.keywords:
        if outside := [t for t in labels.tokenizer.tokenise(keyword) if t not in ids]:
            found = f"tokens {' '.join(outside)} are not in the vocabulary"
            report.add("keyword_not_in_vocabulary", f"keyword {keyword}", found)


def _check_pairs(split: _Split, report: Report) -> None:
    for key in sorted(split.texts.keys() - split.wavs.keys()):
        report.add("text_without_audio", f"{split.name}/{key}", "only in text")
    for key in sorted(split.wavs.keys() - split.texts.keys()):
        report.add("audio_without_text", f"{split.name}/{key}", "only in wav.scp")
    for key, text in split.texts.items():
        if not text:
            report.add("text_empty", f"{split.name}/{key}", "no words")


def _check_audio(
    split: _Split, scans: Mapping[str, _Scan], front_end: FrontEnd, report: Report
) -> None:
    for key, wav in split.wavs.items():
        scan, where = scans[wav], f"{split.name}/{key} ({wav})"
        if scan.info is None:
            report.add(f"audio_{scan.flaw}", where, scan.found)
            continue
        duration_s = scan.info.duration_s
        if _num_frames(scan.info, front_end) == 0:
            report.add("audio_too_short", where, f"{1000 * duration_s:.1f} ms")
        elif scan.peak <= _SILENT_PEAK:
            report.add("audio_silent", where, f"peak {scan.peak:.1e} of full scale")
        listed_s = _number(split.durations.get(key, duration_s))
        if not abs(listed_s - duration_s) <= _DURATION_TOLERANCE_S:
            found = f"{split.durations[key]} s listed, {duration_s:.3f} s in the file"
            report.add("duration_differs", where, found)


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_labels(
    split: _Split,
    scans: Mapping[str, _Scan],
    front_end: FrontEnd,
    labels: LabelSet,
    report: Report,
) -> None:
    """CTC needs a frame for each label and one more between two equal ones."""
    for key in sorted(split.wavs.keys() & split.texts.keys()):
        info = scans[split.wavs[key]].info
        if info is None:
            continue
        ids = labels.encode(split.texts[key])
        needed = len(ids) + sum(a == b for a, b in itertools.pairwise(ids))
        present = front_end.num_model_frames(_num_frames(info, front_end))
        if needed > present:
            found = f"{needed} frames needed for '{split.texts[key]}', {present} there"
            report.add("labels_too_long", f"{split.name}/{key}", found)


def _summarise(
    split: _Split, scans: Mapping[str, _Scan], keywords: Sequence[str], sample_rate_hz: int
) -> SplitReport:
    infos = [info for wav in split.wavs.values() if (info := scans[wav].info)]
    texts = split.texts.values()
    said = [[word for word in keywords if contains_keyword(text, word)] for text in texts]
    counts = collections.Counter(itertools.chain.from_iterable(said))
    conversions = collections.Counter(info.conversion(sample_rate_hz) for info in infos)
    del conversions[""]
    return SplitReport(
        num_utterances=len(split.wavs),
        num_speakers=len(set(split.speakers.values())),
        hours=sum(info.duration_s for info in infos) / 3600,
        keywords={keyword: counts[keyword] for keyword in keywords},
        negatives=said.count([]),
        conversions=dict(conversions),
        durations=[round(info.duration_s, 3) for info in infos],
    )


def _check_keywords(name: str, report: Report) -> None:
    kind = "keyword_absent_from_dev" if name == "dev" else "keyword_absent"
    for keyword, count in report.splits[name].keywords.items():
        if count == 0:
            report.add(kind, name, f"no utterance says {keyword}")


def _check_overlaps(splits: Sequence[_Split], scans: Mapping[str, _Scan], report: Report) -> None:
    for one, other in itertools.combinations(splits, 2):
        pair = f"{one.name} and {other.name}"
        shared = (one.wavs.keys() | one.texts.keys()) & (other.wavs.keys() | other.texts.keys())
        for key in sorted(shared):
            report.add("utterance_in_two_splits", pair, f"'{key}' is in both")
        for speaker in sorted({*one.speakers.values()} & {*other.speakers.values()}):
            report.add("speaker_in_two_splits", pair, f"'{speaker}' is in both")
        mine, theirs = _by_digest(one, scans), _by_digest(other, scans)
        for key, twin in sorted((mine[d], theirs[d]) for d in mine.keys() & theirs.keys()):
            if key != twin:
                report.add("audio_in_two_splits", pair, f"'{key}' and '{twin}' are one recording")


def _by_digest(split: _Split, scans: Mapping[str, _Scan]) -> dict[str, str]:
    return {scans[wav].digest: key for key, wav in split.wavs.items() if scans[wav].digest}
