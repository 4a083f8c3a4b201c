"""Section ``transplant``: rules by which ``--init_from_teacher`` initialises the student."""

from dataclasses import dataclass
from typing import Literal

from wekws.distill.layer_pairs import pair_blocks
from wekws.errors import ConfigError

ChannelRule = Literal["first", "uniform", "activation"]
Compensation = Literal["none", "mean", "least_squares", "sequential"]


@dataclass(frozen=True, kw_only=True)
class TransplantConfig:
    """Section ``transplant``. The defaults are plain slices, ``[:n, :m]`` of every tensor."""

    channels: ChannelRule = "first"
    """Channels to keep, the same on both sides of every tensor: ``first``: the first ones;
    ``uniform``: evenly spaced ones; ``activation``: those that contribute most to the variance of
    the next layer's input, measured on training data."""
    pairs: Literal["slice", "svd", "data_svd"] = "slice"
    """Input and output affines, which have nothing non-linear between them: ``slice``: like every
    other tensor; ``svd``: truncated SVD of their product; ``data_svd``: the same, weighted by the
    second moments of the pair's input."""
    compensation: Compensation = "none"
    """Correction for dropped channels: ``mean``: their mean contribution is added to the biases;
    ``least_squares``: the layer that reads the kept channels is fitted to the source's
    pre-activations; ``sequential``: every block is fitted whole, memory included, front to back,
    on the activations of the student."""
    head: Literal["slice", "copy", "project"] = "slice"
    """Output layers: ``slice``: like every other tensor; ``copy``: must fit unchanged;
    ``project``: softmax regression from the student's last activations to the teacher's
    posteriors. For a student with a merged head all three start from the source's folded one."""
    blocks: tuple[int, ...] | Literal["ends"] = ()
    """The source's block, counted from 0, for each block of the student; empty: block i comes from
    block i; ``ends``: the student's first half is counted from the source's first block, its
    second half from the last one backwards, so that inner blocks are dropped."""
    num_batches: int = 6
    """Training batches used by rules that need data, >= 1."""
    source: str = ""
    """Checkpoint to start from, with its config.yaml beside it and any vocabulary that contains
    the student's tokens; empty: the teacher."""
    source_dict: str = ""
    """Dictionary of ``source``; empty: the dict.txt beside it."""

    def __post_init__(self) -> None:
        """Check the numbers, and that a dictionary comes with its checkpoint."""
        if self.num_batches < 1:
            raise ConfigError(f"num_batches: found {self.num_batches}; expected at least 1")
        if self.source_dict and not self.source:
            raise ConfigError("source_dict: given without source; the teacher has the run's tokens")
        if self.blocks != "ends" and any(block < 0 for block in self.blocks):
            raise ConfigError(f"blocks: found {list(self.blocks)}; blocks are counted from 0")

    def blocks_for(self, num_student: int, num_source: int) -> tuple[int, ...]:
        """Return the source's block for each block of the student.

        Raises: ConfigError if ``ends`` has to pair more blocks than the source has.
        """
        if self.blocks == "ends":
            return tuple(block for (block,) in pair_blocks("ends", num_student, num_source))
        return self.blocks or tuple(range(num_student))

    @property
    def needs_data(self) -> bool:
        """Whether any rule needs activations on training data."""
        return (
            self.channels == "activation"
            or self.pairs == "data_svd"
            or self.compensation != "none"
            or self.head == "project"
        )
