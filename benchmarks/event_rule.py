"""False alarms by the rule of a stream as a ratio to those of events chosen with the future known.

Scores follow `wekws.decode.event_rule`: of two peaks within the refractory time, the first that
reaches the threshold counts. The other choice, of which only prefix beams are left, takes the
highest first. Both get the confidences of the same recordings. A recording is missed by both or
by neither: each detects it where its highest peak reaches the threshold.

python benchmarks/event_rule.py --checkpoint exp/X/student/avg_5.pt --list data/X/test/data.list
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wekws.dataset.manifest import read_data_list
from wekws.dataset.opening import open_dataset
from wekws.decode.event_rule import Event
from wekws.decode.events import find_events
from wekws.decode.keyword import KeywordScorer
from wekws.decode.prefix_beam import highest_apart
from wekws.score.scores import SCORES_NAME, ScoredUtterance, read_scores, write_scores
from wekws.score.scoring import keyword_durations_s, make_decoder, score_dataset
from wekws.score.sets import KeywordSet, split_by_keyword
from wekws.score.system import load_system

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
REFRACTORY_S = 1.0


class BothChoices:
    """The keyword decoder; keeps the events of the other choice as well."""

    def __init__(self, decoder: KeywordScorer) -> None:
        self._decoder = decoder
        self.highest_first: list[list[list[Event]]] = []

    def events(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, refractory_frames: int
    ) -> list[list[list[Event]]]:
        confidence, start = self._decoder(log_probs, lengths)
        every_peak = find_events(confidence, start, 0)
        self.highest_first += [
            [highest_apart(peaks, refractory_frames) for peaks in row] for row in every_peak
        ]
        return find_events(confidence, start, refractory_frames)


def score(args: argparse.Namespace) -> tuple[list[KeywordSet], list[KeywordSet]]:
    """Return the scores by the rule of a stream, and with the highest events first."""
    system = load_system(args.checkpoint)
    keywords = list(system.label_set.keywords)
    decoder = make_decoder("keyword", system, keyword_durations_s(system, "auto"))
    assert isinstance(decoder, KeywordScorer)
    both = BothChoices(decoder)
    dataset = open_dataset(
        args.list, system.dataset_config, system.label_set,
        cache_dir=args.cache_dir or args.list.parent / "cache", is_training=False,
        use_filters=False,
    )  # fmt: skip
    causal = list(score_dataset(system, dataset, both, refractory_s=REFRACTORY_S, batch_size=256))
    other = [
        ScoredUtterance(scored.key, dict(zip(keywords, events, strict=True)))
        for scored, events in zip(causal, both.highest_first, strict=True)
    ]
    utterances = read_data_list(args.list)
    sets = []
    for scores in (causal, other):
        with tempfile.TemporaryDirectory() as folder:
            write_scores(folder, scores, system.hop_s)
            table = read_scores(Path(folder) / SCORES_NAME)
        sets.append(list(split_by_keyword(table, utterances, keywords).keywords))
    return sets[0], sets[1]


def errors(sets: Sequence[KeywordSet], threshold: float) -> tuple[float, int]:
    """Return the mean FRR and the false alarms of all keywords."""
    rates = [np.mean(s.positives < threshold) for s in sets if len(s.positives)]
    return float(np.mean(rates)), sum(int((s.negatives >= threshold).sum()) for s in sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint or .onnx")
    parser.add_argument("--list", type=Path, required=True, help="data.list of recordings")
    parser.add_argument("--cache_dir", type=Path, help="feature cache [cache beside the list]")
    args = parser.parse_args()
    causal, other = score(args)
    hours = causal[0].negative_hours
    print(f"{len(causal)} keywords, {hours:.2f} h without any")
    print(
        "| threshold | FRR in %, highest first | of a stream | false alarms | of a stream | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for threshold in THRESHOLDS:
        (old_frr, old), (frr, alarms) = errors(other, threshold), errors(causal, threshold)
        ratio = f"{alarms / old:.3f}" if old else ""
        print(
            f"| {threshold} | {100 * old_frr:.1f} | {100 * frr:.1f} | {old} | {alarms} | {ratio} |"
        )


if __name__ == "__main__":
    main()
