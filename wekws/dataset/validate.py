"""Validation of a corpus: one pass over all lists and all audio reports every problem."""

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

import numpy as np
from tqdm import tqdm

from wekws.dataset.audio import (
    AudioDefect,
    AudioError,
    AudioInfo,
    decode_pieces,
    probe,
    unsupported_rate,
)
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import SPLITS, KaldiRow, kaldi_rows
from wekws.dataset.prepare import durations_differ
from wekws.dataset.problems import SplitReport, ValidationReport
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.front_end import FrontEnd
from wekws.machine import follow_parent

# -80 dBFS: three steps of a 16-bit converter.
_SILENT_PEAK = 1e-4
# Far above the 1 of full scale: the samples of a floating-point file are on an integer scale.
_UNSCALED_PEAK = 8.0
# Above any 16-bit scale; near the largest float32 the features overflow.
_MAX_PEAK = 65536.0
# Fewer files than this are decoded in less time than a process pool needs to start.
_MIN_PARALLEL = 64


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The lists of one split; the first line with an id counts."""

    name: str
    """train, dev or test."""
    wavs: dict[str, str]
    """Path of the audio file by id."""
    texts: dict[str, str]
    """Transcript by id."""
    speakers: dict[str, str]
    """Speaker by id."""
    durations: dict[str, str]
    """Listed duration in seconds by id, as text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Decoded:
    """A decoded audio file."""

    info: AudioInfo
    """Its header."""
    peak: float
    """Largest absolute sample value."""
    digest: str
    """SHA-1 of the bytes of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unusable:
    """An audio file that cannot be decoded."""

    kind: AudioDefect
    """Kind of defect."""
    found: str
    """Description of the defect."""


_Scan = _Decoded | _Unusable


def validate(
    data_dir: str | os.PathLike[str],
    label_set: LabelSet,
    front_end: FrontEnd,
    *,
    num_workers: int = 1,
    disjoint_speakers: bool = False,
) -> ValidationReport:
    """Check the lists of all splits and decode every audio file once.

    data_dir: holds one Kaldi folder per split (train, dev, test).
    num_workers: processes that decode audio.
    disjoint_speakers: a speaker in two splits is an error, not a warning.
    Returns: all problems of the corpus; none of them is raised.
    Raises: DataError if ``data_dir`` holds no split.
    """
    report = ValidationReport()
    if disjoint_speakers:
        report.raise_to_error("speaker_in_two_splits")
    splits = [_read_split(folder, report) for folder in _split_dirs(Path(data_dir))]
    scans = _scan_all({wav for split in splits for wav in split.wavs.values()}, num_workers)
    _check_keyword_tokens(label_set, report)
    for split in splits:
        _check_pairs(split, report)
        _check_audio(split, scans, front_end, report)
        _check_labels(split, scans, front_end, label_set, report)
        report.splits[split.name] = _count(
            split, scans, label_set.keywords, front_end.sample_rate_hz
        )
        _check_keywords(split.name, report)
    _check_overlaps(splits, scans, report)
    return report


def _split_dirs(data_dir: Path) -> list[Path]:
    folders = [data_dir / name for name in SPLITS if (data_dir / name).is_dir()]
    if not folders:
        raise DataError(f"{data_dir}: none of {', '.join(SPLITS)} in it; expected Kaldi folders")
    return folders


def _read_split(folder: Path, report: ValidationReport) -> _Split:
    wavs = _read_table(folder / "wav.scp", report)
    texts = _read_table(folder / "text", report)
    speakers = _read_table(folder / "utt2spk", report)
    for table, rows in (("wav.scp", wavs), ("text", texts)):
        if not rows:
            report.add("list_empty", str(folder / table), "no file or no lines")
    return _Split(
        name=folder.name,
        wavs=wavs,
        texts=texts,
        # Some corpora have the same utt2spk in every split.
        speakers={key: speakers[key] for key in speakers.keys() & wavs.keys()},
        durations=_read_table(folder / "utt2dur", report),
    )


def _read_table(path: Path, report: ValidationReport) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows: dict[str, KaldiRow] = {}
    try:
        for row in kaldi_rows(path):
            first = rows.setdefault(row.key, row)
            if first is not row:
                found = f"'{row.key}' is already in line {first.line}"
                report.add("duplicate_id", f"{path}:{row.line}", found)
    except DataError as error:
        report.add("list_unreadable", str(path), str(error))
    return {key: row.value for key, row in rows.items()}


def _scan_all(paths: set[str], num_workers: int) -> dict[str, _Scan]:
    ordered = sorted(paths)
    progress = functools.partial(tqdm, total=len(ordered), desc="audio", unit="file", disable=None)
    if num_workers <= 1 or len(ordered) < _MIN_PARALLEL:
        return dict(zip(ordered, progress(map(_scan, ordered)), strict=True))
    with ProcessPoolExecutor(num_workers, initializer=follow_parent) as pool:
        return dict(zip(ordered, progress(pool.map(_scan, ordered, chunksize=32)), strict=True))


def _scan(path: str) -> _Scan:
    try:
        info = probe(path)
        peak = max(float(np.abs(samples).max()) for samples in decode_pieces(path))
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha1").hexdigest()
    except AudioError as error:
        return _Unusable(kind=error.kind, found=error.found)
    return _Decoded(info=info, peak=peak, digest=digest)


def _num_frames(info: AudioInfo, front_end: FrontEnd) -> int:
    """Return the number of filterbank frames of a file after resampling."""
    ratio = front_end.sample_rate_hz / info.sample_rate_hz
    return front_end.num_frames(math.ceil(info.num_frames * ratio))


def _check_keyword_tokens(label_set: LabelSet, report: ValidationReport) -> None:
    ids = label_set.vocabulary.ids
    for keyword in label_set.keywords:
        if outside := [t for t in label_set.tokenizer.tokenise(keyword) if t not in ids]:
            found = f"tokens {' '.join(outside)} are not in the vocabulary"
            report.add("keyword_not_in_vocabulary", f"keyword {keyword}", found)


def _check_pairs(split: _Split, report: ValidationReport) -> None:
    """Every id must be in wav.scp and in text; a transcript should not be empty."""
    for key in sorted(split.texts.keys() - split.wavs.keys()):
        report.add("text_without_audio", f"{split.name}/{key}", "only in text")
    for key in sorted(split.wavs.keys() - split.texts.keys()):
        report.add("audio_without_text", f"{split.name}/{key}", "only in wav.scp")
    for key, text in split.texts.items():
        if not text:
            report.add("text_empty", f"{split.name}/{key}", "no words")


def _check_audio(
    split: _Split, scans: Mapping[str, _Scan], front_end: FrontEnd, report: ValidationReport
) -> None:
    for key, wav in split.wavs.items():
        scan, where = scans[wav], f"{split.name}/{key} ({wav})"
        if isinstance(scan, _Unusable):
            report.add(f"audio_{scan.kind}", where, scan.found)
            continue
        duration_s = scan.info.duration_s
        if _num_frames(scan.info, front_end) == 0:
            report.add("audio_too_short", where, f"{1000 * duration_s:.1f} ms")
        elif scan.peak <= _SILENT_PEAK:
            report.add("audio_silent", where, f"peak {scan.peak:.1e} of full scale")
        elif scan.peak > _UNSCALED_PEAK:
            kind = "audio_out_of_range" if scan.peak > _MAX_PEAK else "audio_not_scaled"
            report.add(kind, where, f"peak {scan.peak:.3g}")
        if found := unsupported_rate(scan.info.sample_rate_hz, front_end.sample_rate_hz):
            report.add("audio_unsupported_rate", where, found)
        if key in split.durations and durations_differ(split.durations[key], duration_s):
            found = f"{split.durations[key]} s in utt2dur, {duration_s:.3f} s in the file"
            report.add("duration_differs", where, found)
    peaks = [scan.peak for wav in split.wavs.values() if isinstance(scan := scans[wav], _Decoded)]
    if peaks and max(peaks) <= _SILENT_PEAK:
        report.add("split_silent", split.name, f"all {len(peaks)} files are silent")


def _check_labels(
    split: _Split,
    scans: Mapping[str, _Scan],
    front_end: FrontEnd,
    label_set: LabelSet,
    report: ValidationReport,
) -> None:
    """CTC needs one model frame per label and one more between two equal labels."""
    for key in sorted(split.wavs.keys() & split.texts.keys()):
        scan = scans[split.wavs[key]]
        if isinstance(scan, _Unusable):
            continue
        ids = label_set.encode(split.texts[key])
        needed = len(ids) + sum(a == b for a, b in itertools.pairwise(ids))
        present = front_end.num_model_frames(_num_frames(scan.info, front_end))
        if needed > present:
            found = f"'{split.texts[key]}' needs {needed} model frames, the audio has {present}"
            report.add("labels_too_long", f"{split.name}/{key}", found)


def _count(
    split: _Split, scans: Mapping[str, _Scan], keywords: Sequence[str], sample_rate_hz: int
) -> SplitReport:
    decoded = [scan for wav in split.wavs.values() if isinstance(scan := scans[wav], _Decoded)]
    infos = [scan.info for scan in decoded]
    found = [
        [keyword for keyword in keywords if contains_keyword(text, keyword)]
        for text in split.texts.values()
    ]
    counts = collections.Counter(itertools.chain.from_iterable(found))
    conversions = collections.Counter(info.conversion(sample_rate_hz) for info in infos)
    del conversions[""]
    return SplitReport(
        num_utterances=len(split.wavs),
        num_speakers=len(set(split.speakers.values())),
        hours=sum(info.duration_s for info in infos) / 3600,
        keywords={keyword: counts[keyword] for keyword in keywords},
        negatives=found.count([]),
        conversions=dict(conversions),
        durations=[round(info.duration_s, 3) for info in infos],
    )


def _check_keywords(name: str, report: ValidationReport) -> None:
    kind = "keyword_absent_from_dev" if name == "dev" else "keyword_absent"
    for keyword, count in report.splits[name].keywords.items():
        if count == 0:
            report.add(kind, name, f"no utterance contains {keyword}")
    if report.splits[name].num_utterances > 0 and report.splits[name].negatives == 0:
        report.add(f"negatives_absent_from_{name}", name, "every utterance contains a keyword")


def _check_overlaps(
    splits: Sequence[_Split], scans: Mapping[str, _Scan], report: ValidationReport
) -> None:
    """No utterance, speaker or recording should be in two splits."""
    for one, other in itertools.combinations(splits, 2):
        pair = f"{one.name} and {other.name}"
        shared = (one.wavs.keys() | one.texts.keys()) & (other.wavs.keys() | other.texts.keys())
        for key in sorted(shared):
            report.add("utterance_in_two_splits", pair, f"'{key}' is in both")
        for speaker in sorted({*one.speakers.values()} & {*other.speakers.values()}):
            report.add("speaker_in_two_splits", pair, f"'{speaker}' is in both")
        first, second = _key_by_digest(one, scans), _key_by_digest(other, scans)
        shared_digests = first.keys() & second.keys()
        for key, copy in sorted((first[d], second[d]) for d in shared_digests):
            if key != copy:
                found = f"'{key}' and '{copy}' are the same recording"
                report.add("audio_in_two_splits", pair, found)


def _key_by_digest(split: _Split, scans: Mapping[str, _Scan]) -> dict[str, str]:
    return {
        scan.digest: key
        for key, wav in split.wavs.items()
        if isinstance(scan := scans[wav], _Decoded)
    }
