"""Resolve the options of run_distill.sh and print them as shell assignments.

The script passes every option as NAME=VALUE and evaluates what is printed; a wrong option or
configuration ends here, before the first stage.
"""

import argparse
import sys
from pathlib import Path

from wekws.log import run
from wekws.shell import UserPaths, assignments
from wekws.sweep.given_options import check_given
from wekws.sweep.recipe_options import read_options


def main(argv: list[str] | None = None) -> int:
    """Read the options, check and resolve them, print the assignments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--caller_dir", type=Path, default=Path(), help="folder that relative paths count from [.]"
    )
    parser.add_argument("option", nargs="*", metavar="NAME=VALUE", help="option of run_distill.sh")
    args = parser.parse_args(argv)
    options, paths = read_options(args.option), UserPaths(args.caller_dir)
    check_given(options, paths)
    from wekws.sweep.plan_variables import plan_variables  # imports torch, which takes seconds

    print(assignments(plan_variables(options, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
