"""Scores by keyword: positives, utterances without any keyword, utterances of other keywords."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wekws.dataset.manifest import Utterance
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import DataError
from wekws.score.scores import KeywordEvents, ScoreTable

OTHER_CATEGORY = "other"
"""Category of utterances that have none, where others have one."""


@dataclass(frozen=True)
class CategoryNegatives:
    """The events of one keyword on the negatives of one category."""

    category: str
    """Kind of audio, such as music."""
    scores: np.ndarray
    """(M,) confidence of each event."""
    num_utterances: int
    """Utterances of the category without any keyword."""
    hours: float
    """Their audio."""


@dataclass(frozen=True)
class KeywordSet:
    """The scores of one keyword on one dataset, by the words of the utterances."""

    keyword: str
    """The keyword."""
    positives: np.ndarray
    """(P,) best confidence of each utterance of the keyword, below 0 if rejected."""
    negatives: np.ndarray
    """(M,) confidence of each event on utterances without any keyword."""
    num_negatives: int
    """Utterances without any keyword."""
    negative_hours: float
    """Their audio."""
    confusions: np.ndarray
    """(C,) confidence of each event on utterances of other keywords only."""
    num_confusions: int
    """Utterances of other keywords only."""
    confusion_hours: float
    """Their audio."""
    categories: tuple[CategoryNegatives, ...] = ()
    """The negatives by category, in alphabetical order; empty if the list has no categories."""

    @property
    def problem(self) -> str | None:
        """Reason why there are no error rates, or None."""
        if len(self.positives) == 0:
            return f"no positives: no scored utterance contains {self.keyword}"
        if self.negative_hours <= 0:
            return "no negatives: every scored utterance contains a keyword"
        return None

    @property
    def notes(self) -> list[str]:
        """Remarks for readers of the error rates."""
        scores = np.concatenate([self.positives, self.negatives])
        if len(scores) > 1 and (scores == scores[0]).all():
            return [f"all scores are equal ({scores[0]:g}): no threshold separates them"]
        return []


@dataclass(frozen=True)
class ScoredSet:
    """The scores of a dataset."""

    keywords: tuple[KeywordSet, ...]
    """The scores of each keyword."""
    num_utterances: int
    """Utterances with a score."""
    hours: float
    """Their audio."""
    not_scored: int
    """Utterances of the data list without a score."""


def split_by_keyword(
    table: ScoreTable, utterances: Sequence[Utterance], keywords: Sequence[str]
) -> ScoredSet:
    """Sort the scored utterances of a data list by the keywords that they contain.

    Utterances without a line in the score file count in `not_scored` only.
    Raises: DataError if a scored utterance is not in the list.
    """
    by_key = {utterance.key: utterance for utterance in utterances}
    unknown = [key for key in table.keys if key not in by_key]
    if unknown:
        raise DataError(
            f"scored utterance {unknown[0]} (and {len(unknown) - 1} more) is not in the data list; "
            "give the list that was scored"
        )
    scored = [by_key[key] for key in table.keys]
    texts = [transcript(utterance) for utterance in scored]
    hours = np.array([utterance.duration for utterance in scored]) / 3600
    holds = np.zeros((len(scored), len(keywords)), bool)
    for k, word in enumerate(keywords):
        holds[:, k] = [contains_keyword(text, word) for text in texts]
    holds_any = np.logical_or.reduce(holds, axis=1)
    categories = np.array([utterance.category for utterance in scored])
    sets = tuple(
        _keyword_set(table, keyword, holds[:, k], holds_any, hours, categories)
        for k, keyword in enumerate(keywords)
    )
    return ScoredSet(sets, len(table.keys), float(hours.sum()), len(by_key) - len(table.keys))


def transcript(utterance: Utterance) -> str:
    """Return the words of an utterance, from its tokens if the list has WeKWS's older form.

    Raises: DataError if the list has label ids only.
    """
    if isinstance(utterance.txt, str):
        return utterance.txt
    if utterance.tok is None:
        raise DataError(
            f"utterance {utterance.key}: txt holds label ids and there is no tok; "
            "keywords can be found in text only"
        )
    return " ".join(utterance.tok)


def _keyword_set(
    table: ScoreTable,
    keyword: str,
    is_positive: np.ndarray,
    holds_any: np.ndarray,
    hours: np.ndarray,
    categories: np.ndarray,
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
        categories=_by_category(events, ~holds_any, hours, categories),
    )


def _by_category(
    events: KeywordEvents, is_negative: np.ndarray, hours: np.ndarray, categories: np.ndarray
) -> tuple[CategoryNegatives, ...]:
    if not categories.any():
        return ()
    categories = np.where(categories == "", OTHER_CATEGORY, categories)
    found = []
    for category in np.unique(categories[is_negative]).tolist():
        chosen = is_negative & (categories == category)
        found.append(
            CategoryNegatives(
                category=category,
                scores=events.confidence[chosen[events.utterance]],
                num_utterances=int(chosen.sum()),
                hours=float(hours[chosen].sum()),
            )
        )
    return tuple(found)
