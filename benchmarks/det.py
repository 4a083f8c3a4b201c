"""Time of the error rates at every threshold, for 50,000 utterances and 2 keywords.

python benchmarks/det.py [--num_utterances 50000]

Each time is also printed as a ratio to the floor: one sort of all confidences by numpy, measured in
the same run.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from wekws.dataset.manifest import Utterance
from wekws.decode.events import Event
from wekws.score.det import det_points, write_stats
from wekws.score.intervals import poisson_exact, wilson
from wekws.score.scores import ScoredUtterance, read_scores, write_scores
from wekws.score.sets import split_by_keyword
from wekws.score.summary import DEFAULT_BUDGETS, ScoredFolder, build_summary

KEYWORDS = ["嗨小问", "你好问问"]


class Laps:
    """Prints the time since the last lap, and its ratio to the floor."""

    def __init__(self, floor_s: float) -> None:
        self._floor_s = floor_s
        self._began = time.process_time()

    def lap(self, name: str) -> None:
        taken = time.process_time() - self._began
        print(f"{taken:7.3f} s  {taken / self._floor_s:7.1f} x floor  {name}")
        self._began = time.process_time()


def sort_s(values: np.ndarray) -> float:
    """Return the time of the fastest of five sorts of all values."""
    times = []
    for _ in range(5):
        began = time.process_time()
        np.sort(values, axis=None)
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--num_utterances", type=int, default=50_000, help="utterances of the set (%(default)s)"
    )
    num_utterances = parser.parse_args().num_utterances
    rng = np.random.default_rng(0)
    info = {"checkpoint": "x", "decoder": "keyword", "data_list": "x"}
    kinds = rng.choice(3, num_utterances, p=[0.15, 0.15, 0.7])
    texts = [(*KEYWORDS, "今天天气")[kind] for kind in kinds]
    utterances = [
        Utterance(key=f"utt{i:06d}", wav="x", txt=text, duration=5.0)
        for i, text in enumerate(texts)
    ]
    confidences = rng.beta(1, 8, (num_utterances, 2, 2))
    for k in range(2):
        confidences[kinds == k, k, 0] = rng.beta(8, 1, (kinds == k).sum())
    laps = Laps(sort_s(confidences))
    with tempfile.TemporaryDirectory() as folder:
        scored = (
            ScoredUtterance(
                utterance.key,
                {
                    word: [Event(confidences[i, k, n], 0, 0) for n in range(2)]
                    for k, word in enumerate(KEYWORDS)
                },
            )
            for i, utterance in enumerate(utterances)
        )
        write_scores(folder, scored, 0.03)
        laps.lap("write score.txt and events.tsv, two events per utterance and keyword")
        table = read_scores(Path(folder) / "score.txt")
        laps.lap("read score.txt")
        sets = split_by_keyword(table, utterances, KEYWORDS)
        laps.lap("separate positives from negatives")
        points = [det_points(s.positives, s.negatives, s.negative_hours) for s in sets.keywords]
        laps.lap(f"FRR and FAR at {sum(len(p.thresholds) for p in points)} thresholds")
        for point in points:
            wilson(point.misses, point.positives)
        laps.lap("Wilson intervals of both curves")
        poisson_exact(points[0].false_alarms[::100], points[0].hours)
        laps.lap("Poisson intervals at every 100th point of one curve")
        build_summary(ScoredFolder(info, sets), None, DEFAULT_BUDGETS)
        laps.lap("operating points")
        for word, point in zip(KEYWORDS, points, strict=True):
            write_stats(Path(folder) / f"stats.{word}.txt", point)
        laps.lap("write stats files")


if __name__ == "__main__":
    main()
