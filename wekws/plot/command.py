"""The command line of the plots that are drawn from result folders."""

import argparse
from collections.abc import Callable, Sequence

from wekws.score.results import Result, parse_named_dirs, read_result


def draw_results(
    draw: Callable[[list[Result], str], None],
    description: str | None,
    argv: Sequence[str] | None = None,
) -> str:
    """Read the results that the flags name, write one picture, return its path."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--result_dirs", nargs="+", required=True, metavar="NAME=DIR", help="in order of drawing"
    )
    parser.add_argument("--out", required=True, help="picture to write: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    named = parse_named_dirs(args.result_dirs)
    draw([read_result(name, path) for name, path in named.items()], args.out)
    return args.out
