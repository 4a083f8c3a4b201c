"""What every step of a transplant works on."""

from dataclasses import dataclass

from torch import Tensor

from wekws.distill.transplant.channels import Channels
from wekws.distill.transplant.contexts import tap_offsets
from wekws.distill.transplant.draft import Draft
from wekws.distill.transplant.rules import TransplantConfig
from wekws.distill.transplant.sample import Sample, Trace
from wekws.model.fsmn import FSMNConfig, Packing

IN1, IN2 = "backbone.in_linear1.linear", "backbone.in_linear2.linear"
OUT1, OUT2 = "backbone.out_linear1.linear", "backbone.out_linear2.linear"


@dataclass(frozen=True)
class Graft:
    """A transplant under way.

    own: the student's sizes. sample, packing, seen: rows of data, where they are in time, and
    the source's activations on them; None where no rule asks for data.
    """

    config: TransplantConfig
    draft: Draft
    channels: Channels
    own: FSMNConfig
    sample: Sample | None
    packing: Packing | None
    seen: Trace | None

    @property
    def boundaries(self) -> list[int]:
        """Which of the source's ``linear`` activations each of the student's stands for."""
        return [self.draft.blocks[0], *(block + 1 for block in self.draft.blocks)]

    @property
    def head(self) -> tuple[str, ...]:
        """The layers behind the last block: two, or the one of a merged head."""
        return (OUT2,) if self.own.is_head_merged else (OUT1, OUT2)

    @property
    def present(self) -> int:
        """Which tap reads the present frame."""
        return tap_offsets(self.own).index(0)

    def affine(self, name: str) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer as they are drafted."""
        return self.draft.tensors[f"{name}.weight"], self.draft.tensors[f"{name}.bias"]

    def put(self, name: str, weight: Tensor, bias: Tensor, action: str) -> None:
        """Draft weight and bias of a layer."""
        self.draft.put(f"{name}.weight", weight, action)
        self.draft.put(f"{name}.bias", bias, action)

    def is_copied(self, name: str) -> bool:
        """Whether a layer is the source's as it is."""
        return self.draft.is_copied(f"{name}.weight", f"{name}.bias")

    def product(self, first: str, second: str) -> tuple[Tensor, Tensor]:
        """Return the one affine that two of the source are, in double precision."""
        state = self.draft.source
        weight = state[f"{second}.weight"].double()
        bias = weight @ state[f"{first}.bias"].double() + state[f"{second}.bias"].double()
        return weight @ state[f"{first}.weight"].double(), bias
