"""Print a fingerprint of all that a data stage depends on; run_distill.sh keeps it as a stamp."""

import argparse
import sys
from pathlib import Path

from wekws.dataset.stage_inputs import stage_fingerprint
from wekws.log import run


def main(argv: list[str] | None = None) -> int:
    """Print the fingerprint."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--settings", default="", help="options of the stage, as one text")
    add("--tables", type=Path, nargs="*", default=[], help="files whose content counts")
    add(
        "--audio_tables", type=Path, nargs="*", default=[],
        help="wav.scp files: their content, and name, size and time of the audio in them",
    )  # fmt: skip
    add(
        "--folders", type=Path, nargs="*", default=[],
        help="folders: name, size and time of the files below them",
    )  # fmt: skip
    args = parser.parse_args(argv)
    print(
        stage_fingerprint(
            args.settings,
            tables=args.tables,
            audio_tables=args.audio_tables,
            folders=args.folders,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
