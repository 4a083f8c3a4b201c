"""Paired comparison of error rates: models on the same test set, utterance by utterance.

On the same utterances two models differ less by chance than on different ones. A bootstrap over
the utterances, with the same resamples for all models, and over each model's runs gives the
interval of a difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.score.det import Budget
from wekws.score.scores import SCORES_NAME, read_score_info, read_scores
from wekws.score.sets import transcript

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Trials:
    """One keyword's scores in one run, by utterance."""

    positives: np.ndarray
    """(P,) best confidence of each utterance of the keyword, below 0 if rejected."""
    negatives: np.ndarray
    """(M,) confidence of each event on utterances without any keyword, descending."""
    places: np.ndarray
    """(M,) index of each event's utterance among the ``num_negatives``."""
    num_negatives: int
    """Utterances without any keyword."""
    hours: float
    """Their audio."""


@dataclass(frozen=True)
class RunTrials:
    """A run's scores of one test set."""

    keys: tuple[str, ...]
    """Keys of its utterances, in order."""
    by_keyword: Mapping[str, Trials]
    """Scores of every keyword with positives."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    """The figure."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def read_trials(result_dir: Path) -> RunTrials:
    """Read the scores of a result folder. Keywords without positives are left out.

    Raises: DataError if every utterance contains a keyword: false alarms need others.
    """
    info = read_score_info(result_dir)
    table = read_scores(result_dir / SCORES_NAME)
    by_key = {utterance.key: utterance for utterance in read_data_list(info["data_list"])}
    texts = [transcript(by_key[key]) for key in table.keys]
    hours = np.array([by_key[key].duration for key in table.keys]) / 3600
    words = info["keywords"]
    holds = np.array([[contains_keyword(text, word) for word in words] for text in texts])
    is_negative = ~np.logical_or.reduce(holds, axis=1)
    if not is_negative.any():
        raise DataError(
            f"{result_dir}: every utterance contains a keyword; false alarms need others"
        )
    number = np.cumsum(is_negative) - 1
    trials = {}
    for index, keyword in enumerate(words):
        if not holds[:, index].any():
            continue
        events = table.of(keyword)
        chosen = np.flatnonzero(is_negative[events.utterance])
        chosen = chosen[np.argsort(-events.confidence[chosen], kind="stable")]
        trials[keyword] = Trials(
            table.best(keyword)[holds[:, index]],
            events.confidence[chosen],
            number[events.utterance[chosen]],
            int(is_negative.sum()),
            float(hours[is_negative].sum()),
        )
    return RunTrials(table.keys, trials)


class Bootstrap:
    """FRR at a budget of false alarms in many resamples of one test set.

    Utterances get Poisson weights of mean 1, the same for every run. Each resample chooses its
    own threshold, so that the intervals contain the uncertainty of the threshold, which is large
    for few hours of negatives.
    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap"; Poisson weights as in
    Hanley and MacGibbon 2006, doi:10.1016/j.cmpb.2006.04.006.
    """

    def __init__(self, keys: Sequence[str], num_resamples: int = NUM_RESAMPLES) -> None:
        """Resample the test set of these utterances."""
        self._keys, self._num = tuple(keys), num_resamples
        self._weights: dict[tuple[str, str], np.ndarray] = {}

    def frr(self, runs: Sequence[RunTrials], keyword: str | None, budget: Budget) -> np.ndarray:
        """Return FRR of the set, then of each resample, (1 + R,): mean over runs and keywords.

        keyword: None: the mean over all keywords. Resamples draw the runs too.
        Raises: DataError if a run was scored on another test set.
        """
        if any(run.keys != self._keys for run in runs):
            raise DataError("runs that were scored on different utterances cannot be compared")
        names = [keyword] if keyword else list(runs[0].by_keyword)
        rates = np.stack(
            [
                np.mean([self._keyword_frr(run.by_keyword[n], n, budget) for n in names], 0)
                for run in runs
            ]
        )
        drawn = np.random.default_rng(len(runs)).integers(len(runs), size=(len(runs), self._num))
        resampled = np.take_along_axis(rates[:, 1:], drawn, axis=0).mean(axis=0)
        return np.concatenate([[rates[:, 0].mean()], resampled])

    def _keyword_frr(self, trials: Trials, keyword: str, budget: Budget) -> np.ndarray:
        positive = self._resampled("positives " + keyword, len(trials.positives))
        negative = self._resampled("negatives", trials.num_negatives)
        allowed = budget.allowed(trials.hours)
        # Enough of the highest events to use the budget up in practically every resample.
        top = min(len(trials.negatives), 20 * (allowed + 1))
        is_within = negative[:, trials.places[:top]].cumsum(axis=1) <= allowed
        first = is_within.sum(axis=1)  # the first event beyond the budget
        highest = np.append(trials.negatives[:top], -0.5)[first]  # must not be detected
        is_missed = trials.positives[None, :] <= highest[:, None]
        return (positive * is_missed).sum(axis=1) / np.maximum(positive.sum(axis=1), 1)

    def _resampled(self, name: str, size: int) -> np.ndarray:
        """Return (1 + R, size) weights; the first row is all 1: the set itself."""
        if (name, str(size)) not in self._weights:
            seed = [ord(letter) for letter in name]
            drawn = np.random.default_rng(seed).poisson(1.0, (self._num, size))
            whole = np.concatenate([np.ones((1, size), dtype=drawn.dtype), drawn])
            self._weights[name, str(size)] = whole.astype(np.int16)
        return self._weights[name, str(size)]


def estimate(values: np.ndarray) -> Estimate:
    """Return the estimate from the output of ``Bootstrap.frr`` or from a difference of two."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))
