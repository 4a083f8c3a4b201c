"""The rules that read from a run's own rows what goes wrong.

Each looks at the rows so far and returns a sentence with its numbers, or None when all is
well. The thresholds below were held against 30 healthy runs (students of 20 tokens from random
and transplanted starts, teachers, bases of 2,600 tokens): none of those yields a finding.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

# A rise: this many epochs in a row above the best one, by this share of it and by this multiple
# of the upward steps that led there. Healthy runs swing by up to 3 times, but come back in time.
RISE_EPOCHS, RISE_SHARE, RISE_NOISE = 4, 0.05, 3.0
# An oscillation: in this many changes all but one turn round, upward ones take a tenth of the
# loss on average, and the window's mean is no better than that of the window before.
SWING_CHANGES, SWING_SHARE = 6, 0.10
# CTC begins with blanks alone; the slowest healthy start was out of it after 3 epochs.
COLLAPSE_GRACE_EPOCHS = 5
# Frames that are not blank, against those of teacher or labels, whichever are fewer. The weakest
# healthy student had 0.29 of them after that time, a base in its rise some 0.15.
COLLAPSE_SHARE = 0.05
# Utterances with the commonest output, where labels are this varied. Healthy: under 0.4.
SAME_OUTPUT_SHARE, SAME_LABEL_SHARE = 0.8, 0.5
# A student may pass its teacher by chance; by this share of the loss, twice in a row, it does not.
WEAKER_SHARE, WEAKER_EPOCHS = 0.05, 2
# Means over 3 epochs against the 3 before. A healthy task falls by a fifth of what KD does.
APART_EPOCHS, APART_FALL = 3, 0.10
# Layer against the layer with the largest gradient. Healthy ones are within a factor of 30.
VANISHING_SHARE = 1e-3
# Epoch against the median of those before. Healthy gradients fall over training, at most double.
EXPLODING_FACTOR, EXPLODING_EPOCHS = 10.0, 3
# An adapter starts as the identity; weight decay or a wrong sign can shrink it to nothing.
DEAD_WEIGHT_SHARE, DEAD_GRADIENT_SHARE = 0.01, 1e-6
# A gate's mean over an epoch, 0 to 1: below, it lets nothing through; above, it selects nothing.
GATE_CLOSED, GATE_OPEN = 0.05, 0.98

_TASK_TERMS = ("ctc", "smoothing", "inner_ctc")


@dataclass(frozen=True)
class Log:
    """A run's rows, sorted for the rules.

    epochs: cv rows after the first step, of the stage that the run is in; the last is the epoch
    that is judged. teacher, labels: the row that describes them, or empty. layers: a row an
    epoch of the stage. steps: step rows of the last epoch. gradient: the newest one, or empty.
    """

    epochs: Sequence[Row]
    teacher: Row
    labels: Row
    layers: Sequence[Row]
    steps: Sequence[Row]
    gradient: Row

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Log":
        """Sort rows as ``metrics.jsonl`` holds them; those of an epoch run twice count once."""
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
        """Return a quantity of the cv rows, without epochs that lack it."""
        return [float(row[name]) for row in self.epochs if name in row]

    def mean(self, name: str) -> float | None:
        """Return the last epoch's mean of a quantity of the step rows."""
        values = [float(row[name]) for row in self.steps if name in row]
        return statistics.fmean(values) if values else None

    @property
    def taught(self) -> list[str]:
        """The distillation terms that weighed something in the last epoch."""
        names = {key[len("weighted_") :] for row in self.steps for key in row if _is_taught(key)}
        return sorted(name for name in names if self.mean(f"weighted_{name}"))


def _is_taught(key: str) -> bool:
    return key.startswith("weighted_") and key[len("weighted_") :] not in _TASK_TERMS


def _is_one_stage(rows: Sequence[Row]) -> bool:
    return len({row.get("stage") for row in rows}) <= 1


def rising(log: Log) -> str | None:
    """Find a cv loss that has gone up and stayed up."""
    losses = log.series("cv_loss")
    recent, before = losses[-RISE_EPOCHS:], losses[:-RISE_EPOCHS]
    if not before:
        return None
    best = min(before)
    steps = [b - a for a, b in _pairs(before[: before.index(best) + 1]) if b > a]
    noise = statistics.fmean(steps) if steps else 0.0
    if min(recent) <= best + max(RISE_SHARE * best, RISE_NOISE * noise):
        return None
    text = f"cv loss {recent[-1]:.2f}, above its best, {best:.2f}, for {RISE_EPOCHS} epochs"
    trained = log.series("train_ctc")
    if len(trained) < len(losses):
        return text
    then, now = trained[before.index(best)], trained[-1]
    if now < then:
        return f"{text}, while CTC in training fell from {then:.2f} to {now:.2f}: it overfits"
    return f"{text}, and CTC in training rose from {then:.2f} to {now:.2f}: it diverges"


def oscillating(log: Log) -> str | None:
    """Find a cv loss that swings without getting anywhere."""
    losses = log.series("cv_loss")
    recent, before = losses[-SWING_CHANGES:], losses[-2 * SWING_CHANGES : -SWING_CHANGES]
    changes = [b - a for a, b in _pairs(losses[-SWING_CHANGES - 1 :])]
    if len(changes) < SWING_CHANGES:
        return None
    turns = sum(a * b < 0 for a, b in _pairs(changes))
    ups = [change for change in changes if change > 0]
    mean = statistics.fmean(recent)
    if turns < SWING_CHANGES - 2 or statistics.fmean(ups) < SWING_SHARE * mean:
        return None
    if mean < statistics.fmean(before):
        return None
    return (
        f"cv loss swings between {min(recent):.2f} and {max(recent):.2f} in {SWING_CHANGES} "
        "epochs without getting better"
    )


def blank_collapse(log: Log) -> str | None:
    """Find a model that outputs blank nearly everywhere."""
    spoken = 1.0 - log.epochs[-1].get("cv_blank_share", 0.0)
    expected = _expected_share(log, with_filler=True)
    if _is_early(log) or expected is None or spoken >= COLLAPSE_SHARE * expected:
        return None
    return (
        f"blank is the best token of {1 - spoken:.2%} of the frames; teacher and labels leave "
        f"{1 - expected:.2%} to it"
    )


def filler_collapse(log: Log) -> str | None:
    """Find a model that outputs hardly anything but filler and blank."""
    row = log.epochs[-1]
    words = 1.0 - row.get("cv_blank_share", 0.0) - row.get("cv_filler_share", 0.0)
    expected = _expected_share(log, with_filler=False)
    if _is_early(log) or expected is None or words >= COLLAPSE_SHARE * expected:
        return None
    if blank_collapse(log):
        return None
    return (
        f"tokens other than blank and filler are best in {words:.3%} of the frames; teacher and "
        f"labels have them in {expected:.2%}"
    )


def _is_early(log: Log) -> bool:
    return log.epochs[-1]["epoch"] < COLLAPSE_GRACE_EPOCHS


def _expected_share(log: Log, *, with_filler: bool) -> float | None:
    """Return the share of frames for tokens by the teacher or the labels, the smaller one."""
    found = []
    if "label_share" in log.labels:
        filler = 0.0 if with_filler else log.labels["filler_share"]
        found.append(log.labels["label_share"] - filler)
    if "cv_blank_share" in log.teacher:
        filler = 0.0 if with_filler else log.teacher["cv_filler_share"]
        found.append(1.0 - log.teacher["cv_blank_share"] - filler)
    return min(found) if found and min(found) > 0.0 else None


def same_output(log: Log) -> str | None:
    """Find a model that says the same of nearly every utterance."""
    share = log.epochs[-1].get("cv_same_output_share", 0.0)
    labels = log.labels.get("same_label_share", 1.0)
    if _is_early(log) or share < SAME_OUTPUT_SHARE or labels > SAME_LABEL_SHARE:
        return None
    if blank_collapse(log) or filler_collapse(log):
        return None
    return f"{share:.1%} of the cv utterances have the same output; {labels:.1%} the same labels"


def weak_teacher(log: Log) -> str | None:
    """Find a student that is distilled from a teacher worse than itself."""
    recent = log.epochs[-WEAKER_EPOCHS:]
    if len(recent) < WEAKER_EPOCHS or not log.taught or "cv_loss" not in log.teacher:
        return None
    loss, accuracy = log.teacher["cv_loss"], log.teacher["cv_accuracy"]
    if any(
        row["cv_loss"] > (1.0 - WEAKER_SHARE) * loss or row["cv_accuracy"] <= accuracy
        for row in recent
    ):
        return None
    row = recent[-1]
    return (
        f"the teacher is the weaker one on dev: cv loss {loss:.2f} and accuracy {accuracy:.1%}, "
        f"the student's {row['cv_loss']:.2f} and {row['cv_accuracy']:.1%}"
    )


def task_left_behind(log: Log) -> str | None:
    """Find distillation that gets better while the task does not, short of the teacher."""
    names = [name for name in ("kd", "hidden", "guide", "inner_kd") if name in log.taught]
    losses = log.series("cv_loss")
    if not names or len(losses) < 2 * APART_EPOCHS:
        return None
    name = names[0]
    distances = log.series(f"cv_{name}")
    if len(distances) < len(losses) or losses[-1] <= log.teacher.get("cv_loss", 0.0):
        return None
    (far, near), (then, now) = _windows(distances), _windows(losses)
    if near > (1.0 - APART_FALL) * far or now < then:
        return None
    text = (
        f"{name} on dev fell from {far:.2f} to {near:.2f} ({APART_EPOCHS}-epoch means), CTC went "
        f"from {then:.2f} to {now:.2f}"
    )
    cosine = log.gradient.get(f"grad_cos_{name}")
    return text if cosine is None else f"{text}; the cosine of their gradients is {cosine:.2f}"


def _windows(values: Sequence[float]) -> tuple[float, float]:
    before, recent = values[-2 * APART_EPOCHS : -APART_EPOCHS], values[-APART_EPOCHS:]
    return statistics.fmean(before), statistics.fmean(recent)


def vanishing_gradient(log: Log) -> str | None:
    """Find layers that get next to no gradient, two epochs in a row."""
    if len(log.layers) < 2:
        return None
    found = [_faint(row["gradient"]) for row in log.layers[-2:]]
    names = [name for name in found[1] if name in found[0]]
    if not names:
        return None
    norms = log.layers[-1]["gradient"]
    largest = max(norms, key=norms.__getitem__)
    faint = ", ".join(f"{name} {norms[name]:.2g}" for name in names)
    return f"the gradient vanishes: norm {faint}; {largest} has {norms[largest]:.2g}"


def _faint(norms: dict[str, float]) -> list[str]:
    limit = VANISHING_SHARE * max(norms.values(), default=0.0)
    return [name for name, norm in norms.items() if norm < limit]


def exploding_gradient(log: Log) -> str | None:
    """Find layers whose gradient is many times that of the epochs before."""
    before, now = log.layers[-EXPLODING_EPOCHS - 1 : -1], log.layers[-1:]
    if len(before) < EXPLODING_EPOCHS:
        return None
    found = []
    for name, norm in now[0]["gradient"].items():
        usual = statistics.median(row["gradient"].get(name, norm) for row in before)
        if norm > EXPLODING_FACTOR * usual > 0.0:
            found.append(f"{name} {norm:.3g} (before {usual:.3g})")
    return f"the gradient explodes: norm {', '.join(found)}" if found else None


def dead_adapter(log: Log) -> str | None:
    """Find adapters of terms in use whose weights or gradients are gone."""
    if not log.layers:
        return None
    row, found = log.layers[-1], []
    largest = max(row["gradient"].values(), default=0.0)
    for name, weight in row.get("adapter_weight", {}).items():
        if not any(term.split("_")[0] == name.split(".")[0] for term in log.taught):
            continue
        highest = max(each.get("adapter_weight", {}).get(name, 0.0) for each in log.layers)
        gradient = row["adapter_gradient"].get(name, largest)  # frozen: has none
        if weight < DEAD_WEIGHT_SHARE * highest:
            found.append(f"{name}: weights of norm {weight:.2g}, once {highest:.2g}")
        elif gradient < DEAD_GRADIENT_SHARE * largest:
            found.append(f"{name}: a gradient of norm {gradient:.2g}, the student's {largest:.2g}")
    return f"adapters died: {'; '.join(found)}" if found else None


def stuck_gate(log: Log) -> str | None:
    """Find a gate that lets nothing through, or everything."""
    mean = log.mean("gate_mean")
    if mean is None or GATE_CLOSED <= mean <= GATE_OPEN:
        return None
    if mean < GATE_CLOSED:
        return f"the gate has closed: its mean is {mean:.3f}, hardly a feature is imitated"
    return f"the gate is wide open: its mean is {mean:.3f}, it selects nothing"


def _pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(values, values[1:], strict=False))
