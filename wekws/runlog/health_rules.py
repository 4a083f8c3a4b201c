"""Health rules for any training: loss, collapse of the output, gradients.

Each ``find`` function looks at the rows so far and returns a sentence with figures, or None if
there is no such problem. The thresholds were checked against 30 healthy runs (students of 20
tokens from random and transplanted starts, teachers, bases of 2,600 tokens): none of them yields a
finding.
"""

import statistics
from collections.abc import Sequence

from wekws.runlog.health import HealthRule, RunLog

# A rise: this many epochs in a row above the best one, by this share of it and by this multiple
# of the upward steps that led there. Healthy runs swing by up to 3 times, but come back in time.
RISE_EPOCHS, RISE_SHARE, RISE_NOISE = 4, 0.05, 3.0
# A loss that never fell: after this many epochs by less than this share since the first of them,
# at more than this multiple of the teacher's, with less than this share of the tokens right.
FLAT_EPOCHS, FLAT_SHARE, FLAT_FACTOR, FLAT_ACCURACY = 5, 0.02, 1.5, 0.5
# An oscillation: of this many changes all but one reverse direction, upward ones are a tenth of
# the loss on average, and the window's mean is no better than that of the window before.
SWING_CHANGES, SWING_SHARE = 6, 0.10
# CTC begins with blanks alone; the slowest healthy start was past that after 3 epochs.
COLLAPSE_GRACE_EPOCHS = 5
# Non-blank frames, relative to those of teacher or labels, whichever are fewer. The weakest
# healthy student had 0.29 of them after that time, a base on its way up about 0.15.
COLLAPSE_SHARE = 0.05
# Utterances with the commonest output, where labels are this varied. Healthy: under 0.4.
SAME_OUTPUT_SHARE, SAME_LABEL_SHARE = 0.8, 0.5
# Layer against the layer with the largest gradient. Healthy ones are within a factor of 30.
VANISHING_SHARE = 1e-3
# Epoch against the median of those before. Healthy gradients fall over training, at most double.
EXPLODING_FACTOR, EXPLODING_EPOCHS = 10.0, 3


def loss_rising(log: RunLog) -> str | None:
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


def loss_flat(log: RunLog) -> str | None:
    """Find a cv loss that has hardly moved since the first epoch, at a bad level."""
    losses = log.series("cv_loss")
    if len(losses) < FLAT_EPOCHS or min(losses) < (1.0 - FLAT_SHARE) * losses[0]:
        return None
    accuracy, teacher = log.epochs[-1].get("cv_accuracy"), log.teacher.get("cv_loss")
    if accuracy is not None and accuracy >= FLAT_ACCURACY:
        return None
    if teacher is not None and losses[-1] <= FLAT_FACTOR * teacher:
        return None
    first = log.epochs[0]["epoch"]  # the finding is written once, and stays true in later epochs
    text = f"cv loss {losses[-1]:.2f}, flat since epoch {first}: it does not learn"
    return text if teacher is None else f"{text}; the teacher's is {teacher:.2f}"


def loss_oscillating(log: RunLog) -> str | None:
    """Find a cv loss that swings up and down without improving."""
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
        "epochs without improving"
    )


def blank_collapse(log: RunLog) -> str | None:
    """Find a model whose best token is blank nearly everywhere."""
    non_blank = 1.0 - log.epochs[-1].get("cv_blank_share", 0.0)
    expected = _expected_share(log, with_filler=True)
    if _is_early(log) or expected is None or non_blank >= COLLAPSE_SHARE * expected:
        return None
    return (
        f"blank is the best token in {1 - non_blank:.2%} of the frames; going by teacher and "
        f"labels it should be {1 - expected:.2%}"
    )


def filler_collapse(log: RunLog) -> str | None:
    """Find a model that outputs hardly anything but filler and blank."""
    row = log.epochs[-1]
    tokens = 1.0 - row.get("cv_blank_share", 0.0) - row.get("cv_filler_share", 0.0)
    expected = _expected_share(log, with_filler=False)
    if _is_early(log) or expected is None or tokens >= COLLAPSE_SHARE * expected:
        return None
    if blank_collapse(log):
        return None
    return (
        f"tokens other than blank and filler are best in {tokens:.3%} of the frames; going by "
        f"teacher and labels it should be {expected:.2%}"
    )


def _is_early(log: RunLog) -> bool:
    return log.epochs[-1]["epoch"] < COLLAPSE_GRACE_EPOCHS


def _expected_share(log: RunLog, *, with_filler: bool) -> float | None:
    """Return the share of frames with a token, by the teacher or the labels: the smaller one."""
    found = []
    if "label_share" in log.labels:
        filler = 0.0 if with_filler else log.labels.get("filler_share", 0.0)
        found.append(log.labels["label_share"] - filler)
    if "cv_blank_share" in log.teacher:
        filler = 0.0 if with_filler else log.teacher.get("cv_filler_share", 0.0)
        found.append(1.0 - log.teacher["cv_blank_share"] - filler)
    return min(found) if found and min(found) > 0.0 else None


def same_output(log: RunLog) -> str | None:
    """Find a model whose output is the same for nearly every utterance."""
    share = log.epochs[-1].get("cv_same_output_share", 0.0)
    labels = log.labels.get("same_label_share", 1.0)
    if _is_early(log) or share < SAME_OUTPUT_SHARE or labels > SAME_LABEL_SHARE:
        return None
    if blank_collapse(log) or filler_collapse(log):
        return None
    return f"{share:.1%} of the cv utterances have the same output, {labels:.1%} the same labels"


def vanishing_gradient(log: RunLog) -> str | None:
    """Find layers with next to no gradient, two epochs in a row."""
    if len(log.layers) < 2:
        return None
    found = [_small_gradients(row["gradient"]) for row in log.layers[-2:]]
    names = [name for name in found[1] if name in found[0]]
    if not names:
        return None
    norms = log.layers[-1]["gradient"]
    largest = max(norms, key=norms.__getitem__)
    small = ", ".join(f"{name} {norms[name]:.2g}" for name in names)
    return f"the gradient vanishes: norm {small}; {largest} has {norms[largest]:.2g}"


def _small_gradients(norms: dict[str, float]) -> list[str]:
    limit = VANISHING_SHARE * max(norms.values(), default=0.0)
    return [name for name, norm in norms.items() if norm < limit]


def exploding_gradient(log: RunLog) -> str | None:
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


def _pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(values, values[1:], strict=False))


_GENTLER = "a lower `optim_conf.lr`, warm-up, or an initialisation from the teacher"
GENERAL_RULES = (
    HealthRule(
        "loss_rising",
        loss_rising,
        "Average checkpoints around the best epoch; then use more data or a lower learning rate.",
    ),
    HealthRule(
        "loss_oscillating",
        loss_oscillating,
        "Lower `optim_conf.lr`, or use larger batches (`training_config.accum_grad`).",
    ),
    HealthRule(
        "loss_flat",
        loss_flat,
        f"Check labels, dictionary and features; try {_GENTLER}, or unfreeze what a stage freezes.",
    ),
    HealthRule("blank_collapse", blank_collapse, f"Try {_GENTLER}; check the labels."),
    HealthRule(
        "filler_collapse",
        filler_collapse,
        "Check the dictionary: too many words of the labels map to filler.",
    ),
    HealthRule("same_output", same_output, f"Try {_GENTLER}; check the features and the CMVN."),
    HealthRule(
        "vanishing_gradient",
        vanishing_gradient,
        "Initialise these layers from the teacher; check that no stage freezes what should train.",
    ),
    HealthRule(
        "exploding_gradient",
        exploding_gradient,
        "Lower `optim_conf.lr` or `training_config.grad_clip`; check the weight of the loss term "
        "that was added last.",
    ),
)
