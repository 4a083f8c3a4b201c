"""Error rates of a scored set: stats.<keyword>.txt, summary.json and summary.md."""

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import keyword_id, read_keywords
from wekws.errors import ConfigError
from wekws.log import run
from wekws.score.det import det_points, parse_budgets, write_stats
from wekws.score.scores import read_score_info, read_scores
from wekws.score.sets import ScoredSet, split_by_keyword
from wekws.score.summary import summarise, to_markdown, write_summary

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Read the scores, choose thresholds, count errors, write."""
    args = _parser().parse_args(argv)
    budgets = parse_budgets(args.budgets)
    info = read_score_info(args.result_dir)
    if args.test_data:
        info["data_list"] = str(args.test_data)
    keywords = read_keywords(args.keywords_file) if args.keywords_file else info["keywords"]
    _require_scored(keywords, info)
    test = _read_set(args.result_dir, info, keywords)
    dev, dev_info = None, None
    if args.dev_result_dir:
        dev_info = read_score_info(args.dev_result_dir)
        _require_same_system(info, dev_info)
        dev = _read_set(args.dev_result_dir, dev_info, keywords)
    summary = summarise(test, info, dev, dev_info, budgets)
    sets = {keyword.keyword: keyword for keyword in test.keywords}
    for entry in summary["keywords"]:
        scores = sets[entry["keyword"]]
        chosen = [point["threshold"] for point in entry["operating_points"]]
        points = det_points(scores.positives, scores.negatives, scores.negative_hours, chosen)
        write_stats(args.result_dir / f"stats.{keyword_id(scores.keyword)}.txt", points)
    write_summary(args.result_dir, summary)
    for item in summary["not_evaluated"]:
        log.warning("%s: %s", item["keyword"], item["problem"])
        (args.result_dir / f"stats.{keyword_id(item['keyword'])}.txt").unlink(missing_ok=True)
    print(to_markdown(summary))
    return 0


def _read_set(result_dir: Path, info: Mapping[str, Any], keywords: list[str]) -> ScoredSet:
    table = read_scores(result_dir / "score.txt")
    scored = split_by_keyword(table, read_data_list(info["data_list"]), keywords)
    if scored.not_scored:
        log.warning("%s: %d utterances have no score", info["data_list"], scored.not_scored)
    return scored


def _require_scored(keywords: list[str], info: Mapping[str, Any]) -> None:
    missing = [keyword for keyword in keywords if keyword not in info["keywords"]]
    if missing:
        raise ConfigError(
            f"keyword {missing[0]} was not scored, only {', '.join(info['keywords'])}; "
            "score the set again with this keyword"
        )


def _require_same_system(info: Mapping[str, Any], dev_info: Mapping[str, Any]) -> None:
    """Refuse thresholds of another model, decoder or refractory time: they mean nothing here."""
    for name in ("checkpoint_sha256", "decoder", "refractory_s"):
        if info.get(name) != dev_info.get(name):
            raise ConfigError(
                f"--dev_result_dir: {name} is {dev_info.get(name)}, in --result_dir "
                f"{info.get(name)}; score dev with the same checkpoint and decoder"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--result_dir", type=Path, required=True, help="what score_ctc wrote; results go there")
    add("--test_data", type=Path, help="data.list [the one that was scored]")
    add("--keywords_file", type=Path, help="[the keywords that were scored]")
    add("--dev_result_dir", type=Path, help="dev scores that choose the thresholds [test itself]")
    add("--budgets", default="0.5,1", help="false alarms per hour [%(default)s]; 1 in all is added")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
