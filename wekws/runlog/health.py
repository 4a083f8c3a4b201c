"""Health of a training run: problems found in its rows, when they began and ended, and remedies.

A problem is found by a ``HealthRule``. The rules to apply are an argument of every function:
``health_rules.GENERAL_RULES`` hold for any training, and a distillation method adds its own.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wekws.runlog.fields import Row


@dataclass(frozen=True)
class RunLog:
    """A run's rows, sorted by kind for the rules."""

    epochs: Sequence[Row]
    """The cv rows after the first step, of the current stage only; the last is the one judged."""
    teacher: Row
    """The row on the teacher, or empty."""
    labels: Row
    """The row on the labels of the cv set, or empty."""
    layers: Sequence[Row]
    """The ``layers`` rows of the current stage, one per epoch."""
    steps: Sequence[Row]
    """The ``step`` rows of the last epoch."""
    gradient: Row
    """The newest ``gradient`` row, or empty."""

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> "RunLog":
        """Sort rows as ``metrics.jsonl`` holds them; of an epoch run twice the last row counts."""
        by_kind: dict[str, dict[int, list[Row]]] = {}
        for row in rows:
            epochs = by_kind.setdefault(str(row.get("kind")), {})
            epochs.setdefault(int(row.get("epoch", -1)), []).append(row)
        cv = [found[-1] for epoch, found in sorted(by_kind.get("cv", {}).items()) if epoch >= 0]
        first = next((i for i in range(len(cv)) if _is_one_stage(cv[i:])), 0)
        stage = [row["epoch"] for row in cv[first:]]
        layers = by_kind.get("layers", {})

        def newest(kind: str) -> Row:
            found = by_kind.get(kind, {})
            return found[max(found)][-1] if found else {}

        return cls(
            epochs=cv[first:],
            teacher=newest("teacher"),
            labels=newest("labels"),
            layers=[layers[epoch][-1] for epoch in stage if epoch in layers],
            steps=by_kind.get("step", {}).get(stage[-1] if stage else -1, []),
            gradient=newest("gradient"),
        )

    def series(self, name: str) -> list[float]:
        """Return a quantity of the cv rows, without epochs that lack it as a number."""
        return _numbers(self.epochs, name)

    def mean(self, name: str) -> float | None:
        """Return the last epoch's mean of a quantity of the step rows."""
        values = _numbers(self.steps, name)
        return statistics.fmean(values) if values else None


def _numbers(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]


def _is_one_stage(rows: Sequence[Row]) -> bool:
    return len({row.get("stage") for row in rows}) <= 1


@dataclass(frozen=True)
class HealthRule:
    """One kind of problem, and a remedy."""

    name: str
    """Name of the problem in ``metrics.jsonl``."""
    find: Callable[[RunLog], str | None]
    """Returns a sentence with the figures that show the problem, or None if there is none."""
    remedy: str
    """Advice to the user, one or two sentences."""


def find_problems(rows: Sequence[Row], rules: Sequence[HealthRule]) -> dict[str, str]:
    """Return the problems at the end of these rows: name -> sentence."""
    log = RunLog.from_rows(rows)
    if not log.epochs:
        return {}
    found = {rule.name: rule.find(log) for rule in rules}
    return {name: text for name, text in found.items() if text}


def health_changes(rows: Sequence[Row], rules: Sequence[HealthRule]) -> list[Row]:
    """Return the ``health`` rows that the last epoch adds: problems that began or ended.

    Earlier problems are read from the health rows among ``rows``, so that a resumed run neither
    repeats nor loses one.
    """
    found, known = find_problems(rows, rules), ongoing_problems(rows)
    epoch = max((int(row.get("epoch", -1)) for row in rows), default=-1)
    began = [
        {"epoch": epoch, "problem": name, "state": "began", "text": text}
        for name, text in found.items()
        if name not in known
    ]
    ended = [
        {"epoch": epoch, "problem": name, "state": "ended"} for name in known if name not in found
    ]
    return began + ended


def ongoing_problems(rows: Sequence[Row]) -> dict[str, Row]:
    """Return the problems that began and have not ended: name -> the row of its beginning."""
    open_rows: dict[str, Row] = {}
    for row in rows:
        if row.get("kind") != "health":
            continue
        if row["state"] == "began":
            open_rows[row["problem"]] = row
        else:
            open_rows.pop(row["problem"], None)
    return open_rows


def with_health_rows(rows: Sequence[Row], rules: Sequence[HealthRule]) -> list[Row]:
    """Return the rows of a run that wrote no health rows, with those that it would have written."""
    completed: list[Row] = []
    for row in rows:
        completed.append(row)
        if row.get("kind") == "cv":
            changes = health_changes(completed, rules)
            completed += [{"kind": "health", **change} for change in changes]
    return completed


@dataclass(frozen=True)
class HealthProblem:
    """A problem that occurred in a run."""

    name: str
    """Name of its rule."""
    text: str
    """The finding when it began, with figures."""
    remedy: str
    """Advice to the user; empty for a problem that only another version of the rules knows."""
    first_epoch: int
    """Epoch in which it began."""
    end_epoch: int | None = None
    """First epoch without it; None: it lasted to the end."""

    @property
    def finding(self) -> str:
        """The text, then the remedy."""
        return f"{self.text}. {self.remedy}".rstrip()

    def sentence(self) -> str:
        """Return when it occurred, what was found, and a remedy."""
        when = f"From epoch {self.first_epoch} on"
        if self.end_epoch is not None:
            first, last = self.first_epoch, self.end_epoch - 1
            when = f"In epoch {last}" if last == first else f"In epochs {first} to {last}"
            when += ", not at the end"
        return f"{when}: {self.finding}"


def problem_history(rows: Sequence[Row], rules: Sequence[HealthRule]) -> list[HealthProblem]:
    """Return the problems that the health rows record, in the order in which they began."""
    remedies = {rule.name: rule.remedy for rule in rules}
    problems: list[HealthProblem] = []
    for row in rows:
        if row.get("kind") != "health":
            continue
        name, epoch = row["problem"], int(row["epoch"])
        if row["state"] == "began":
            problems.append(HealthProblem(name, row["text"], remedies.get(name, ""), epoch))
            continue
        for i, problem in enumerate(problems):
            if problem.name == name and problem.end_epoch is None:
                problems[i] = replace(problem, end_epoch=epoch)
    return problems
