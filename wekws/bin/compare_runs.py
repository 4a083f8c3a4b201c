"""Compare groups of runs that differ in the seed alone: cv loss from start to end, and FRR."""

import argparse
import statistics
import sys
from pathlib import Path

from wekws.errors import DataError
from wekws.log import run
from wekws.score.results import read_json
from wekws.score.training_log import read_cv_rows


def main(argv: list[str] | None = None) -> int:
    """Print a Markdown table, one row a group: mean and standard deviation over its runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--groups", nargs="+", required=True, metavar="NAME=DIR,DIR", help="runs by what they share"
    )
    parser.add_argument("--result", default="", help="result folder in each run, test_avg_5")
    parser.add_argument("--budget", default="1/h", help="operating point to show")
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
    logs = [read_cv_rows(path / "metrics.jsonl") for path in dirs]
    row = {
        "start": name,
        "runs": str(len(dirs)),
        "cv loss before step 1": _spread([rows[0]["cv_loss"] for rows in logs]),
        "after epoch 0": _spread([rows[1]["cv_loss"] for rows in logs]),
        "at the end": _spread([rows[-1]["cv_loss"] for rows in logs]),
    }
    if result:
        summaries = [read_json(path / result / "summary.json") for path in dirs]
        for index, entry in enumerate(summaries[0]["keywords"]):
            rates = [_miss_rate(summary["keywords"][index], budget) for summary in summaries]
            row[f"FRR % {entry['keyword']} at {budget}"] = _spread([100 * r for r in rates])
    return row


def _miss_rate(entry: dict, budget: str) -> float:
    for point in entry["operating_points"]:
        if point["budget"] == budget:
            return point["misses"]["rate"]
    raise DataError(f"{entry['keyword']}: no operating point at {budget}")


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean:.2f} ± {deviation:.2f}"


if __name__ == "__main__":
    sys.exit(run(main))
