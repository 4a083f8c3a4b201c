"""Files of scored utterances: `score.txt`, `events.tsv`, `score.json`.

`score.txt` keeps WeKWS's columns, `utt detected KEYWORD 0.596` for every event, the highest of an
utterance first, and `utt rejected` where the decoder found no keyword at all. Spaces in a keyword
are written as `_`. Confidences have 6 significant digits; error rates are computed
from the rounded numbers. `events.tsv` has the same events with their times.
"""

import array
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.dataset.vocabulary import keyword_id, normalise_keywords
from wekws.decode.event_rule import Event
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, named_if_no_text, read_json

SCORES_NAME, SCORE_INFO_NAME, EVENTS_NAME = "score.txt", "score.json", "events.tsv"
REJECTED = -1.0


@dataclass(frozen=True)
class ScoredUtterance:
    """An utterance with its events."""

    key: str
    """Key of the utterance."""
    events: Mapping[str, Sequence[Event]]
    """Events by keyword; a keyword may have none."""


@dataclass(frozen=True)
class TimedEvent:
    """A possible detection with its place in the recording, as `events.tsv` has it."""

    confidence: float
    """Confidence, 0 to 1."""
    start_s: float
    """First frame of the keyword, in seconds."""
    end_s: float
    """End of its last frame, in seconds."""


@dataclass(frozen=True)
class KeywordEvents:
    """The events of one keyword."""

    utterance: np.ndarray
    """(N,) position of each event's utterance in the table."""
    confidence: np.ndarray
    """(N,) confidence of each event, 0 to 1."""


@dataclass(frozen=True)
class ScoreTable:
    """A `score.txt` in memory."""

    keys: tuple[str, ...]
    """Keys of all utterances, in order."""
    events: Mapping[str, KeywordEvents]
    """Events by keyword id (the keyword with `_` for spaces)."""

    def of(self, keyword: str) -> KeywordEvents:
        """Return the events of a keyword, empty if there are none."""
        empty = KeywordEvents(np.zeros(0, dtype=np.int64), np.zeros(0))
        return self.events.get(keyword_id(keyword), empty)

    def best(self, keyword: str) -> np.ndarray:
        """Return each utterance's highest confidence (U,), `REJECTED` where there is none."""
        found = self.of(keyword)
        best = np.full(len(self.keys), REJECTED)
        np.maximum.at(best, found.utterance, found.confidence)
        return best


def write_scores(
    result_dir: str | os.PathLike[str], scored: Iterable[ScoredUtterance], hop_s: float
) -> None:
    """Write `score.txt` and `events.tsv`; hop_s: seconds between two frames of posteriors."""
    result_dir = Path(result_dir)
    with (
        atomic_path(result_dir / SCORES_NAME) as score_path,
        atomic_path(result_dir / EVENTS_NAME) as events_path,
        open(score_path, "w", encoding="utf-8") as scores,
        open(events_path, "w", encoding="utf-8") as times,
    ):
        times.write("utt\tkeyword\tconfidence\tstart_s\tend_s\n")
        for utterance in scored:
            if not any(utterance.events.values()):
                scores.write(f"{utterance.key} rejected\n")
            for keyword, events in utterance.events.items():
                name = keyword_id(keyword)
                for event in sorted(events, key=lambda event: -event.score):
                    confidence = f"{event.score:.6g}"
                    start_s, end_s = event.start * hop_s, (event.end + 1) * hop_s
                    scores.write(f"{utterance.key} detected {name} {confidence}\n")
                    times.write(
                        f"{utterance.key}\t{name}\t{confidence}\t{start_s:.3f}\t{end_s:.3f}\n"
                    )


def read_scores(path: str | os.PathLike[str]) -> ScoreTable:
    """Read a `score.txt`, ours or WeKWS's.

    Raises: DataError naming file and line of anything but a detection or a rejection, of an
    utterance whose lines are not next to each other (a file that was written twice), or if there
    is no line at all.
    """
    keys: dict[str, None] = {}
    found: dict[str, tuple[array.array[int], array.array[float]]] = {}
    last_key, is_rejected, number = "", False, 0
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):  # noqa: B007
                fields = line.split()
                if not fields:
                    continue
                key = fields[0]
                if key != last_key:
                    if key in keys:
                        raise ValueError(f"utterance {key} has lines further up; score it again")
                    keys[key] = None
                    last_key, is_rejected = key, False
                elif is_rejected:
                    raise ValueError(f"utterance {key} is rejected above; score it again")
                if len(fields) == 4 and fields[1] == "detected":
                    confidence = float(fields[3])
                    if not 0.0 <= confidence <= 1.0:
                        raise ValueError(f"confidence {confidence}; expected a number from 0 to 1")
                    if fields[2] not in found:
                        found[fields[2]] = (array.array("q"), array.array("d"))
                    utterances, confidences = found[fields[2]]
                    utterances.append(len(keys) - 1)
                    confidences.append(confidence)
                elif len(fields) == 2 and fields[1] == "rejected":
                    is_rejected = True
                else:
                    expected = "`utt detected KEYWORD confidence` or `utt rejected`"
                    raise ValueError(f"{line.strip()!r}; expected {expected}")
    except ValueError as error:
        raise DataError(f"{path}:{number}: {error}") from None
    if not keys:
        raise DataError(f"{path}: no utterance in it; score the set again")
    events = {
        keyword: KeywordEvents(np.array(utterances, dtype=np.int64), np.array(confidences))
        for keyword, (utterances, confidences) in found.items()
    }
    return ScoreTable(tuple(keys), events)


def read_timed_events(
    result_dir: str | os.PathLike[str],
) -> dict[tuple[str, str], list[TimedEvent]]:
    """Read `events.tsv`: the events by utterance and keyword id (`_` for spaces).

    Raises: DataError naming file and line of anything else, or if there is no such file.
    """
    path = Path(result_dir) / EVENTS_NAME
    if not path.exists():
        raise DataError(f"{path}: no such file; run wekws.bin.score_ctc on this folder first")
    events: dict[tuple[str, str], list[TimedEvent]] = {}
    with named_if_no_text(path), open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                continue
            fields = line.rstrip("\n").split("\t")
            try:
                key, keyword, *numbers = fields
                confidence, start_s, end_s = map(float, numbers)
            except ValueError:
                raise DataError(
                    f"{path}:{number}: {line.strip()!r}; expected utt, keyword, confidence, "
                    "start_s, end_s"
                ) from None
            events.setdefault((key, keyword), []).append(TimedEvent(confidence, start_s, end_s))
    return events


def read_score_info(result_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `score.json`: the checkpoint, decoder and data list of the scores.

    Raises: DataError if it is missing or damaged, or if a keyword cannot name a file.
    """
    path = Path(result_dir) / SCORE_INFO_NAME
    if not path.exists():
        raise DataError(f"{path}: no such file; run wekws.bin.score_ctc on this folder first")
    info = read_json(path)
    for name in ("data_list", "checkpoint", "decoder"):
        if not isinstance(info.get(name, "" if name != "data_list" else None), str):
            raise DataError(f"{path}: {name} is {info.get(name)!r}; score the set again")
    keywords = info.get("keywords")
    if not isinstance(keywords, list) or not all(isinstance(name, str) for name in keywords):
        raise DataError(f"{path}: keywords are {keywords!r}; score the set again")
    try:
        normalise_keywords(keywords)
    except ConfigError as error:
        raise DataError(f"{path}: {error}; score the set again") from None
    return info
