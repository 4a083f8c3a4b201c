"""Compare groups of runs that differ in the seed alone: cv loss from start to end, and FRR."""

import argparse
import statistics
import sys
from pathlib import Path

from wekws.errors import DataError
from wekws.log import run
from wekws.score.results import Result, Stats, read_result
from wekws.score.training_log import read_cv_rows


def main(argv: list[str] | None = None) -> int:
    """Print a Markdown table, one row a group: mean and standard deviation over its runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--groups", nargs="+", required=True, metavar="NAME=DIR,DIR", help="runs by what they share"
    )
    parser.add_argument("--result", default="", help="result folder in each run, test_avg_5")
    parser.add_argument("--budget", default="1/h", help="false alarms an hour, as in summary.json")
    args = parser.parse_args(argv)
    rows = [_row(*_parse_group(text), args.result, args.budget) for text in args.groups]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row.get(column, "") for column in columns) + " |")
    return 0


def _parse_group(text: str) -> tuple[str, list[Path]]:
    name, equals, dirs = text.partition("=")
    if not equals or not dirs:
        raise DataError(f"--groups {text}: expected NAME=DIR,DIR")
    return name, [Path(item) for item in dirs.split(",")]


def _row(name: str, dirs: list[Path], result: str, budget: str) -> dict[str, str]:
    logs = [read_cv_rows(path) for path in dirs]
    row = {
        "start": name,
        "runs": str(len(dirs)),
        "cv loss before step 1": _spread([rows[0]["cv_loss"] for rows in logs]),
        "after epoch 0": _spread([rows[1]["cv_loss"] for rows in logs]),
        "at the end": _spread([rows[-1]["cv_loss"] for rows in logs]),
    }
    if result:
        results = [read_result(str(path), path / result) for path in dirs]
        for keyword in results[0].keywords:
            points = [_operating_point(found, keyword, budget) for found in results]
            misses = _spread([100 * point["misses"]["rate"] for point in points])
            alarms = statistics.fmean(point["false_alarms"]["per_hour"] for point in points)
            row[f"{keyword}: FRR % at the threshold for {budget}"] = f"{misses} ({alarms:.2f}/h)"
            own = [100 * _own_frr(found.stats[keyword], budget) for found in results]
            row[f"{keyword}: FRR % at {budget} of its own curve"] = _spread(own)
    return row


def _operating_point(result: Result, keyword: str, budget: str) -> dict:
    point = result.operating_point(keyword, budget)
    if point is None:
        raise DataError(f"{result.result_dir}: {keyword} has no operating point at {budget}")
    return point


def _own_frr(stats: Stats, budget: str) -> float:
    """Return the least FRR whose false alarms on the same set stay within the budget."""
    rates, frr = stats.det_curve()
    limit = float(budget.removesuffix("/h"))
    return float(frr[rates <= limit][-1])


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean:.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    sys.exit(run(main))
