"""Preparation of a corpus: Kaldi lists with absolute paths, then ``data.list``."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
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

_TABLES = ("wav.scp", "text", "utt2spk", "utt2dur")
_MAX_NAMED = 5


def prepare_kaldi(
    data_dir: str | os.PathLike[str], out_dir: str | os.PathLike[str]
) -> dict[str, dict[str, int]]:
    """Copy the Kaldi lists of all splits, with absolute paths, one folder per split.

    data_dir: ``{train,dev,test}`` hold ``wav.scp`` and ``text`` and optionally ``utt2spk`` and
    ``utt2dur``; paths are absolute or relative to ``data_dir``. Lists in folders below a split
    (``test/long``) are added to it.
    Duplicate ids and other problems are kept: ``validate`` reports them.
    Returns: number of lines per split and table.
    Raises: DataError if a list is missing, or if ``out_dir`` is ``data_dir``.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    _check_folders(data_dir, out_dir)
    sizes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        folders = sorted(path.parent for path in (data_dir / split).rglob("wav.scp"))
        sizes[split] = {}
        for table in _TABLES:
            rows = _read_rows(folders, table, os.path.abspath(data_dir))
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


def _read_rows(folders: Sequence[Path], table: str, base: str) -> list[tuple[str, str]]:
    paths = [folder / table for folder in folders if (folder / table).is_file()]
    rows = [(row.key, row.value) for path in paths for row in kaldi_rows(path)]
    if table == "wav.scp":
        return [(key, os.path.join(base, wav) if wav else "") for key, wav in rows]
    return rows


def make_data_list(
    wav_scp: str | os.PathLike[str],
    text: str | os.PathLike[str],
    *,
    data_list: str | os.PathLike[str],
    utt2dur: str | os.PathLike[str] | None = None,
    num_workers: int = 1,
) -> list[Utterance]:
    """Join ``wav.scp`` and ``text`` into a ``data.list`` with durations; return its utterances.

    utt2dur: durations in seconds; utterances that are not in it get the length in the file's
    header.
    num_workers: processes that read headers; 1: this one.
    Raises: DataError if an id is in one of the two lists only, or if a duration cannot be found.
    """
    wavs, texts = read_kaldi_table(wav_scp), read_kaldi_table(text)
    _check_ids(wavs, texts, wav_scp, text)
    listed = read_kaldi_table(utt2dur) if utt2dur else {}
    durations = _durations(wavs, listed, num_workers)
    utterances = [
        Utterance(key=key, wav=wav, txt=texts[key], duration=durations[key])
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


def _durations(
    wavs: Mapping[str, str], listed: Mapping[str, str], num_workers: int
) -> dict[str, float]:
    """Return seconds by id: from utt2dur, otherwise from the header of the file."""
    unlisted = [key for key in wavs if key not in listed]
    probed = _probe_all([wavs[key] for key in unlisted], num_workers)
    results = {key: _parse(key, listed[key]) for key in wavs if key in listed}
    results |= dict(zip(unlisted, probed, strict=True))
    problems = [result for result in results.values() if isinstance(result, str)]
    if problems:
        more = f"... {len(problems)} in all; validate_data lists them"
        raise DataError("\n".join([*problems[:_MAX_NAMED], more]))
    return {key: result for key, result in results.items() if isinstance(result, float)}


def _parse(key: str, seconds: str) -> float | str:
    """Return a listed duration, or a description of the problem."""
    try:
        if 0 < float(seconds) < math.inf:
            return float(seconds)
    except ValueError:
        pass
    return f"utt2dur: the duration of {key} is '{seconds}'; expected seconds"


def _probe_all(wavs: Sequence[str], num_workers: int) -> list[float | str]:
    if num_workers <= 1 or not wavs:
        return [_probe(wav) for wav in wavs]
    with ProcessPoolExecutor(num_workers) as pool:
        return list(pool.map(_probe, wavs, chunksize=64))


def _probe(wav: str) -> float | str:
    """Return the duration in the header of a file, or a description of the problem."""
    try:
        return probe(wav).duration_s
    except AudioError as error:
        return str(error)
