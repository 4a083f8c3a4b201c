"""Rows and fields of ``metrics.jsonl``.

Every line is one JSON object with ``kind``, ``step`` (optimiser steps done so far) and ``epoch``;
epoch -1 is the state before the first step. Losses are in nats per utterance, shares and
accuracies in [0, 1].

    kind      when                    fields
    labels    once, at the start      label_share, filler_share: labels, and filler among them, per
                                      output frame; same_label_share: utterances with the commonest
                                      label sequence
    teachers  once, several teachers  cv_loss_1 ..., weight_1 ...
    teacher   once, at the start      as cv, without train_*; confidences by keyword
    start     once, after transplant  random, transplant, teacher: cv losses; gap_closed
    step      every log_interval      one field per loss term; weighted_TERM: its part of the loss
                                      (only with two or more terms); loss, alpha, temperature, lr,
                                      grad_norm, utt_per_s, eta_s; figures of the methods in use
    gradient  every gradient_interval grad_cos_TERM, grad_share_TERM: against the gradient of CTC
    layers    every epoch             gradient: norm by layer; adapter_gradient, adapter_weight
    stage     a stage begins          name, num_epochs, weights, temperature, lr, lr_scales, frozen
    growth    the student grows       num_layers, new_block, cv_loss_before, cv_loss_after
    cv        every epoch             cv_loss, cv_TERM, cv_accuracy, cv_keyword_accuracy,
                                      cv_blank_share, cv_filler_share, cv_same_output_share;
                                      train_TERM, train_loss: means over the epoch; lr, seconds,
                                      stage; with the keyword term cv_miss_rate (mean),
                                      cv_miss_rate_KEYWORD at 0.5 false alarms per hour
    health    a problem begins/ends   problem, state (began | ended), text
"""

from typing import Any, Literal

METRICS_NAME = "metrics.jsonl"
BEFORE_FIRST_STEP = -1

Row = dict[str, Any]
Kind = Literal[
    "labels", "teachers", "teacher", "start", "step", "gradient", "layers", "stage", "growth",
    "cv", "health",
]  # fmt: skip

# Shown by trackers as a text besides: where a stage or a depth begins, and problems.
TOLD_KINDS: tuple[Kind, ...] = ("stage", "growth", "health")

# Not printed as a log line: too long for one, or logged in other words.
QUIET_KINDS: tuple[Kind, ...] = ("layers", "health", "teacher", "labels")
