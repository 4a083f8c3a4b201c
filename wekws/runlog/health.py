"""What goes wrong in a training run: which problems begin and end, and what to do about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wekws.runlog import health_rules as rules
from wekws.runlog.health_rules import Log, Row


@dataclass(frozen=True)
class Rule:
    """One thing that can go wrong, and what to do about it."""

    find: Callable[[Log], str | None]
    remedy: str


_NEARER = "a lower `optim_conf.lr`, warm-up, or a start from the teacher"
RULES = {
    "loss_rising": Rule(
        rules.rising, "Average checkpoints around the best epoch; then more data, or a lower rate."
    ),
    "loss_oscillating": Rule(
        rules.oscillating, "Lower `optim_conf.lr`, or make the step larger (`accum_grad`)."
    ),
    "blank_collapse": Rule(rules.blank_collapse, f"Try {_NEARER}; look at the labels."),
    "filler_collapse": Rule(
        rules.filler_collapse, "Look at the dictionary: too many words of the labels are filler."
    ),
    "same_output": Rule(rules.same_output, f"Try {_NEARER}; look at the features and the CMVN."),
    "weak_teacher": Rule(
        rules.weak_teacher, "Train the teacher longer, or give the labels more weight (`--alpha`)."
    ),
    "task_left_behind": Rule(
        rules.task_left_behind,
        "Give the labels more weight towards the end (`alpha: cosine_growth`), or compare "
        "non-blank frames only (`distill_conf.kd.frames: widened`).",
    ),
    "vanishing_gradient": Rule(
        rules.vanishing_gradient,
        "Start these layers from the teacher; is a stage freezing what is on?",
    ),
    "exploding_gradient": Rule(
        rules.exploding_gradient,
        "Lower `optim_conf.lr` or `grad_clip`; look at the newest term's weight.",
    ),
    "dead_adapter": Rule(rules.dead_adapter, "Less `weight_decay`, or more weight for the term."),
    "stuck_gate": Rule(rules.stuck_gate, "Change what holds the gate open, or leave it out."),
}


def findings(rows: Sequence[Row]) -> dict[str, str]:
    """Return what is wrong at the end of these rows: problem -> sentence."""
    log = Log.of(rows)
    if not log.epochs:
        return {}
    found = {name: rule.find(log) for name, rule in RULES.items()}
    return {name: text for name, text in found.items() if text}


def changes(rows: Sequence[Row]) -> list[Row]:
    """Return the ``health`` rows that the last epoch adds: problems that began or ended.

    What is going on already is read from the health rows among ``rows``, so that a run that was
    resumed neither repeats nor loses any.
    """
    found, known = findings(rows), ongoing(rows)
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


def ongoing(rows: Sequence[Row]) -> dict[str, Row]:
    """Return the problems that began and have not ended: problem -> the row of its beginning."""
    open_rows: dict[str, Row] = {}
    for row in rows:
        if row.get("kind") != "health":
            continue
        if row["state"] == "began":
            open_rows[row["problem"]] = row
        else:
            open_rows.pop(row["problem"], None)
    return open_rows


def replayed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the health rows that a run would have written that did not watch."""
    told: list[Row] = []
    for row in rows:
        told.append(row)
        if row.get("kind") == "cv":
            told += [{"kind": "health", **change} for change in changes(told)]
    return told


@dataclass(frozen=True)
class Problem:
    """Something that went wrong. end: the epoch it was over in; None: it was not."""

    name: str
    text: str
    begin: int
    end: int | None = None

    def sentence(self) -> str:
        """Return when it was, what it was like when it began, and what to do about it."""
        when = f"From epoch {self.begin} on"
        if self.end is not None:
            last = self.end - 1
            when = f"In epoch {last}" if last == self.begin else f"In epochs {self.begin} to {last}"
        remedy = RULES[self.name].remedy if self.name in RULES else ""
        return f"{when}: {self.text}. {remedy}".rstrip()


def history(rows: Sequence[Row]) -> list[Problem]:
    """Return the problems that the health rows tell of, in the order of their beginnings."""
    told: list[Problem] = []
    for row in rows:
        if row.get("kind") != "health":
            continue
        if row["state"] == "began":
            told.append(Problem(row["problem"], row["text"], int(row["epoch"])))
            continue
        for i, problem in enumerate(told):
            if problem.name == row["problem"] and problem.end is None:
                told[i] = replace(problem, end=int(row["epoch"]))
    return told
