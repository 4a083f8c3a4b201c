"""Problems of a corpus, graded and explained, and the report that holds them."""

import collections
import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wekws.files import atomic_path

log = logging.getLogger(__name__)

# Of one kind, in the log and in validation.md.
_MAX_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Rule:
    """What a kind of problem means to a user."""

    severity: Literal["error", "warning"]
    expected: str
    advice: str


_RULES = {
    "list_empty": Rule("error", "wav.scp and text in every split", "prepare the split again"),
    "list_unreadable": Rule("error", "UTF-8 text", "convert the file"),
    "duplicate_id": Rule("error", "each id once", "rename or remove one of the lines"),
    "text_without_audio": Rule("error", "the id in wav.scp", "add the audio or remove the text"),
    "audio_without_text": Rule("error", "the id in text", "add `<noise>` or what is said"),
    "audio_missing": Rule("error", "an audio file", "correct the path in wav.scp"),
    "audio_empty": Rule("error", "samples", "record it again or remove the utterance"),
    "audio_truncated": Rule("error", "all samples the header promises", "copy the file again"),
    "audio_unreadable": Rule("error", "WAV, FLAC or Ogg", "convert or remove the file"),
    "audio_too_short": Rule("error", "at least one analysis window", "remove the utterance"),
    "audio_silent": Rule("warning", "a peak above -80 dBFS", "listen; remove it if it is broken"),
    "duration_differs": Rule("warning", "the file's duration in utt2dur", "remove utt2dur"),
    "text_empty": Rule("warning", "words, <filler> or <noise>", "write what is heard"),
    "labels_too_long": Rule(
        "warning", "a frame for each label and repeat", "check the text; training leaves it out"
    ),
    "utterance_in_two_splits": Rule("error", "each id in one split", "remove it from one"),
    "audio_in_two_splits": Rule("warning", "other recordings in each split", "keep one copy"),
    "speaker_in_two_splits": Rule("warning", "each speaker in one split", "split by speaker"),
    "keyword_absent": Rule("error", "utterances of every keyword", "add some or drop the keyword"),
    "keyword_absent_from_dev": Rule("warning", "utterances of every keyword", "add some"),
    "keyword_not_in_vocabulary": Rule("error", "all its tokens in dict.txt", "make dict.txt anew"),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: where, what was found, and by its kind what to do."""

    severity: str
    kind: str
    where: str
    found: str
    expected: str
    advice: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.where}: {self.found}; expected {self.expected}; {self.advice}"


@dataclass(kw_only=True)
class SplitReport:
    """Counts of one split; durations in seconds, of the audio that can be read."""

    num_utterances: int
    num_speakers: int
    hours: float = 0.0
    keywords: dict[str, int] = field(default_factory=dict)
    negatives: int = 0
    conversions: dict[str, int] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)


@dataclass
class Report:
    """All problems and the counts per split."""

    splits: dict[str, SplitReport] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    rules: dict[str, Rule] = field(default_factory=lambda: dict(_RULES))

    def add(self, kind: str, where: str, found: str) -> None:
        """Note a problem."""
        rule = dataclasses.asdict(self.rules[kind])
        self.problems.append(Problem(kind=kind, where=where, found=found, **rule))

    def raise_to_error(self, kind: str) -> None:
        """Take a kind of problem seriously from here on."""
        self.rules[kind] = dataclasses.replace(self.rules[kind], severity="error")

    def count(self, severity: str) -> int:
        """Count the problems of one severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def by_kind(self) -> dict[str, list[Problem]]:
        """Problems grouped by kind, errors first."""
        groups: dict[str, list[Problem]] = collections.defaultdict(list)
        for problem in sorted(self.problems, key=lambda problem: problem.severity):
            groups[problem.kind].append(problem)
        return groups

    def log(self) -> None:
        """Log what is converted, then the first problems of every kind and how many more."""
        for line in self._conversions():
            log.info("%s", line)
        for kind, problems in self.by_kind().items():
            level = logging.ERROR if problems[0].severity == "error" else logging.WARNING
            for line in _shown(problems):
                log.log(level, "%s: %s", kind, line)

    def write(self, out_dir: str | os.PathLike[str]) -> None:
        """Write validation.json (everything) and validation.md (for reading)."""
        content = {
            "num_errors": self.count("error"),
            "num_warnings": self.count("warning"),
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }
        as_json = json.dumps(content, ensure_ascii=False, indent=1)
        for name, text in (("validation.json", as_json), ("validation.md", self.markdown())):
            with atomic_path(Path(out_dir) / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")

    def markdown(self) -> str:
        """Counts, then the first problems of every kind."""
        lines = ["# Data", "", self.counts_table(), "", f"{self.verdict()}.", ""]
        lines += [f"- {line}" for line in self._conversions()]
        for kind, problems in self.by_kind().items():
            lines += ["", f"## {problems[0].severity}: {kind} ({len(problems)})", ""]
            lines += [f"- {line}" for line in _shown(problems)]
        return "\n".join(lines)

    def _conversions(self) -> list[str]:
        return [
            f"{name}: {count} files {conversion}"
            for name, split in self.splits.items()
            for conversion, count in split.conversions.items()
        ]

    def counts_table(self) -> str:
        """Sizes of the splits and how often each keyword is said, as a Markdown table."""
        keywords = list(next(iter(self.splits.values())).keywords) if self.splits else []
        header = ["split", "utterances", "speakers", "hours", *keywords, "negatives"]
        rows = [
            [
                *(name, split.num_utterances, split.num_speakers, f"{split.hours:.3f}"),
                *(split.keywords[keyword] for keyword in keywords),
                split.negatives,
            ]
            for name, split in self.splits.items()
        ]
        return "\n".join(map(_row, [header, ["---"] * len(header), *rows]))

    def verdict(self) -> str:
        """How many errors and warnings there are."""
        return f"{self.count('error')} errors, {self.count('warning')} warnings"


def _shown(problems: Sequence[Problem]) -> list[str]:
    lines = [str(problem) for problem in problems[:_MAX_SHOWN]]
    if len(problems) > _MAX_SHOWN:
        lines.append(f"... and {len(problems) - _MAX_SHOWN} more, all in validation.json")
    return lines


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
