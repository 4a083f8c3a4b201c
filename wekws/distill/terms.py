"""Loss terms. Axes: B batch, T frames, V vocabulary, L label length, N chosen frames.

Every term returns its unweighted value, summed over the frames and utterances of a batch; the
objective alone applies weights. Token 0 is blank.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from wekws.distill.frames import FrameChoice, choose_frames, spoken_frames, valid_frames
from wekws.distill.schedule import Scheduled, checked_schedule
from wekws.errors import ConfigError

# e**-10000 is 0 in float32; logits of -inf would turn 0 * log 0 into NaN.
_LOWEST_LOGIT = -1e4


@dataclass(frozen=True, kw_only=True)
class CtcConfig:
    """Section ``ctc_conf``: the task's own loss.

    label_smoothing: share of the task's weight that pulls towards a uniform distribution, 0 to
    below 1. Summed over frames as CTC's own value is, it weighs much: try 0.01.
    smoothed_over: uniform over ``all`` outputs, or over the ``tokens`` among themselves, which
    leaves the mass of blank alone.
    """

    label_smoothing: float = 0.0
    smoothed_over: Literal["all", "tokens"] = "tokens"

    def __post_init__(self) -> None:
        """Refuse smoothing that leaves no CTC."""
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(
                f"label_smoothing: found {self.label_smoothing}; expected 0 to below 1"
            )


@dataclass(frozen=True, kw_only=True)
class KdConfig:
    """Section ``distill_conf.kd``: the frame-wise comparison of posteriors.

    weight: within distillation; 0: off.
    frames: ``all``, those where the teacher's best token is ``non_blank``, or these ``widened``.
    num_neighbours: frames to either side for ``widened``, at least 1.
    blank_weight: of blank against the rest. token_weight: of the tokens among themselves.
    token_scale: ``mass`` scales the latter by the teacher's non-blank mass, frame by frame: with
    both weights 1 the sum is the full KL. ``one`` does not, so that tokens count in blank
    frames too.
    """

    weight: Scheduled = 1.0
    frames: FrameChoice = "all"
    num_neighbours: int = 1
    blank_weight: float = 1.0
    token_weight: float = 1.0
    token_scale: Literal["mass", "one"] = "mass"

    def __post_init__(self) -> None:
        """Refuse weights and reaches that mean nothing."""
        checked_schedule("weight", self.weight, 0.0)
        if self.num_neighbours < 1:
            raise ConfigError(f"num_neighbours: found {self.num_neighbours}; expected at least 1")
        if min(self.blank_weight, self.token_weight) < 0.0:
            raise ConfigError("blank_weight and token_weight: expected at least 0")
        if self.blank_weight == self.token_weight == 0.0:
            raise ConfigError("blank_weight and token_weight are both 0; set weight to 0 instead")

    @property
    def is_decoupled(self) -> bool:
        """Whether blank and tokens are weighed apart."""
        return (self.blank_weight, self.token_weight, self.token_scale) != (1.0, 1.0, "mass")


@dataclass(frozen=True, kw_only=True)
class GuideConfig:
    """Section ``distill_conf.guide``: the teacher's peaks as a mask.

    weight: within distillation; 0: off.
    """

    weight: Scheduled = 0.0

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        checked_schedule("weight", self.weight, 0.0)


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """Section ``distill_conf.consistency``: the student taught by itself in another disguise.

    weight: within distillation; 0: off. The student then hears two views of each utterance, with
    masks of SpecAugment drawn apart.
    """

    weight: Scheduled = 0.0

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        checked_schedule("weight", self.weight, 0.0)


def ctc_loss(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, blank: int = 0
) -> Tensor:
    """Return the CTC negative log-likelihood summed over the utterances of the batch, in nats.

    logits: (B, T, V), unnormalised. lengths: (B,) valid frames. labels: (B, L), padded with
    anything. label_lengths: (B,); 0 is an utterance without speech, all blank.
    Every utterance must be feasible (the data set leaves out those that are not), so that an
    infinite loss is a fault and not masked.
    Source: Graves et al. 2006, "Connectionist temporal classification", eq. 4 and 8.
    """
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    return F.ctc_loss(log_probs, labels, lengths, label_lengths, blank=blank, reduction="sum")


def smoothing_loss(logits: Tensor, lengths: Tensor, over: Literal["all", "tokens"]) -> Tensor:
    """Return KL(uniform || output) summed over the valid frames, in nats.

    logits: (B, T, V). over: ``all`` outputs, or the ``tokens`` alone, renormalised without blank.
    Source: Kim et al. 2017, arXiv:1711.02212 (label smoothing beside CTC).
    """
    chosen = logits[valid_frames(lengths, logits.shape[1])].float()
    log_probs = chosen[:, 1 if over == "tokens" else 0 :].log_softmax(dim=-1)
    num_outputs = log_probs.shape[1]
    return -(log_probs.mean(dim=1) + math.log(num_outputs)).sum()


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    lengths: Tensor,
    *,
    temperature: float,
    config: KdConfig | None = None,
) -> Tensor:
    """Return KL(teacher || student) summed over the chosen frames, times temperature squared.

    student_logits, teacher_logits: (B, T, V), unnormalised.
    lengths: (B,) valid frames; later frames are padding and weigh zero.
    config: which frames, and how blank and tokens are weighed; None: all frames, full KL. Where
    no frame is chosen the value is 0.
    Summed over an utterance's frames it has the scale of CTC, which is such a sum too; a mean
    per frame is some forty times too light beside it.
    Raises: ValueError if shapes differ or no frame is valid.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    config = config or KdConfig()
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and teacher logits "
            f"{tuple(teacher_logits.shape)} differ; expected one frame rate and one vocabulary"
        )
    if not (lengths > 0).any():
        raise ValueError("no frame is valid: every length is 0")
    chosen = choose_frames(teacher_logits, lengths, config.frames, config.num_neighbours)
    student = (student_logits[chosen].float() / temperature).log_softmax(dim=-1)
    taught = teacher_logits[chosen].float().clamp(min=_LOWEST_LOGIT)
    teacher = (taught / temperature).log_softmax(dim=-1)
    if config.is_decoupled:
        blank, tokens = decoupled_kl(student, teacher, config.token_scale)
        value = (config.blank_weight * blank + config.token_weight * tokens).sum()
    else:
        # Targets in log space: a teacher probability of 0 gives 0, never 0 * log 0.
        value = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return value * temperature**2


def decoupled_kl(
    student: Tensor, teacher: Tensor, token_scale: Literal["mass", "one"]
) -> tuple[Tensor, Tensor]:
    """Return the KL of blank against the rest, and that of the tokens among themselves, (N,) each.

    student, teacher: (N, V), log-probabilities; token 0 is blank, b its probability.
    With p = (b, (1 - b) r) for the teacher and likewise q for the student, log(p_i / q_i) of a
    token splits into log((1 - b_p) / (1 - b_q)) + log(r_p / r_q), so that
    ``KL(p || q) = KL((b_p, 1 - b_p) || (b_q, 1 - b_q)) + (1 - b_p) KL(r_p || r_q)``.
    token_scale: ``mass`` keeps the factor 1 - b_p of the second part, ``one`` drops it.
    Source: Zhao et al. 2022, arXiv:2203.08679, eq. 5 to 7, with blank as the target class.
    """
    student_rest = student[:, 1:].logsumexp(dim=1)
    teacher_rest = teacher[:, 1:].logsumexp(dim=1)
    spoken = teacher_rest.exp()
    blank = teacher[:, 0].exp() * (teacher[:, 0] - student[:, 0])
    blank = blank + spoken * (teacher_rest - student_rest)
    among_student = student[:, 1:] - student_rest[:, None]
    among_teacher = teacher[:, 1:] - teacher_rest[:, None]
    tokens = (among_teacher.exp() * (among_teacher - among_student)).sum(dim=1)
    return blank, tokens * spoken if token_scale == "mass" else tokens


def guide_loss(student_logits: Tensor, teacher_logits: Tensor, lengths: Tensor) -> Tensor:
    """Return what the student's posterior lacks at the teacher's peaks, summed over them.

    student_logits, teacher_logits: (B, T, V). A peak is a valid frame whose best token for the
    teacher is not blank; there it adds 1 - p_student(that token). Elsewhere the student is free.
    Source: Kurata and Audhkhasi 2019, arXiv:1904.08311 (the masked posteriors, here subtracted
    from 1 so that the value is 0 at best; the gradient is the same).
    """
    peaks = spoken_frames(teacher_logits, lengths)
    tokens = teacher_logits[peaks].argmax(dim=-1, keepdim=True)
    probs = student_logits[peaks].float().softmax(dim=-1)
    return (1.0 - probs.gather(1, tokens)).sum()


def consistency_loss(logits: Tensor, other_logits: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean of KL(other || one) and KL(one || other), summed over the valid frames.

    logits, other_logits: (B, T, V), of one student and two views. Each is target for the other
    without passing a gradient there.
    Source: Yao et al. 2024, arXiv:2410.05101 (CR-CTC), with CTC on the first view alone.
    """
    valid = valid_frames(lengths, logits.shape[1])
    one, other = (x[valid].float().log_softmax(dim=-1) for x in (logits, other_logits))
    forth = F.kl_div(one, other.detach(), reduction="sum", log_target=True)
    back = F.kl_div(other, one.detach(), reduction="sum", log_target=True)
    return 0.5 * (forth + back)
