"""Preparation of a corpus: Kaldi lists with absolute paths, then ``data.list``."""

import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from wekws.dataset.audio import AudioError, probe
from wekws.dataset.manifest import (
    SPLITS,
    Utterance,
    kaldi_rows,
    read_kaldi_table,
    write_data_list,
    write_kaldi_table,
)
from wekws.errors import DataError
from wekws.files import require_not_input
from wekws.machine import follow_parent

logger = logging.getLogger(__name__)

_TABLES = ("wav.scp", "text", "utt2spk", "utt2dur", "utt2category")
_MAX_NAMED = 5
# Durations in utt2dur are rounded; a larger difference means that the file has changed.
_DURATION_TOLERANCE_S = 0.1


def prepare_kaldi(
    data_dir: str | os.PathLike[str], out_dir: str | os.PathLike[str]
) -> dict[str, dict[str, int]]:
    """Copy the Kaldi lists of all splits, with absolute paths, one folder per split.

    data_dir: ``{train,dev,test}`` hold ``wav.scp`` and ``text`` and optionally ``utt2spk``,
    ``utt2dur`` and ``utt2category``; paths are absolute or relative to ``data_dir``. Lists in
    folders below a split (``test/long``) are added to it.
    Duplicate ids and other problems are kept: ``validate`` reports them.
    Returns: number of lines per split and table.
    Raises: DataError if a list is missing, or if ``out_dir`` is ``data_dir``.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    _check_folders(data_dir, out_dir)
    sizes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        sizes[split] = {}
        for table in _TABLES:
            rows = split_rows(data_dir, split, table)
            write_kaldi_table(out_dir / split / table, rows)
            sizes[split][table] = len(rows)
    return sizes


def _check_folders(data_dir: Path, out_dir: Path) -> None:
    if out_dir.resolve() == data_dir.resolve():
        raise DataError(f"--out_dir {out_dir}: is --data_dir itself; choose another folder")
    needed = [data_dir / split / table for split in SPLITS for table in ("wav.scp", "text")]
    if missing := [str(path) for path in needed if not path.is_file()]:
        layout = "expected {train,dev,test}/{wav.scp,text} in --data_dir"
        raise DataError(f"{', '.join(missing)}: no such file; {layout}")


def split_rows(data_dir: Path, split: str, table: str) -> list[tuple[str, str]]:
    """Return the ids and values of a split's table, those in folders below it included.

    Paths in ``wav.scp`` are made absolute.
    Raises: DataError for a table that cannot be read.
    """
    folders = sorted(path.parent for path in (data_dir / split).rglob("wav.scp"))
    paths = [folder / table for folder in folders if (folder / table).is_file()]
    rows = [(row.key, row.value) for path in paths for row in kaldi_rows(path)]
    if table == "wav.scp":
        base = os.path.abspath(data_dir)
        return [(key, os.path.join(base, wav) if wav else "") for key, wav in rows]
    return rows


def make_data_list(
    wav_scp: str | os.PathLike[str],
    text: str | os.PathLike[str],
    *,
    data_list: str | os.PathLike[str],
    utt2dur: str | os.PathLike[str] | None = None,
    utt2category: str | os.PathLike[str] | None = None,
    num_workers: int = 1,
) -> list[Utterance]:
    """Join ``wav.scp`` and ``text`` into a ``data.list`` with durations; return its utterances.

    Durations are those of the audio files: they become the hours of false alarms per hour.
    utt2dur: durations in seconds to compare them with; a difference gives a warning.
    utt2category: kinds of audio (speech, music, ...), to count false alarms for each.
    num_workers: processes that read headers; 1: this one.
    Raises: DataError if an id is in one of the two lists only, or if audio cannot be read.
    """
    require_not_input(data_list, wav_scp, text, utt2dur, utt2category)
    wavs, texts = read_kaldi_table(wav_scp), read_kaldi_table(text)
    _check_ids(wavs, texts, wav_scp, text)
    durations = _durations(wavs, num_workers)
    if utt2dur:
        _compare_durations(durations, utt2dur)
    categories = read_kaldi_table(utt2category) if utt2category else {}
    utterances = [
        Utterance(
            key=key,
            wav=wav,
            txt=texts[key],
            duration=durations[key],
            category=categories.get(key, ""),
        )
        for key, wav in wavs.items()
    ]
    write_data_list(data_list, utterances)
    return utterances


def _check_ids(
    wavs: Mapping[str, str],
    texts: Mapping[str, str],
    wav_scp: str | os.PathLike[str],
    text: str | os.PathLike[str],
) -> None:
    if not wavs:
        raise DataError(f"{wav_scp}: no utterances; expected `id path` lines")
    unmatched = {wav_scp: wavs.keys() - texts.keys(), text: texts.keys() - wavs.keys()}
    problems = [
        f"{path}: {len(keys)} ids are in no other list, such as {_examples(keys)}"
        for path, keys in unmatched.items()
        if keys
    ]
    if problems:
        raise DataError("\n".join([*problems, "validate_data lists all of them"]))


def _examples(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:_MAX_NAMED])


def _durations(wavs: Mapping[str, str], num_workers: int) -> dict[str, float]:
    """Return the duration of each file in seconds, by id.

    Raises: DataError naming the first files that cannot be read.
    """
    if num_workers <= 1:
        probed = [duration_or_problem(wav) for wav in wavs.values()]
    else:
        with ProcessPoolExecutor(num_workers, initializer=follow_parent) as pool:
            probed = list(pool.map(duration_or_problem, wavs.values(), chunksize=64))
    problems = [result for result in probed if isinstance(result, str)]
    if problems:
        more = f"... {len(problems)} in all; validate_data lists them"
        raise DataError("\n".join([*problems[:_MAX_NAMED], more]))
    return {key: s for key, s in zip(wavs, probed, strict=True) if isinstance(s, float)}


def duration_or_problem(wav: str) -> float | str:
    """Return the duration in the header of a file, or a description of the problem."""
    try:
        return probe(wav).duration_s
    except AudioError as error:
        return str(error)


def _compare_durations(durations: Mapping[str, float], utt2dur: str | os.PathLike[str]) -> None:
    listed = read_kaldi_table(utt2dur)
    wrong = [
        key for key in durations if key in listed and durations_differ(listed[key], durations[key])
    ]
    for key in wrong[:_MAX_NAMED]:
        logger.warning(
            "%s: the duration of %s is '%s', but its audio has %.3f s, which is used instead",
            utt2dur,
            key,
            listed[key],
            durations[key],
        )
    if len(wrong) > _MAX_NAMED:
        logger.warning("%s: %d durations in all differ from the audio", utt2dur, len(wrong))


def durations_differ(listed_s: str, actual_s: float) -> bool:
    """Return whether a duration in utt2dur is not a number or is not that of the audio."""
    try:
        return not abs(float(listed_s) - actual_s) <= _DURATION_TOLERANCE_S
    except ValueError:
        return True
