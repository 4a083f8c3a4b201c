"""Error rates of models on the same test set, compared utterance by utterance.

Two students that hear the same utterances differ less by chance than two drawn apart. A bootstrap
over the utterances, the same for all, and over each model's runs shows what is left of chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.score.det import Budget
from wekws.score.scores import read_score_info, read_scores
from wekws.score.sets import transcript

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Trials:
    """One keyword's scores in one run, by utterance.

    positives: (P,) best confidence of each utterance of the keyword, below 0 if rejected.
    negatives: (M,) confidence of each event on utterances without any keyword, descending.
    places: (M,) which of the ``num_negatives`` utterances each of them is on. hours: of these.
    """

    positives: np.ndarray
    negatives: np.ndarray
    places: np.ndarray
    num_negatives: int
    hours: float


@dataclass(frozen=True)
class RunTrials:
    """A run's scores of one test set. keys: its utterances, in order."""

    keys: tuple[str, ...]
    by_keyword: Mapping[str, Trials]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def read_trials(result_dir: Path) -> RunTrials:
    """Read what ``score_ctc`` wrote. Keywords without positives are left out.

    Raises: DataError if no audio is without a keyword: false alarms need some.
    """
    info = read_score_info(result_dir)
    table = read_scores(Path(result_dir) / "score.txt")
    by_key = {utterance.key: utterance for utterance in read_data_list(info["data_list"])}
    texts = [transcript(by_key[key]) for key in table.keys]
    hours = np.array([by_key[key].duration for key in table.keys]) / 3600
    words = info["keywords"]
    holds = np.array([[contains_keyword(text, word) for word in words] for text in texts])
    is_negative = ~holds.any(axis=1)
    if not is_negative.any():
        raise DataError(f"{result_dir}: every utterance holds a keyword; false alarms need others")
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

    Utterances are drawn with Poisson weights of mean 1, the same for every run that is asked
    about, and each resample chooses its own threshold: the uncertainty of the threshold is in the
    intervals, those of few hours of negatives above all.
    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap"; Poisson weights as in
    Hanley and MacGibbon 2006, doi:10.1016/j.cmpb.2006.04.006.
    """

    def __init__(self, keys: Sequence[str], num_resamples: int = NUM_RESAMPLES) -> None:
        """Resample the test set of these utterances."""
        self._keys, self._num = tuple(keys), num_resamples
        self._weights: dict[tuple[str, str], np.ndarray] = {}

    def frr(self, runs: Sequence[RunTrials], keyword: str | None, budget: Budget) -> np.ndarray:
        """Return FRR as it is, then in each resample, (1 + R,): the mean over runs and keywords.

        keyword: None for the mean over all of them. In a resample the runs are drawn too.
        Raises: DataError if a run was scored on another test set.
        """
        if any(run.keys != self._keys for run in runs):
            raise DataError("runs that were scored on different utterances cannot be compared")
        names = [keyword] if keyword else list(runs[0].by_keyword)
        rates = np.stack(
            [np.mean([self._one(run.by_keyword[n], n, budget) for n in names], 0) for run in runs]
        )
        drawn = np.random.default_rng(len(runs)).integers(len(runs), size=(len(runs), self._num))
        resampled = np.take_along_axis(rates[:, 1:], drawn, axis=0).mean(axis=0)
        return np.concatenate([[rates[:, 0].mean()], resampled])

    def _one(self, trials: Trials, keyword: str, budget: Budget) -> np.ndarray:
        positive = self._drawn("positives " + keyword, len(trials.positives))
        negative = self._drawn("negatives", trials.num_negatives)
        allowed = budget.allowed(trials.hours)
        # Enough of the highest events to use the budget up in every resample but freak ones.
        top = min(len(trials.negatives), 20 * (allowed + 1))
        is_within = negative[:, trials.places[:top]].cumsum(axis=1) <= allowed
        first = is_within.sum(axis=1)  # the first event that goes beyond the budget
        highest = np.append(trials.negatives[:top], -0.5)[first]  # must not be detected
        is_missed = trials.positives[None, :] <= highest[:, None]
        return (positive * is_missed).sum(axis=1) / np.maximum(positive.sum(axis=1), 1)

    def _drawn(self, name: str, size: int) -> np.ndarray:
        """Return (1 + R, size) weights, the first row all 1: the set as it is."""
        if (name, str(size)) not in self._weights:
            seed = [ord(letter) for letter in name]
            drawn = np.random.default_rng(seed).poisson(1.0, (self._num, size))
            whole = np.concatenate([np.ones((1, size), dtype=drawn.dtype), drawn])
            self._weights[name, str(size)] = whole.astype(np.int16)
        return self._weights[name, str(size)]


def estimate(values: np.ndarray) -> Estimate:
    """Return value and 95 % percentile interval of what ``Bootstrap.frr`` gave, or a difference."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))
