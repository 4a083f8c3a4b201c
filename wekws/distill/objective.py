"""The loss that training minimises: a weighted sum of terms, each logged under its own name.

No method is named here: each declares its terms and the outputs that it needs; the objective
collects the values and applies the weights.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from wekws.distill.layer_pairs import LayerPairs
from wekws.distill.method import LossInputs, LossTargets, LossValue, Method, Term
from wekws.distill.taps import StepOutputs
from wekws.distill.weighting import Weighting


class Objective(nn.Module):
    """``alpha * CTC + (1 - alpha) * (kd * T^2 * KL(teacher || student) + ...)``.

    alpha weighs CTC, the labels; 1 - alpha weighs distillation. (Some papers call the weight of
    distillation alpha.) Values are nats per utterance: sums over the frames of an utterance,
    divided by the number of utterances of the whole (global) batch, so that the shares of several
    processes, and of a batch in parts, add up.
    Its parameters are adapters, gates, the inner head (trained with the student) and
    discriminators (trained against it); none is ever exported.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        weighting: Weighting,
        *,
        layer_pairs: LayerPairs | None = None,
        teacher_sees_masks: bool = True,
    ) -> None:
        """Weigh the terms of some methods.

        methods: section name -> method, in the order in which terms are logged.
        weighting: weights of task, distillation and features over training.
        layer_pairs: needed if a method declares ``needs_layer_pairs``.
        teacher_sees_masks: whether the teacher runs on the student's masked features; False: on
        the clean ones.
        """
        super().__init__()
        self._weighting = weighting
        self.teacher_sees_masks = teacher_sees_masks
        self.layer_pairs = layer_pairs
        self.methods: dict[str, Method] = dict(methods)
        for name, method in methods.items():
            self.add_module(name, method)
        terms = [(term, method) for method in methods.values() for term in method.terms]
        # Task terms first: the order in which terms are logged and summed.
        terms.sort(key=lambda pair: pair[0].group != "task")
        self._terms: dict[str, tuple[Term, Method]] = {t.name: (t, m) for t, m in terms}
        self.count_names = tuple(n for m in methods.values() for n in m.count_names)

    @property
    def task_terms(self) -> tuple[str, ...]:
        """Names of the terms that use the labels."""
        return tuple(name for name, (term, _) in self._terms.items() if term.group == "task")

    @property
    def distillation_terms(self) -> tuple[str, ...]:
        """Names of all other terms in use, even if in one stage only."""
        return tuple(name for name, (term, _) in self._terms.items() if term.group != "task")

    @property
    def cv_terms(self) -> tuple[str, ...]:
        """Names of the terms beside CTC that cv passes compute."""
        return tuple(name for name, (term, _) in self._terms.items() if term.has_cv_figure)

    @property
    def needs_confidences(self) -> bool:
        """Whether cv passes are to score the keywords."""
        return any(method.needs_confidences for method in self.methods.values())

    @property
    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained with the student: all but the opponents'."""
        opponents = {p for m in self.methods.values() for p in m.opponent_parameters()}
        return [p for p in self.parameters() if p not in opponents]

    @property
    def student_paths(self) -> tuple[str, ...]:
        """Modules of the student whose outputs the terms need."""
        paths = self.layer_pairs.student_paths if self.layer_pairs is not None else ()
        own = (path for method in self.methods.values() for path in method.student_paths)
        return tuple(dict.fromkeys((*paths, *own)))

    @property
    def teacher_paths(self) -> tuple[str, ...]:
        """Modules of the teacher whose outputs the terms need."""
        return self.layer_pairs.teacher_paths if self.layer_pairs is not None else ()

    def active_terms(self, progress: float) -> list[str]:
        """Return the terms to compute at a progress from 0 to 1."""
        leaves_out = self._weighting.leaves_out
        return [
            name
            for name, (term, _) in self._terms.items()
            if term.group == "task" or not leaves_out(term.group, progress)
        ]

    def needs_teacher(self, names: Iterable[str]) -> bool:
        """Return whether any of these terms uses the teacher's outputs."""
        terms = (self._terms[name] for name in names)
        return any(method.needs_teacher and term.group != "task" for term, method in terms)

    def needs_second_view(self, names: Iterable[str]) -> bool:
        """Return whether any of these terms needs the student on a second view."""
        return any(self._terms[name][1].needs_second_view for name in names)

    def alpha(self, progress: float) -> float:
        """Return the weight of the task at a progress from 0 to 1."""
        return self._weighting.weight("task", progress)

    def temperature(self, progress: float) -> float:
        """Return the temperature at a progress from 0 to 1."""
        return self._weighting.temperature(progress)

    def weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each term that is computed at a progress from 0 to 1."""
        weights = {}
        for name in self.active_terms(progress):
            term, _ = self._terms[name]
            shared = self._weighting.weight(term.group, progress)
            weights[name] = term.factor * (shared * term.weight.at(progress))
        return weights

    def forward(
        self, outputs: StepOutputs, targets: LossTargets, num_utterances: int, progress: float
    ) -> LossValue:
        """Return the loss of one batch, or of a part of it.

        num_utterances: size of the global batch this one is part of.
        progress: share of training that is done, 0 to 1.
        """
        weights = self.weights(progress)
        sums = self.terms(outputs, targets, progress, weights)
        counts = {name: sums.pop(name) for name in self.count_names if name in sums}
        terms = {name: value / num_utterances for name, value in sums.items()}
        weighted = {name: weights[name] * value for name, value in terms.items()}
        total = torch.stack(list(weighted.values())).sum()
        detached = {name: value.detach() for name, value in terms.items()}
        return LossValue(total, detached, weighted, counts)

    def terms(
        self,
        outputs: StepOutputs,
        targets: LossTargets,
        progress: float,
        wanted: Collection[str],
    ) -> dict[str, Tensor]:
        """Return the wanted terms, each summed over the utterances of the batch, unweighted.

        Sums of ``count_names`` follow them, where a method returned any.
        """
        inputs = self._inputs(outputs, targets, progress)
        values: dict[str, Tensor] = {}
        for method in self.methods.values():
            values |= method.values(inputs, wanted)
        order = [*self._terms, *self.count_names]
        return {name: values[name] for name in order if name in values}

    def _inputs(self, outputs: StepOutputs, targets: LossTargets, progress: float) -> LossInputs:
        return LossInputs(outputs, targets, self.temperature(progress), self.layer_pairs)

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return the methods' figures, from sums of ``count_names`` over some steps."""
        figures: dict[str, float] = {}
        for method in self.methods.values():
            figures |= method.figures(counts)
        return figures

    def has_opponent(self, progress: float) -> bool:
        """Return whether an opponent is to be trained at a progress from 0 to 1."""
        return bool(self._opponents(progress))

    def train_opponents(
        self,
        make_parts: Callable[[], Iterable[tuple[StepOutputs, LossTargets]]],
        num_utterances: int,
        progress: float,
        add_gradients: Callable[[Sequence[nn.Parameter]], None],
    ) -> dict[str, Tensor]:
        """Train the opponents (discriminators) one step on a batch, given in parts; return counts.

        make_parts: yields the parts one after another, so that memory holds one at a time.
        num_utterances: of the whole step. add_gradients: sums gradients over all processes.
        """
        counts: dict[str, Tensor] = {}
        for method in self._opponents(progress):
            inputs = (self._inputs(*part, progress) for part in make_parts())
            counts |= method.train_opponent(inputs, num_utterances, add_gradients)
        return counts

    def _opponents(self, progress: float) -> list[Method]:
        active = set(self.active_terms(progress))
        return [
            method
            for method in self.methods.values()
            if method.opponent_parameters() and any(term.name in active for term in method.terms)
        ]


def add_losses(parts: Sequence[LossValue], counts: Mapping[str, Tensor] | None = None) -> LossValue:
    """Return the loss of a batch from those of its parts, without gradients.

    counts: sums over the whole batch, to stand beside the parts' own.
    """
    return LossValue(
        torch.stack([part.total.detach() for part in parts]).sum(),
        _sums([part.terms for part in parts]),
        _sums([part.weighted for part in parts]),
        {**_sums([part.counts for part in parts]), **(counts or {})},
    )


def _sums(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].detach() for part in parts]).sum() for name in parts[0]}
