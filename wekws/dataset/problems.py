"""Problems of a corpus with severity and advice, and the validation report that lists them."""

import collections
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wekws.files import atomic_path

logger = logging.getLogger(__name__)

# Problems of one kind that are shown in the log and in validation.md.
_MAX_SHOWN = 10
# Problems of one kind that are kept; more are counted.
_MAX_KEPT = 1000

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of problem: how serious it is, what was expected and what to do."""

    severity: Severity
    """An error ends the recipe, a warning does not."""
    expected: str
    """The state that the check expects."""
    advice: str
    """Advice to the user."""


_KINDS = {
    "list_empty": ProblemKind(
        "error", "wav.scp and text in every split", "prepare the split again"
    ),
    "list_unreadable": ProblemKind("error", "UTF-8 text", "convert the file"),
    "duplicate_id": ProblemKind("error", "each id once", "rename or remove one of the lines"),
    "text_without_audio": ProblemKind(
        "error", "the id in wav.scp", "add the audio or remove the text"
    ),
    "audio_without_text": ProblemKind(
        "error", "the id in text", "add the transcript, or `<noise>` if there is no speech"
    ),
    "audio_missing": ProblemKind("error", "an audio file", "correct the path in wav.scp"),
    "audio_empty": ProblemKind("error", "samples", "record it again or remove the utterance"),
    "audio_truncated": ProblemKind(
        "error", "as many samples as the header states", "copy the file again"
    ),
    "audio_unreadable": ProblemKind("error", "WAV, FLAC or Ogg", "convert or remove the file"),
    "audio_unsupported_rate": ProblemKind(
        "error", "a usual rate such as 8000, 16000, 44100 or 48000 Hz", "resample the file"
    ),
    "audio_out_of_range": ProblemKind(
        "error", "samples between -1 and 1", "convert the file to 16 bit or remove it"
    ),
    "audio_not_scaled": ProblemKind(
        "warning", "samples between -1 and 1", "divide the samples by full scale (32768 if 16 bit)"
    ),
    "audio_too_short": ProblemKind("error", "at least one analysis window", "remove the utterance"),
    "audio_silent": ProblemKind(
        "warning", "a peak above -80 dBFS", "play the file; remove it if it is broken"
    ),
    "split_silent": ProblemKind("error", "a file with sound", "check how the audio was made"),
    "duration_differs": ProblemKind(
        "warning", "the duration of the file in utt2dur", "correct or remove utt2dur"
    ),
    "text_empty": ProblemKind(
        "warning", "words, <filler> or <noise>", "write the transcript of the audio"
    ),
    "labels_too_long": ProblemKind(
        "warning",
        "one model frame per label and one more between equal labels",
        "check the text; training leaves the utterance out",
    ),
    "utterance_in_two_splits": ProblemKind("error", "each id in one split", "remove one of them"),
    "audio_in_two_splits": ProblemKind(
        "warning", "different recordings in each split", "remove one of them"
    ),
    "speaker_in_two_splits": ProblemKind(
        "warning", "each speaker in one split", "split by speaker"
    ),
    "keyword_absent": ProblemKind(
        "error", "utterances with every keyword", "add some or remove the keyword"
    ),
    "keyword_absent_from_dev": ProblemKind("warning", "utterances with every keyword", "add some"),
    "negatives_absent_from_train": ProblemKind(
        "warning", "utterances without a keyword", "add some: they keep false alarms rare"
    ),
    "negatives_absent_from_dev": ProblemKind(
        "warning", "utterances without a keyword", "add some: they set the thresholds"
    ),
    "negatives_absent_from_test": ProblemKind(
        "error", "utterances without a keyword", "add some: false alarms are counted on them"
    ),
    "keyword_not_in_vocabulary": ProblemKind(
        "error", "all its tokens in dict.txt", "make dict.txt with this keyword"
    ),
}


@dataclass(frozen=True, kw_only=True)
class CorpusProblem:
    """One problem: its place, what was found, what was expected and what to do."""

    severity: Severity
    """An error ends the recipe, a warning does not."""
    kind: str
    """Name of the kind, such as ``audio_missing``."""
    where: str
    """File and line, or split, utterance and file."""
    found: str
    """Description of the defect."""
    expected: str
    """The state that the check expects."""
    advice: str
    """Advice to the user."""

    def __str__(self) -> str:
        """Return one line for the log and for validation.md."""
        return f"{self.where}: {self.found}; expected {self.expected}; {self.advice}"


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """Counts of one split."""

    num_utterances: int
    """Lines of wav.scp."""
    num_speakers: int
    """Speakers in utt2spk."""
    hours: float
    """Total length of the readable audio."""
    keywords: dict[str, int]
    """Number of utterances that contain each keyword."""
    negatives: int
    """Number of utterances without a keyword."""
    conversions: dict[str, int]
    """Number of files that are resampled or mixed down, by kind of conversion."""
    durations: list[float]
    """Length in seconds of each readable file."""


@dataclass(kw_only=True)
class ValidationReport:
    """All problems of a corpus and the counts per split."""

    splits: dict[str, SplitReport] = field(default_factory=dict)
    """Counts by split name."""
    problems: list[CorpusProblem] = field(default_factory=list)
    """Problems in the order in which they were found: all of them, but of a kind with very many
    only the first ones."""
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    """Number of problems of each kind."""
    kinds: dict[str, ProblemKind] = field(default_factory=lambda: dict(_KINDS))
    """The kinds of problems by name."""

    def add(self, kind: str, where: str, found: str) -> None:
        """Add a problem of a known kind."""
        known = self.kinds[kind]
        self.counts[kind] += 1
        if self.counts[kind] > _MAX_KEPT:
            return
        problem = CorpusProblem(
            severity=known.severity,
            kind=kind,
            where=where,
            found=found,
            expected=known.expected,
            advice=known.advice,
        )
        self.problems.append(problem)

    def raise_to_error(self, kind: str) -> None:
        """Count problems of this kind as errors from now on."""
        self.kinds[kind] = dataclasses.replace(self.kinds[kind], severity="error")

    def count(self, severity: Severity) -> int:
        """Return the number of problems of one severity."""
        return sum(n for kind, n in self.counts.items() if self.kinds[kind].severity == severity)

    def by_kind(self) -> dict[str, list[CorpusProblem]]:
        """Return the problems grouped by kind, errors first."""
        groups: dict[str, list[CorpusProblem]] = collections.defaultdict(list)
        for problem in sorted(self.problems, key=lambda problem: problem.severity):
            groups[problem.kind].append(problem)
        return groups

    def log(self) -> None:
        """Log the audio conversions, then the first problems of every kind."""
        for line in self._conversions():
            logger.info("%s", line)
        for kind, problems in self.by_kind().items():
            level = logging.ERROR if problems[0].severity == "error" else logging.WARNING
            for line in self._shown(kind, problems):
                logger.log(level, "%s: %s", kind, line)

    def write(self, out_dir: str | os.PathLike[str]) -> None:
        """Write validation.json and validation.md (a summary to read)."""
        content = {
            "num_errors": self.count("error"),
            "num_warnings": self.count("warning"),
            "counts": dict(self.counts),
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }
        as_json = json.dumps(content, ensure_ascii=False, indent=1)
        for name, text in (("validation.json", as_json), ("validation.md", self.markdown())):
            with atomic_path(Path(out_dir) / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")

    def markdown(self) -> str:
        """Return the counts, then the first problems of every kind."""
        lines = ["# Data", "", self.counts_table(), "", f"{self.summary()}.", ""]
        lines += [f"- {line}" for line in self._conversions()]
        for kind, problems in self.by_kind().items():
            lines += ["", f"## {problems[0].severity}: {kind} ({self.counts[kind]})", ""]
            lines += [f"- {line}" for line in self._shown(kind, problems)]
        return "\n".join(lines)

    def _shown(self, kind: str, problems: Sequence[CorpusProblem]) -> list[str]:
        lines = [str(problem) for problem in problems[:_MAX_SHOWN]]
        if self.counts[kind] > len(lines):
            kept = "all" if self.counts[kind] == len(problems) else f"the first {len(problems)}"
            more = self.counts[kind] - len(lines)
            lines.append(f"... and {more} more, {kept} in validation.json")
        return lines

    def _conversions(self) -> list[str]:
        return [
            f"{name}: {count} files {conversion}"
            for name, split in self.splits.items()
            for conversion, count in split.conversions.items()
        ]

    def counts_table(self) -> str:
        """Return a Markdown table of the splits: sizes, and utterances with each keyword."""
        keywords = list(next(iter(self.splits.values())).keywords) if self.splits else []
        header = ["split", "utterances", "speakers", "hours", *keywords, "negatives"]
        rows = [header, ["---"] * len(header)]
        for name, split in self.splits.items():
            sizes = [str(split.num_utterances), str(split.num_speakers), f"{split.hours:.3f}"]
            counts = [str(split.keywords[keyword]) for keyword in keywords]
            rows.append([name, *sizes, *counts, str(split.negatives)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def summary(self) -> str:
        """Return the number of errors and of warnings."""
        return f"{self.count('error')} errors, {self.count('warning')} warnings"
