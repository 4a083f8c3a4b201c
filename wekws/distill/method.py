"""The interface of a distillation method: its configuration section, its loss terms, its figures.

A method is one file. It holds a ``MethodConfig`` (a section of the configuration), which builds a
``Method`` (its terms and what it trains) for a student and a teacher, and its health rules. The
list of all methods is ``wekws.distill.methods``; nothing else names them.

Axes: B batch, T frames, V vocabulary, L label length, N valid frames, C channels, K keywords.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, TypeVar

from torch import Tensor, nn

from wekws.dataset.batch import Embeddings
from wekws.dataset.embeddings import EmbeddingSpace
from wekws.dataset.label_set import LabelSet
from wekws.distill.layer_pairs import AlignedPair, LayerPairs
from wekws.distill.schedule import Schedule
from wekws.distill.taps import ModelOutputs, StepOutputs
from wekws.model.model import KwsModel
from wekws.runlog.health import HealthRule

Section = TypeVar("Section", bound="MethodConfig")

Group = Literal["task", "distillation", "feature"]
"""``task``: terms that use the labels. ``distillation``: terms on posteriors. ``feature``: terms on
inner features. Alpha weighs the first and 1 - alpha the others; a stage weighs each on its own;
in a run without distillation from a teacher's checkpoint each has the weight 1."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of the loss, logged under its name."""

    name: str
    """Name in the log: ``kd``, ``weighted_kd``, ``cv_kd``."""
    group: Group
    """The group whose weight multiplies it: task, distillation or feature."""
    weight: Schedule
    """Its own weight over training, multiplied by that of its group."""
    factor: float = 1.0
    """A constant beside the weight."""
    has_cv_figure: bool = True
    """Whether cv passes compute it; False for terms that need masks or that move on their own."""


@dataclass(frozen=True)
class LossTargets:
    """Labels of a batch, and the outputs of a feature teacher."""

    lengths: Tensor
    """(B,) valid frames, on the CPU: they size what is computed."""
    labels: Tensor
    """(B, L), padded with anything."""
    label_lengths: Tensor
    """(B,) labels per utterance, on the CPU."""
    holds_keyword: Tensor | None = None
    """(B, K) bool, whether the utterance contains each keyword; None: unknown."""
    indices: Tensor | None = None
    """(B,) position of each utterance in the data set, -1 where two are joined; None: unknown."""
    embeddings: Embeddings | None = None
    """Outputs of a feature teacher, placed in model frames; None where the run has none."""


@dataclass(frozen=True)
class LossInputs:
    """Everything that a term may be computed from."""

    outputs: StepOutputs
    """Outputs of student and teacher."""
    targets: LossTargets
    """Labels and lengths."""
    temperature: float
    """Divides both models' logits in distillation, above 0."""
    layer_pairs: LayerPairs | None = None
    """The paired layers; None where no method in use needs them."""

    @property
    def student(self) -> ModelOutputs:
        """The student's outputs."""
        return self.outputs.student

    @property
    def teacher(self) -> ModelOutputs:
        """The teacher's outputs; only methods with ``needs_teacher`` may ask for them."""
        assert self.outputs.teacher is not None, "the term did not declare needs_teacher"
        return self.outputs.teacher

    @property
    def second_view(self) -> ModelOutputs:
        """The student's outputs on a second view, for methods with ``needs_second_view``."""
        assert self.outputs.second_view is not None, "the term did not declare needs_second_view"
        return self.outputs.second_view

    @cached_property
    def aligned(self) -> list[AlignedPair]:
        """Features of the paired layers, for methods with ``needs_layer_pairs``."""
        assert self.layer_pairs is not None, "the term did not declare needs_layer_pairs"
        return self.layer_pairs.align(self.student.features, self.teacher.features)


@dataclass(frozen=True)
class MethodContext:
    """The run that a method is built for."""

    student: KwsModel
    teacher: KwsModel | None
    """None in plain CTC training."""
    is_distilling: bool
    """Whether the teacher ever has a weight in this run."""
    sections: "tuple[MethodConfig, ...]"
    """The sections of all methods."""
    make_layer_pairs: Callable[[], LayerPairs]
    """Pairs the layers of student and teacher."""
    label_set: LabelSet | None = None
    """Vocabulary and keywords of the run; None where only the models are known."""
    embedding_space: EmbeddingSpace | None = None
    """Frame rate, mean and deviation of the feature teacher's outputs; None without one."""
    hop_ms: float = 30.0
    """Time from one model frame to the next."""

    @cached_property
    def layer_pairs(self) -> LayerPairs:
        """The paired layers, built when the first method asks for them."""
        return self.make_layer_pairs()

    def section(self, kind: type[Section]) -> Section:
        """Return the configuration section of another method."""
        return next(section for section in self.sections if isinstance(section, kind))


class Method(nn.Module):
    """A method at work: its terms, and parameters that are trained but never exported.

    A method says what it needs; the outputs are computed once for all methods.
    """

    terms: tuple[Term, ...] = ()
    """Its summands of the loss."""
    needs_teacher: bool = True
    """Whether its terms use the teacher's outputs."""
    needs_second_view: bool = False
    """Whether the student must also run on a second, differently masked view."""
    needs_layer_pairs: bool = False
    """Whether its terms use the paired layers of ``distill_conf.hidden``."""
    student_paths: tuple[str, ...] = ()
    """Modules of the student whose outputs its terms use, besides paired layers."""
    needs_confidences: bool = False
    """Whether cv passes are to score the keywords exactly, and to log miss rates."""
    count_names: tuple[str, ...] = ()
    """Sums that ``values`` returns beside the terms, for ``figures``."""

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the wanted terms, unweighted, each summed over the utterances of the batch.

        Names of ``count_names`` may stand beside them. A term that cannot be computed from the
        inputs (in eval mode, say) is left out.
        """
        raise NotImplementedError

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return the figures to log, from sums of ``count_names`` over some steps."""
        return {}

    def opponent_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the method itself trains, against the student."""
        return []

    def train_opponent(
        self,
        parts: Iterable[LossInputs],
        num_utterances: int,
        add_gradients: Callable[[Sequence[nn.Parameter]], None],
    ) -> dict[str, Tensor]:
        """Take one step with the opponent's parameters, before the student's; return counts.

        parts: the batch, in parts, without gradients. num_utterances: of the whole step.
        add_gradients: sums the gradients of all processes in place.
        """
        return {}


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Base of the configuration section of a method."""

    term_groups: ClassVar[Mapping[str, Group]] = {}
    """Names of all terms that the method can add to the loss, with the group of each."""
    health_rules: ClassVar[tuple[HealthRule, ...]] = ()
    """Problems that this method can have in training."""
    needs_feature_teacher: ClassVar[bool] = False
    """Whether its targets are the outputs of a feature teacher."""

    @property
    def is_used(self) -> bool:
        """Whether a run with this section uses the method."""
        raise NotImplementedError

    def build(self, context: MethodContext) -> Method | None:
        """Return the method for a student and a teacher; None where it is not used.

        Raises: ConfigError if it does not fit the two models.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LossValue:
    """The loss of one batch, or of a part of it."""

    total: Tensor
    """The weighted sum; carries the gradient."""
    terms: dict[str, Tensor]
    """Each term unweighted, without gradient, per utterance of the whole step."""
    weighted: dict[str, Tensor]
    """Each term's part of the total, with gradient."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """Sums for ``Method.figures``."""
