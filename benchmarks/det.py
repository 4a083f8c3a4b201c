"""Time of the error rates of 50,000 utterances x 2 keywords at every threshold.

python benchmarks/det.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from wekws.dataset.manifest import Utterance
from wekws.decode.events import Event
from wekws.score.det import det_points, parse_budgets, write_stats
from wekws.score.intervals import poisson_exact, wilson
from wekws.score.scores import ScoredUtterance, read_scores, write_scores
from wekws.score.sets import split_by_keyword
from wekws.score.summary import summarise

KEYWORDS = ["嗨小问", "你好问问"]
NUM_UTTERANCES = 50_000


def main() -> None:
    rng = np.random.default_rng(0)
    info = {"checkpoint": "x", "decoder": "keyword", "data_list": "x"}
    kinds = rng.choice(3, NUM_UTTERANCES, p=[0.15, 0.15, 0.7])
    texts = [(*KEYWORDS, "今天天气")[kind] for kind in kinds]
    utterances = [
        Utterance(key=f"utt{i:06d}", wav="x", txt=text, duration=5.0)
        for i, text in enumerate(texts)
    ]
    confidences = rng.beta(1, 8, (NUM_UTTERANCES, 2, 2))
    for k in range(2):
        confidences[kinds == k, k, 0] = rng.beta(8, 1, (kinds == k).sum())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
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
        began = lap("write score.txt and events.tsv, two events each", began)
        table = read_scores(Path(folder) / "score.txt")
        began = lap("read score.txt", began)
        sets = split_by_keyword(table, utterances, KEYWORDS)
        began = lap("tell positives from negatives", began)
        points = [det_points(s.positives, s.negatives, s.negative_hours) for s in sets.keywords]
        began = lap(f"FRR and FAR at {sum(len(p.thresholds) for p in points)} thresholds", began)
        for point in points:
            wilson(point.misses, point.positives)
        began = lap("Wilson intervals of both curves", began)
        poisson_exact(points[0].false_alarms[::100], points[0].hours)
        began = lap("Poisson intervals at every 100th point of one", began)
        summarise(sets, info, None, None, parse_budgets("0.5,1"))
        began = lap("operating points", began)
        for word, point in zip(KEYWORDS, points, strict=True):
            write_stats(Path(folder) / f"stats.{word}.txt", point)
        lap("write stats files", began)


def lap(what: str, began: float) -> float:
    now = time.perf_counter()
    print(f"{now - began:7.3f} s  {what}")
    return now


if __name__ == "__main__":
    main()
