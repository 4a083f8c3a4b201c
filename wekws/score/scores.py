"""Files of scored utterances: `score.txt`, `events.tsv`, `score.json`.

`score.txt` keeps WeKWS's columns, `utt detected KEYWORD 0.596` for every event, the highest of an
utterance first, and `utt rejected` where the decoder found no keyword at all. Spaces in a keyword
are written as `_`. Confidences have 6 significant digits; error rates are computed
from the rounded numbers. `events.tsv` has the same events with their times.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.dataset.vocabulary import keyword_id
from wekws.decode.event_rule import Event
from wekws.errors import DataError
from wekws.files import atomic_path, read_json

SCORES_NAME, SCORE_INFO_NAME = "score.txt", "score.json"
REJECTED = -1.0


@dataclass(frozen=True)
class ScoredUtterance:
    """An utterance with its events."""

    key: str
    """Key of the utterance."""
    events: Mapping[str, Sequence[Event]]
    """Events by keyword; a keyword may have none."""


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
        atomic_path(result_dir / "events.tsv") as events_path,
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

    Raises: DataError naming file and line of anything but a detection or a rejection, or if
    there is no line at all.
    """
    positions: dict[str, int] = {}
    found: dict[str, tuple[list[int], list[float]]] = {}
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.split()
            if len(fields) == 4 and fields[1] == "detected":
                position = positions.setdefault(fields[0], len(positions))
                utterances, confidences = found.setdefault(fields[2], ([], []))
                utterances.append(position)
                confidences.append(_confidence(fields[3], f"{path}:{number}"))
            elif len(fields) == 2 and fields[1] == "rejected":
                positions.setdefault(fields[0], len(positions))
            elif fields:
                raise DataError(
                    f"{path}:{number}: {line.strip()!r}; expected `utt detected KEYWORD "
                    "confidence` or `utt rejected`"
                )
    if not positions:
        raise DataError(f"{path}: no utterance in it; score the set again")
    events = {
        keyword: KeywordEvents(np.array(utterances, dtype=np.int64), np.array(confidences))
        for keyword, (utterances, confidences) in found.items()
    }
    return ScoreTable(tuple(positions), events)


def _confidence(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value <= 1.0:
        raise DataError(f"{where}: confidence {text!r}; expected a number from 0 to 1")
    return value


def read_score_info(result_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `score.json`: the checkpoint, decoder and data list of the scores.

    Raises: DataError if it is missing or unreadable.
    """
    path = Path(result_dir) / SCORE_INFO_NAME
    if not path.exists():
        raise DataError(f"{path}: no such file; run wekws.bin.score_ctc on this folder first")
    return read_json(path)
