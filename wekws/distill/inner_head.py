"""A CTC head on an inner block, in training only. Axes: B batch, T frames, V vocabulary, N rows."""

from dataclasses import dataclass

from torch import Tensor, nn

from wekws.distill.frames import valid_frames
from wekws.distill.schedule import Scheduled, checked_schedule
from wekws.distill.taps import tap_widths
from wekws.errors import ConfigError
from wekws.model.fsmn import block_path


@dataclass(frozen=True, kw_only=True)
class InnerConfig:
    """Section ``distill_conf.inner``: a second, inner CTC head of the student.

    weight: of its CTC within the task and of its KL within distillation; 0: off.
    block: of the student, counted from 1.
    """

    weight: Scheduled = 0.0
    block: int = 1

    def __post_init__(self) -> None:
        """Refuse weights and blocks that mean nothing."""
        checked_schedule("weight", self.weight, 0.0)
        if self.block < 1:
            raise ConfigError(f"block: found {self.block}; blocks are counted from 1")


class InnerHead(nn.Module):
    """One linear layer from a block's output to tokens; trained with the student, not exported.

    Starts at zero (every token alike), for which no random number is spent.
    Source: Lee and Watanabe 2021, arXiv:2102.03216, with a head of its own.
    """

    def __init__(self, config: InnerConfig, student: nn.Module) -> None:
        """Put a head on a block of ``student``. Raises: ConfigError if it has no such block."""
        super().__init__()
        self.path = block_path(config.block - 1)
        width = tap_widths(student, [self.path], "student")[self.path]
        self.linear = nn.utils.skip_init(nn.Linear, width, student.backbone.output_dim)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: dict[str, Tensor], lengths: Tensor, num_frames: int) -> Tensor:
        """Return logits (B, T, V), zero on padding.

        hidden: module path -> (N, C), the valid frames of the batch.
        """
        rows = self.linear(hidden[self.path].float())
        mask = valid_frames(lengths, num_frames)
        logits = rows.new_zeros(*mask.shape, rows.shape[1])
        return logits.masked_scatter(mask[..., None], rows)
