"""Misses and false alarms of a scored set, the groups that hold most of them, suspected labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from wekws.dataset.manifest import Utterance, read_data_list, read_kaldi_table
from wekws.dataset.vocabulary import contains_keyword, keyword_id
from wekws.errors import ConfigError
from wekws.score.pinyin import with_pinyin
from wekws.score.results import Result
from wekws.score.scores import TimedEvent, read_score_info, read_timed_events
from wekws.score.sets import transcript
from wekws.score.threshold_names import threshold_name

ErrorKind = Literal["miss", "false alarm", "confusion"]
KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
_PLURALS = {"miss": "misses", "false alarm": "false alarms", "confusion": "confusions"}
# A text is a near miss of a keyword if this share of its characters, at most, is wrong somewhere.
NEAR_SHARE = 1 / 3
# A group is named from this many errors on, this share of them, and this multiple of the usual
# rate of errors.
GROUP_ERRORS, GROUP_SHARE, GROUP_FACTOR = 3, 0.2, 1.5
MAX_GROUPS = 10
# A miss is a suspected label if both models are no surer of it than of this share of negatives:
# an utterance without the keyword that is labelled as one with it lies there nearly always.
NEGATIVE_SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class ErrorCase:
    """A miss, a false alarm, or a detection on another keyword's utterance."""

    kind: ErrorKind
    """Kind of error."""
    keyword: str
    """The keyword that was missed or detected."""
    key: str
    """Utterance."""
    wav: str
    """Path of its audio file."""
    duration_s: float
    """Its length."""
    transcript: str
    """Its words."""
    speaker: str
    """Its speaker; empty if unknown."""
    condition: str
    """Its category, such as music; empty if unknown."""
    near_miss_of: str
    """The keyword that the transcript resembles without containing it; empty: none."""
    confidence: float
    """Confidence of the model."""
    threshold: float
    """Its threshold."""
    start_s: float
    """Beginning of the event with this confidence."""
    end_s: float
    """Its end."""
    teacher_confidence: float | None
    """Confidence of the teacher at this place; None without a teacher."""
    teacher_threshold: float | None
    """Threshold of the teacher."""
    is_suspected: bool
    """Whether the confidences of teacher and student both fit the opposite label."""


@dataclass(frozen=True, kw_only=True)
class ErrorGroup:
    """Utterances with something in common that hold many of the errors."""

    kind: ErrorKind
    """Kind of error."""
    keyword: str
    """Keyword of the errors."""
    attribute: str
    """``speaker``, ``condition`` or ``near miss of``."""
    value: str
    """Value of the attribute that the utterances share, such as the name of a speaker."""
    errors: int
    """Errors of the group."""
    all_errors: int
    """Errors of this kind and keyword."""
    utterances: int
    """Utterances of the group that could have such an error."""

    def sentence(self) -> str:
        """Return the group in words."""
        return (
            f"**{self.errors} of {self.all_errors}** {_PLURALS[self.kind]} of "
            f"{with_pinyin(self.keyword)}: {self.attribute} {self.value}, with "
            f"{self.utterances} such utterances in the set"
        )


@dataclass(frozen=True, kw_only=True)
class ErrorReview:
    """All errors of a model on a set, at the thresholds for a budget."""

    budget: str
    """Budget of the thresholds, such as ``1/h``."""
    threshold_name: str
    """What they are, such as ``threshold for 1/h``."""
    cases: Sequence[ErrorCase]
    """Errors by kind, the worst first."""
    groups: Sequence[ErrorGroup]
    """Groups that hold most errors, the largest first."""


@dataclass(frozen=True)
class _Scores:
    """One model's events and thresholds."""

    events: Mapping[tuple[str, str], Sequence[TimedEvent]]
    thresholds: Mapping[str, float]

    def best(self, key: str, keyword: str) -> TimedEvent:
        found = self.events.get((key, keyword_id(keyword)), ())
        return max(found, key=lambda event: event.confidence, default=TimedEvent(0.0, 0.0, 0.0))

    def at(self, key: str, keyword: str, place: TimedEvent) -> float:
        """Return the highest confidence of an event that overlaps with a place."""
        found = self.events.get((key, keyword_id(keyword)), ())
        return max(
            (e.confidence for e in found if e.start_s <= place.end_s and e.end_s >= place.start_s),
            default=0.0,
        )


@dataclass(frozen=True)
class _Levels:
    """One model's usual confidences of a keyword."""

    negative: float
    """`NEGATIVE_SHARE` of the utterances without any keyword have at most this one."""
    positive: float
    """Half of the utterances with the keyword have at least this one."""

    def fit_other_label(self, kind: ErrorKind, confidence: float) -> bool:
        """Say whether an error has a confidence that is usual for the opposite label."""
        return confidence <= self.negative if kind == "miss" else confidence >= self.positive


def review_errors(student: Result, teacher: Result | None, budget: str) -> ErrorReview:
    """Return the errors of a result, with the teacher's confidences on the same set.

    Raises: ConfigError if the set has no thresholds for this budget; DataError if scores are
    missing.
    """
    info = read_score_info(student.result_dir)
    data_list = Path(info["data_list"])
    utterances = read_data_list(data_list)
    speakers = _speakers(data_list)
    scores = _read(student, budget)
    if not scores.thresholds:
        raise ConfigError(f"{student.result_dir}: no threshold for {budget}; score it again")
    teacher_scores = _read(teacher, budget) if teacher is not None else None
    texts = {u.key: transcript(u) for u in utterances}
    holds = {
        u.key: [k for k in scores.thresholds if contains_keyword(texts[u.key], k)]
        for u in utterances
    }
    words = list(scores.thresholds)
    near_texts = {text: near_miss(text, words) for text in set(texts.values())}
    near_of = {key: "" if found else near_texts[texts[key]] for key, found in holds.items()}
    cases: list[ErrorCase] = []
    trials: dict[tuple[ErrorKind, str], list[tuple[str, str, str]]] = {}
    for keyword, threshold in scores.thresholds.items():
        levels = [_levels(holds, each, keyword) for each in (scores, teacher_scores) if each]
        for utterance in utterances:
            found = holds[utterance.key]
            kind: ErrorKind = (
                "miss" if keyword in found else "confusion" if found else "false alarm"
            )
            traits = (speakers.get(utterance.key, ""), utterance.category, near_of[utterance.key])
            trials.setdefault((kind, keyword), []).append(traits)
            for event in _errors(scores, utterance.key, keyword, kind, threshold):
                cases.append(
                    _case(
                        utterance, texts[utterance.key], keyword, kind, traits, event, threshold,
                        teacher_scores, levels,
                    )
                )  # fmt: skip
    cases.sort(key=_badness)
    return ErrorReview(
        budget=budget,
        threshold_name=threshold_name([student], [budget]),
        cases=cases,
        groups=_groups(cases, trials),
    )


def _read(result: Result, budget: str) -> _Scores:
    thresholds = {}
    for keyword in result.keywords:
        point = result.operating_point(keyword, budget) or {}
        if point.get("threshold") is not None:
            thresholds[keyword] = float(point["threshold"])
    return _Scores(read_timed_events(result.result_dir), thresholds)


def _speakers(data_list: Path) -> dict[str, str]:
    path = data_list.parent / "utt2spk"
    return read_kaldi_table(path) if path.is_file() else {}


def _levels(holds: Mapping[str, Sequence[str]], scores: _Scores, keyword: str) -> _Levels:
    """Return the levels of a model; without such utterances no confidence reaches a level."""
    best = {key: scores.best(key, keyword).confidence for key in holds}
    positives = [best[key] for key, found in holds.items() if keyword in found]
    negatives = [best[key] for key, found in holds.items() if not found]
    return _Levels(
        negative=float(np.quantile(negatives, NEGATIVE_SHARE)) if negatives else -1.0,
        positive=float(np.median(positives)) if positives else 2.0,
    )


def _errors(
    scores: _Scores, key: str, keyword: str, kind: ErrorKind, threshold: float
) -> list[TimedEvent]:
    if (key, keyword_id(keyword)) not in scores.events:
        return []  # not scored
    if kind == "miss":
        best = scores.best(key, keyword)
        return [best] if best.confidence < threshold else []
    found = scores.events[key, keyword_id(keyword)]
    return [event for event in found if event.confidence >= threshold]


def _case(
    utterance: Utterance,
    text: str,
    keyword: str,
    kind: ErrorKind,
    traits: tuple[str, str, str],
    event: TimedEvent,
    threshold: float,
    teacher: _Scores | None,
    levels: Sequence[_Levels],
) -> ErrorCase:
    confidence = teacher_threshold = None
    if teacher is not None and keyword in teacher.thresholds:
        teacher_threshold = teacher.thresholds[keyword]
        if kind == "miss":
            confidence = teacher.best(utterance.key, keyword).confidence
        else:
            confidence = teacher.at(utterance.key, keyword, event)
    is_suspected = confidence is not None and all(
        level.fit_other_label(kind, each)
        for level, each in zip(levels, (event.confidence, confidence), strict=True)
    )
    return ErrorCase(
        kind=kind,
        keyword=keyword,
        key=utterance.key,
        wav=utterance.wav,
        duration_s=utterance.duration,
        transcript=text,
        speaker=traits[0],
        condition=traits[1],
        near_miss_of=traits[2],
        confidence=event.confidence,
        threshold=threshold,
        start_s=event.start_s,
        end_s=event.end_s,
        teacher_confidence=confidence,
        teacher_threshold=teacher_threshold,
        is_suspected=is_suspected,
    )


def _badness(case: ErrorCase) -> tuple[int, float]:
    """Return a sort key: by kind; misses by how far below, alarms by how high they are."""
    sign = 1.0 if case.kind == "miss" else -1.0
    return KINDS.index(case.kind), sign * case.confidence / max(case.threshold, 1e-9)


def near_miss(text: str, keywords: Sequence[str]) -> str:
    """Return the keyword that a text without it resembles most closely; empty: none.

    Resembles: a piece of the text equals the keyword up to a third of its characters (edit
    distance, spaces left out).
    """
    compact = "".join(text.split()).upper()
    shares = {}
    for keyword in keywords:
        word = "".join(keyword.split()).upper()
        shares[keyword] = _piece_distance(compact, word) / len(word)
    best = min(shares, key=shares.__getitem__, default="")
    return best if best and 0 < shares[best] <= NEAR_SHARE else ""


def _piece_distance(text: str, word: str) -> int:
    """Return the smallest edit distance of a word to any piece of a text (Sellers 1980)."""
    column = list(range(len(word) + 1))
    best = column[-1]
    for letter in text:
        before, column[0] = column[0], 0
        for i, expected in enumerate(word, start=1):
            now = min(before + (letter != expected), column[i] + 1, column[i - 1] + 1)
            before, column[i] = column[i], now
        best = min(best, column[-1])
    return best


_ATTRIBUTES = ("speaker", "condition", "near miss of")


def _groups(
    cases: Sequence[ErrorCase], trials: Mapping[tuple[ErrorKind, str], Sequence[tuple[str, ...]]]
) -> list[ErrorGroup]:
    groups = []
    for (kind, keyword), traits in trials.items():
        errors = [case for case in cases if (case.kind, case.keyword) == (kind, keyword)]
        rate = len(errors) / len(traits)
        for index, attribute in enumerate(_ATTRIBUTES):
            sizes = Counter(row[index] for row in traits)
            values = [(c.speaker, c.condition, c.near_miss_of)[index] for c in errors]
            for value, number in Counter(values).items():
                is_large = number >= max(GROUP_ERRORS, GROUP_SHARE * len(errors))
                if value and is_large and number / sizes[value] >= GROUP_FACTOR * rate:
                    groups.append(
                        ErrorGroup(
                            kind=kind,
                            keyword=keyword,
                            attribute=attribute,
                            value=value,
                            errors=number,
                            all_errors=len(errors),
                            utterances=sizes[value],
                        )
                    )
    return sorted(groups, key=lambda group: -group.errors)[:MAX_GROUPS]


def shown_cases(review: ErrorReview, num_per_kind: int) -> list[ErrorCase]:
    """Return the cases of a page: of each kind the worst, and the suspected labels beside them."""
    shown: list[ErrorCase] = []
    for kind in KINDS:
        cases = [case for case in review.cases if case.kind == kind]
        shown += cases[:num_per_kind]
        shown += [c for c in cases[num_per_kind:] if c.is_suspected][:num_per_kind]
    return shown


def as_row(case: ErrorCase) -> dict[str, Any]:
    """Return a case as plain values for the page."""
    return {
        "kind": case.kind,
        "keyword": with_pinyin(case.keyword),
        "key": case.key,
        "text": case.transcript,
        "speaker": case.speaker,
        "condition": case.condition,
        "near": with_pinyin(case.near_miss_of) if case.near_miss_of else "",
        "confidence": round(case.confidence, 6),
        "threshold": round(case.threshold, 6),
        "teacher_confidence": case.teacher_confidence,
        "teacher_threshold": case.teacher_threshold,
        "duration": round(case.duration_s, 2),
        "suspected": case.is_suspected,
    }
