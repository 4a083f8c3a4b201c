"""Lock a folder that the calling shell has open, for as long as the shell keeps it open.

exec 9<"$folder"; python -m wekws.bin.hold_folder --handle 9 --folder "$folder"; ...; exec 9<&-
"""

import argparse
import sys
from pathlib import Path

from wekws.files import lock_handle
from wekws.log import run


def main(argv: list[str] | None = None) -> int:
    """Lock the folder, or say that it is in use."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--handle", type=int, required=True, help="file descriptor of the folder")
    parser.add_argument("--folder", type=Path, required=True, help="its name, for the message")
    args = parser.parse_args(argv)
    lock_handle(args.handle, args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
