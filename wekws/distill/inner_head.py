"""A second CTC head on an inner block, in training only.

Axes: B batch, T frames, V vocabulary, N valid frames.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from wekws.distill.ctc import ctc_loss
from wekws.distill.frames import valid_frames
from wekws.distill.kd import KdConfig, kd_loss
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.distill.taps import tap_widths
from wekws.errors import ConfigError
from wekws.model.fsmn import block_path
from wekws.model.model import KwsModel


@dataclass(frozen=True, kw_only=True)
class InnerConfig(MethodConfig):
    """Section ``distill_conf.inner``: a second, inner CTC head of the student."""

    weight: Scheduled = 0.0
    """Weight of its CTC within the task and of its KL within distillation; 0: off."""
    block: int = 1
    """Block of the student that the head sits on, counted from 1."""

    term_groups = {"inner_ctc": "task", "inner_kd": "distillation"}

    def __post_init__(self) -> None:
        """Refuse weights and blocks that mean nothing."""
        checked_schedule("weight", self.weight, 0.0)
        if self.block < 1:
            raise ConfigError(f"block: found {self.block}; blocks are counted from 1")

    @property
    def is_used(self) -> bool:
        """Whether the head ever has a weight."""
        return is_used(self.weight)

    def build(self, context: MethodContext) -> Method | None:
        """Return the head; None where it is off or there is no teacher."""
        if not self.is_used or context.teacher is None:
            return None
        kd = context.section(KdConfig)
        return InnerHead(self, context.student, has_kd=context.is_distilling, kd=kd)


class InnerHead(Method):
    """Terms ``inner_ctc`` and ``inner_kd``: one linear layer from the output of a block to tokens.

    Trained with the student and not exported. It starts at zero (equal probability for every
    token), for which no random number is used.
    Source: Lee and Watanabe 2021, arXiv:2102.03216, with a head of its own.
    """

    def __init__(
        self, config: InnerConfig, student: KwsModel, *, has_kd: bool, kd: KdConfig
    ) -> None:
        """Make a head for a block of ``student``.

        has_kd: whether the teacher is compared with the inner posteriors too, in the way of ``kd``.
        Raises: ConfigError if the student has no such block.
        """
        super().__init__()
        self.path = block_path(config.block - 1)
        self.student_paths = (self.path,)
        self.needs_teacher = has_kd
        self._kd = kd
        width = tap_widths(student, [self.path], "student")[self.path]
        self.linear = nn.utils.skip_init(nn.Linear, width, student.config.output_dim)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)
        weight = as_schedule(config.weight)
        self.terms = (Term(name="inner_ctc", group="task", weight=weight, has_cv_figure=False),)
        if has_kd:
            self.terms += (Term(name="inner_kd", group="distillation", weight=weight),)

    def forward(self, features: dict[str, Tensor], lengths: Tensor, num_frames: int) -> Tensor:
        """Return logits (B, T, V), zero on padding.

        features: module path -> (N, C), the valid frames of the batch.
        """
        rows = self.linear(features[self.path].float())
        mask = valid_frames(lengths, num_frames, rows.device)
        logits = rows.new_zeros(*mask.shape, rows.shape[1])
        return logits.masked_scatter(mask[..., None], rows)

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the wanted terms, summed over the batch."""
        if not {"inner_ctc", "inner_kd"} & set(wanted):
            return {}
        targets, values = inputs.targets, {}
        num_frames = inputs.student.logits.shape[1]
        logits = self(inputs.student.features, targets.lengths, num_frames)
        if "inner_ctc" in wanted:
            values["inner_ctc"] = ctc_loss(
                logits, targets.lengths, targets.labels, targets.label_lengths
            )
        if "inner_kd" in wanted:
            values["inner_kd"] = kd_loss(
                logits,
                inputs.teacher.logits,
                targets.lengths,
                temperature=inputs.temperature,
                config=self._kd,
            )
        return values
