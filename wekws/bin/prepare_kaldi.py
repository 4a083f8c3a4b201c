"""Copy the lists of a Kaldi folder: absolute paths, one folder for each split.

``DIR/{train,dev,test}`` hold ``wav.scp`` and ``text`` and perhaps ``utt2spk`` and ``utt2dur``;
paths are absolute or relative to DIR. Lists in folders below a split (``test/long``) join it.
Nothing is judged here: a duplicate stays for validate_data to name.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.manifest import kaldi_rows, write_kaldi_table
from wekws.errors import DataError
from wekws.log import run

_SPLITS = ("train", "dev", "test")
_TABLES = ("wav.scp", "text", "utt2spk", "utt2dur")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lists of every split and print how long they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the splits")
    parser.add_argument("--out_dir", type=Path, required=True, help="folder to write them to")
    args = parser.parse_args(argv)
    _check_folders(args.data_dir, args.out_dir)
    for split in _SPLITS:
        folders = sorted(path.parent for path in (args.data_dir / split).rglob("wav.scp"))
        sizes = []
        for table in _TABLES:
            rows = _read_rows(folders, table, os.path.abspath(args.data_dir))
            write_kaldi_table(args.out_dir / split / table, rows)
            sizes.append(f"{len(rows)} in {table}")
        print(f"{args.out_dir / split}: {', '.join(sizes)}")
    return 0


def _check_folders(data_dir: Path, out_dir: Path) -> None:
    if out_dir.resolve() == data_dir.resolve():
        raise DataError(f"--out_dir {out_dir}: is --data_dir itself; choose another folder")
    needed = [data_dir / split / table for split in _SPLITS for table in ("wav.scp", "text")]
    if missing := [str(path) for path in needed if not path.is_file()]:
        layout = "expected {train,dev,test}/{wav.scp,text} in --data_dir"
        raise DataError(f"{', '.join(missing)}: no such file; {layout}")


def _read_rows(folders: Sequence[Path], table: str, base: str) -> list[tuple[str, str]]:
    paths = [folder / table for folder in folders if (folder / table).is_file()]
    rows = [(row.key, row.value) for path in paths for row in kaldi_rows(path)]
    if table == "wav.scp":
        return [(key, os.path.join(base, wav) if wav else "") for key, wav in rows]
    return rows


if __name__ == "__main__":
    sys.exit(run(main))
