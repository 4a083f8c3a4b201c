"""Frame-wise KL divergence between the posteriors of teacher and student.

Axes: B batch, T frames, V vocabulary, N chosen frames. Token 0 is blank.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from wekws.distill.frames import FrameChoice, choose_frames, take_valid
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.errors import ConfigError

# e**-10000 is 0 in float32; logits of -inf would turn 0 * log 0 into NaN.
_LOWEST_LOGIT = -1e4


@dataclass(frozen=True, kw_only=True)
class KdConfig(MethodConfig):
    """Section ``distill_conf.kd``: the frame-wise comparison of posteriors."""

    weight: Scheduled = 1.0
    """Weight within distillation; 0: off."""
    frames: FrameChoice = "all"
    """``all`` frames, those where the teacher's best token is ``non_blank``, or these ``widened``
    by their neighbours."""
    num_neighbours: int = 1
    """Frames to either side for ``widened``, at least 1."""
    blank_weight: float = 1.0
    """Weight of blank against all other tokens together."""
    token_weight: float = 1.0
    """Weight of the tokens among themselves."""
    token_scale: Literal["mass", "one"] = "mass"
    """``mass`` scales the latter by the teacher's non-blank probability, frame by frame: with both
    weights 1 the sum is the full KL. ``one`` does not, so that tokens count in blank frames too."""

    term_groups = {"kd": "distillation"}

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
    def is_used(self) -> bool:
        """Whether the term ever has a weight."""
        return is_used(self.weight)

    @property
    def is_decoupled(self) -> bool:
        """Whether blank and tokens are weighed apart."""
        return (self.blank_weight, self.token_weight, self.token_scale) != (1.0, 1.0, "mass")

    def build(self, context: MethodContext) -> Method | None:
        """Return the method; None where it is off or nothing is distilled."""
        return KdMethod(self) if self.is_used and context.is_distilling else None


class KdMethod(Method):
    """Term ``kd``."""

    def __init__(self, config: KdConfig) -> None:
        """Compare posteriors as ``config`` says."""
        super().__init__()
        self._config = config
        weight = as_schedule(config.weight)
        self.terms = (Term(name="kd", group="distillation", weight=weight),)

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the KL, summed over the chosen frames."""
        if "kd" not in wanted:
            return {}
        kd = kd_loss(
            inputs.student.logits,
            inputs.teacher.logits,
            inputs.targets.lengths,
            temperature=inputs.temperature,
            config=self._config,
        )
        return {"kd": kd}


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
    lengths: (B,) valid frames, on the CPU; later frames are padding and weigh zero.
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
    if config.frames == "all":
        student_rows, teacher_rows = (
            take_valid(logits, lengths) for logits in (student_logits, teacher_logits)
        )
    else:  # on a GPU this waits for the device: the teacher decides how many frames there are
        chosen = choose_frames(teacher_logits, lengths, config.frames, config.num_neighbours)
        student_rows, teacher_rows = student_logits[chosen], teacher_logits[chosen]
    student = (student_rows.float() / temperature).log_softmax(dim=-1)
    targets = teacher_rows.float().clamp(min=_LOWEST_LOGIT)
    teacher = (targets / temperature).log_softmax(dim=-1)
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
