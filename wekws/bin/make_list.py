"""Join ``wav.scp`` and ``text`` into WeKWS's ``data.list``, with durations."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from wekws.dataset.audio import AudioError, probe
from wekws.dataset.manifest import Utterance, read_kaldi_table, write_data_list
from wekws.errors import DataError
from wekws.log import run

_MAX_NAMED = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Write the list and print its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wav_scp", type=Path, required=True, help="`id path` lines")
    parser.add_argument("--text", type=Path, required=True, help="`id transcript` lines")
    parser.add_argument("--utt2dur", type=Path, help="`id seconds`; other files are opened")
    parser.add_argument("--data_list", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that open files")
    args = parser.parse_args(argv)
    wavs, texts = read_kaldi_table(args.wav_scp), read_kaldi_table(args.text)
    _check_pairs(wavs, texts, args)
    listed = read_kaldi_table(args.utt2dur) if args.utt2dur else {}
    durations = _durations(wavs, listed, args.num_workers)
    write_data_list(
        args.data_list,
        (
            Utterance(key=key, wav=wav, txt=texts[key], duration=durations[key])
            for key, wav in wavs.items()
        ),
    )
    hours = sum(durations.values()) / 3600
    print(f"{args.data_list}: {len(wavs)} utterances, {hours:.3f} hours")
    return 0


def _check_pairs(
    wavs: Mapping[str, str], texts: Mapping[str, str], args: argparse.Namespace
) -> None:
    if not wavs:
        raise DataError(f"{args.wav_scp}: no utterances; expected `id path` lines")
    lonely = {args.wav_scp: wavs.keys() - texts.keys(), args.text: texts.keys() - wavs.keys()}
    problems = [
        f"{path}: {len(keys)} ids are in no other list, such as {_sample(keys)}"
        for path, keys in lonely.items()
        if keys
    ]
    if problems:
        raise DataError("\n".join([*problems, "validate_data names all of them"]))


def _sample(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names)[:_MAX_NAMED])


def _durations(
    wavs: Mapping[str, str], listed: Mapping[str, str], num_workers: int
) -> dict[str, float]:
    """Return seconds by id: as listed, or from the file's header."""
    unlisted = [key for key in wavs if key not in listed]
    with ProcessPoolExecutor(max(1, num_workers)) as pool:
        probed = list(pool.map(_probe, [wavs[key] for key in unlisted], chunksize=64))
    results = {key: _parse(key, listed[key]) for key in wavs if key in listed}
    results |= dict(zip(unlisted, probed, strict=True))
    if problems := [result for result in results.values() if isinstance(result, str)]:
        more = f"... {len(problems)} in all; validate_data names them"
        raise DataError("\n".join([*problems[:_MAX_NAMED], more]))
    return results


def _parse(key: str, seconds: str) -> float | str:
    try:
        if 0 < float(seconds) < math.inf:
            return float(seconds)
    except ValueError:
        pass
    return f"utt2dur: {key} lasts '{seconds}'; expected seconds"


def _probe(wav: str) -> float | str:
    try:
        return probe(wav).duration_s
    except AudioError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(run(main))
