"""Confidences of the keywords on dev: a check of the teacher, and miss rates of a model."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wekws.dataset.speech_dataset import SpeechDataset
from wekws.dataset.vocabulary import FILLER
from wekws.decode.keyword import KeywordScorer
from wekws.score.pinyin import with_pinyin
from wekws.train.distributed import Process, add_over_peers

logger = logging.getLogger(__name__)

# Budget of the miss rates in cv passes; a usual one for a wake word.
FALSE_ALARMS_PER_HOUR = 0.5
# Chance is 0.5. Below 0.75, one positive in four has a lower confidence than a random negative.
MIN_SEPARATION = 0.75
# An empty output has 0 of the tokens right; below a tenth a model has learnt next to nothing.
MIN_KEYWORD_ACCURACY = 0.1


class KeywordConfidences:
    """The highest confidence of each keyword in each cv utterance, collected batch by batch."""

    def __init__(self, cv_set: SpeechDataset) -> None:
        """Score the keywords that occur in the set and whose tokens are in the vocabulary."""
        self._held = {
            keyword: (ids, cv_set.holds_keyword[:, k])
            for k, (keyword, ids) in enumerate(
                zip(cv_set.label_set.keywords, cv_set.label_set.keyword_ids, strict=True)
            )
            if ids and FILLER not in ids and cv_set.holds_keyword[:, k].any()
        }
        self._row = {key: i for i, key in enumerate(cv_set.keys)}
        self._is_negative = ~cv_set.is_keyword
        hop_ms = cv_set.config.fbank_conf.frame_shift
        self._negative_hours = float(cv_set.num_frames[self._is_negative].sum()) * hop_ms / 3.6e6
        self._best = np.zeros((len(cv_set), len(self._held)))
        ids = [list(map(int, ids)) for ids, _ in self._held.values()]
        self._scorer = KeywordScorer(ids) if ids else None

    def add(self, keys: Sequence[str], logits: Tensor, lengths: Tensor) -> None:
        """Add a batch: logits (B, T, V) of ``lengths`` (B,) frames."""
        if self._scorer is not None:
            confidence, _ = self._scorer(logits.float().log_softmax(dim=-1), lengths)
            self._best[[self._row[key] for key in keys]] = confidence.amax(dim=2).cpu().numpy()

    def figures(self, process: Process) -> dict[str, dict[str, float]]:
        """Return for each keyword the model's confidence on utterances with and without it.

        positives, negatives: number of utterances with the keyword, and without any. mean, median:
        confidence of the positives. negative_mean, negative_median: of the negatives.
        separation: share of the pairs of a positive and a negative in which the positive has the
        higher confidence (ties count half); 0.5 is chance.
        """
        best = self._whole(process)
        found = {}
        for column, (keyword, (_, is_positive)) in enumerate(self._held.items()):
            found[keyword] = _describe(best[is_positive, column], best[self._is_negative, column])
        return found

    def miss_rates(self, process: Process) -> dict[str, float]:
        """Return the share of positives that are missed at ``FALSE_ALARMS_PER_HOUR``.

        cv_miss_rate_KEYWORD for each keyword, and cv_miss_rate, their mean; nothing without
        keywords. The threshold is the lowest with no more false alarms than that, at most one per
        utterance without keywords; with less than 2 h of them, there is no false alarm at all.
        """
        best = self._whole(process)
        num_alarms = int(FALSE_ALARMS_PER_HOUR * self._negative_hours)
        rates = {}
        for column, (keyword, (_, is_positive)) in enumerate(self._held.items()):
            negatives = np.sort(best[self._is_negative, column])[::-1]
            threshold = negatives[num_alarms] if num_alarms < len(negatives) else 0.0
            missed = best[is_positive, column] <= threshold
            rates[f"cv_miss_rate_{keyword}"] = float(missed.mean())
        mean = {"cv_miss_rate": float(np.mean(list(rates.values())))} if rates else {}
        return mean | rates

    def _whole(self, process: Process) -> np.ndarray:
        """Return the confidences of all processes, (N, K)."""
        whole = torch.from_numpy(self._best).to(process.device, copy=True)
        return add_over_peers(process, whole).cpu().numpy()


def _describe(positives: np.ndarray, negatives: np.ndarray) -> dict[str, float]:
    figures: dict[str, float] = {"positives": len(positives), "negatives": len(negatives)}
    figures |= {"mean": float(positives.mean()), "median": float(np.median(positives))}
    if len(negatives):
        ordered = np.sort(negatives)
        below = np.searchsorted(ordered, positives) + np.searchsorted(ordered, positives, "right")
        figures |= {
            "negative_mean": float(negatives.mean()),
            "negative_median": float(np.median(negatives)),
            "separation": float(below.mean()) / 2 / len(negatives),
        }
    return figures


def label_figures(cv_set: SpeechDataset, frame_skip: int) -> dict[str, float]:
    """Return figures of the labels of a set, to compare outputs with.

    label_share, filler_share: labels, and fillers among them, per output frame.
    same_label_share: share of the utterances with the most frequent labels.
    """
    frames = int((-(-cv_set.num_frames // frame_skip)).sum())
    labels = [tuple(map(int, label)) for label in cv_set.labels]
    commonest = Counter(labels).most_common(1)[0][1]
    return {
        "label_share": sum(map(len, labels)) / frames,
        "filler_share": sum(label.count(FILLER) for label in labels) / frames,
        "same_label_share": commonest / len(labels),
    }


def log_teacher(figures: dict[str, Any]) -> None:
    """Log the teacher's figures as a short block; warn if it has hardly learnt."""
    accuracy = figures.get("cv_keyword_accuracy")
    on_keywords = "" if accuracy is None else f", of keyword utterances {accuracy:.1%}"
    lines = [
        f"the teacher on dev: cv loss {figures['cv_loss']:.2f}, token accuracy "
        f"{figures['cv_accuracy']:.1%}{on_keywords}"
    ]
    for keyword, values in figures.get("confidences", {}).items():
        text = (
            f"  {with_pinyin(keyword)}: confidence of {values['positives']:,} positives "
            f"{values['median']:.3g} (median), {values['mean']:.3g} (mean)"
        )
        if values["negatives"]:
            text += (
                f"; of {values['negatives']:,} negatives {values['negative_median']:.3g}, "
                f"{values['negative_mean']:.3g}; a positive is above a negative in "
                f"{values['separation']:.1%}"
            )
        lines.append(text)
    logger.info("%s", "\n".join(lines))
    for text in teacher_warnings(figures):
        logger.warning("the teacher: %s", text)


def teacher_warnings(figures: dict[str, Any]) -> list[str]:
    """Return the reasons why a teacher looks hardly better than chance on dev, if any."""
    found = []
    accuracy = figures.get("cv_keyword_accuracy", figures["cv_accuracy"])
    if accuracy < MIN_KEYWORD_ACCURACY:
        found.append(
            f"{accuracy:.1%} of the dev tokens right, hardly better than an empty output "
            "(0 %); a student learns nothing from it. Are dictionary, features and checkpoint "
            "its own?"
        )
    for keyword, values in figures.get("confidences", {}).items():
        if values.get("separation", 1.0) < MIN_SEPARATION:
            found.append(
                f"{with_pinyin(keyword)} is more confident on a positive than on a negative in "
                f"{values['separation']:.1%} of dev pairs; chance is 50 %. Train it longer first"
            )
    return found
