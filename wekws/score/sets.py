"""What each keyword is tested on: its positives, audio without any keyword, other keywords'."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wekws.dataset.manifest import Utterance
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.score.scores import ScoreTable


@dataclass(frozen=True)
class KeywordSet:
    """The scores of one keyword on one dataset, by what the utterances hold.

    positives: (P,) best confidence of each utterance of the keyword, below 0 if rejected.
    negatives: (M,) confidence of each event on utterances without any keyword.
    confusions: (C,) confidence of each event on utterances of other keywords only.
    num_*: utterances; *_hours: their audio.
    """

    keyword: str
    positives: np.ndarray
    negatives: np.ndarray
    num_negatives: int
    negative_hours: float
    confusions: np.ndarray
    num_confusions: int
    confusion_hours: float

    @property
    def problem(self) -> str | None:
        """Why error rates cannot be told, if they cannot."""
        if len(self.positives) == 0:
            return f"no positives: no scored utterance holds {self.keyword}"
        if self.negative_hours <= 0:
            return "no negatives: every scored utterance holds a keyword"
        return None

    @property
    def notes(self) -> list[str]:
        """What a reader of the error rates should know."""
        scores = np.concatenate([self.positives, self.negatives])
        if len(scores) > 1 and (scores == scores[0]).all():
            return [f"all scores are equal ({scores[0]:g}): no threshold tells them apart"]
        return []


@dataclass(frozen=True)
class ScoredSet:
    """A dataset that was scored: every keyword's scores and what was left out."""

    keywords: tuple[KeywordSet, ...]
    num_utterances: int
    hours: float
    not_scored: int


def split_by_keyword(
    table: ScoreTable, utterances: Sequence[Utterance], keywords: Sequence[str]
) -> ScoredSet:
    """Sort the scored utterances of a data list by the keywords that they hold.

    Utterances that have no line in the score file count nowhere but in `not_scored`.
    Raises: DataError if an utterance was scored that the list does not have.
    """
    by_key = {utterance.key: utterance for utterance in utterances}
    unknown = [key for key in table.keys if key not in by_key]
    if unknown:
        raise DataError(
            f"scored utterance {unknown[0]} (and {len(unknown) - 1} more) is not in the data list; "
            "give the list that was scored"
        )
    texts = [transcript(by_key[key]) for key in table.keys]
    hours = np.array([by_key[key].duration for key in table.keys]) / 3600
    holds = np.array([[contains_keyword(text, word) for word in keywords] for text in texts])
    sets = tuple(
        _keyword_set(table, keyword, holds[:, k], holds.any(1), hours)
        for k, keyword in enumerate(keywords)
    )
    return ScoredSet(sets, len(table.keys), float(hours.sum()), len(by_key) - len(table.keys))


def transcript(utterance: Utterance) -> str:
    """Return the words of an utterance, from its tokens if the list is of WeKWS's older form.

    Raises: DataError if there are label ids only.
    """
    if isinstance(utterance.txt, str):
        return utterance.txt
    if utterance.tok is None:
        raise DataError(
            f"utterance {utterance.key}: txt holds label ids and there is no tok; "
            "keywords can only be told from text"
        )
    return " ".join(utterance.tok)


def _keyword_set(
    table: ScoreTable,
    keyword: str,
    is_positive: np.ndarray,
    holds_any: np.ndarray,
    hours: np.ndarray,
) -> KeywordSet:
    events = table.of(keyword)
    is_confusion = holds_any & ~is_positive
    return KeywordSet(
        keyword=keyword,
        positives=table.best(keyword)[is_positive],
        negatives=events.confidence[~holds_any[events.utterance]],
        num_negatives=int((~holds_any).sum()),
        negative_hours=float(hours[~holds_any].sum()),
        confusions=events.confidence[is_confusion[events.utterance]],
        num_confusions=int(is_confusion.sum()),
        confusion_hours=float(hours[is_confusion].sum()),
    )
