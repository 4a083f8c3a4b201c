"""Compare groups of runs that differ in the seed alone: cv loss, and FRR on the same test set.

python -m wekws.bin.compare_runs --groups teacher=exp/X/teacher students=exp/X/s1,exp/X/s2 \
    --result test_avg_30
"""

import argparse
import sys
from pathlib import Path

from wekws.errors import ConfigError
from wekws.log import run
from wekws.report.comparison import Group, compare_groups, comparison_table, keyword_table
from wekws.report.document import to_markdown
from wekws.score.det import budgets_from_text


def main(argv: list[str] | None = None) -> int:
    """Print Markdown tables: one of all figures, one per budget by keyword."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--groups",
        nargs="+",
        required=True,
        metavar="NAME=DIR,DIR",
        help="runs of each group, which differ in the seed alone",
    )
    parser.add_argument(
        "--result",
        default="",
        help="result folder inside each DIR, such as test_avg_30 [DIR itself is the result folder]",
    )
    parser.add_argument(
        "--budgets",
        default="0.5,1",
        help="false alarms per hour, separated by commas [%(default)s]",
    )
    parser.add_argument("--compare_to", help="reference group for differences [the first one]")
    args = parser.parse_args(argv)
    groups = [_parse_group(text, args.result) for text in args.groups]
    compare_to = args.compare_to or groups[0].name
    budgets = budgets_from_text(args.budgets)
    figures = compare_groups(groups, budgets, compare_to)
    tables = [
        comparison_table(figures, compare_to),
        *(keyword_table(figures, budget.label) for budget in budgets),
    ]
    print(to_markdown(tables, Path()))
    return 0


def _parse_group(text: str, result: str) -> Group:
    name, equals, dirs = text.partition("=")
    if not equals or not dirs:
        raise ConfigError(f"--groups {text}: expected NAME=DIR,DIR")
    return Group(name, [Path(item) / result for item in dirs.split(",")])


if __name__ == "__main__":
    sys.exit(run(main))
