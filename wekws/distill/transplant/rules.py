"""Section ``transplant``: how ``--init_from_teacher`` fills the student."""

from dataclasses import dataclass
from typing import Literal

from wekws.distill.hidden import pair_blocks
from wekws.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TransplantConfig:
    """Section ``transplant``. The defaults are plain slices, ``[:n, :m]`` of every tensor.

    channels: which channels stay, the same on both sides of every tensor: the ``first``,
        evenly spaced ones (``uniform``), or those that ``activation`` data needs most.
    pairs: the input and output affines, with nothing non-linear between them: ``slice``, or
        the truncated ``svd`` of their product, or ``data_svd``, weighted by what they are fed.
    compensation: for what was dropped. ``mean``: its mean contribution goes into the biases;
        ``least_squares``: the consumer of the kept channels is fitted to the source's
        pre-activations; ``sequential``: so is every block, front to back, on the student's own
        activations, memory included.
    head: ``slice``: like the rest; ``copy``: must fit as it is; ``project``: a softmax
        regression from the student's last activations to the teacher's posteriors. For a
        student with a merged head all three begin from the source's folded one.
    blocks: the source's block for each of the student's; empty: block i takes block i; ``ends``:
        the student's first half counts from the source's first block on, its second half from the
        last one back, so that inner blocks are what is dropped.
    num_batches: batches of the training set, where data is asked for. At least 1.
    source: checkpoint to take from, of any vocabulary that has the student's tokens, with its
        config.yaml beside it; empty: the teacher.
    source_dict: its dictionary; empty: the dict.txt beside it.
    """

    channels: Literal["first", "uniform", "activation"] = "first"
    pairs: Literal["slice", "svd", "data_svd"] = "slice"
    compensation: Literal["none", "mean", "least_squares", "sequential"] = "none"
    head: Literal["slice", "copy", "project"] = "slice"
    blocks: tuple[int, ...] | Literal["ends"] = ()
    num_batches: int = 6
    source: str = ""
    source_dict: str = ""

    def __post_init__(self) -> None:
        """Refuse a plan without data, and a dictionary without its checkpoint."""
        if self.num_batches < 1:
            raise ConfigError(f"num_batches: found {self.num_batches}; expected at least 1")
        if self.source_dict and not self.source:
            raise ConfigError("source_dict: given without source; the teacher has the run's tokens")
        if self.blocks != "ends" and any(block < 0 for block in self.blocks):
            raise ConfigError(f"blocks: found {list(self.blocks)}; blocks are counted from 0")

    def blocks_for(self, num_student: int, num_source: int) -> tuple[int, ...]:
        """Return the source's block for each of the student's.

        Raises: ConfigError if ``ends`` is to pair more blocks than the source has.
        """
        if self.blocks == "ends":
            return tuple(block for (block,) in pair_blocks("ends", num_student, num_source))
        return self.blocks or tuple(range(num_student))

    @property
    def needs_data(self) -> bool:
        """Whether activations on the training set are asked for."""
        return (
            self.channels == "activation"
            or self.pairs == "data_svd"
            or self.compensation != "none"
            or self.head == "project"
        )
