"""Adversarial loss on intermediate features. Axes: N valid frames, C channels."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.distill.layer_pairs import AlignedPair
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.errors import ConfigError

# Sums over all classified frames, from which ``Discriminators.figures`` makes loss and accuracy.
COUNTS = ("num_classified", "num_right", "loss_sum")


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(MethodConfig):
    """Section ``distill_conf.adversarial``: discriminators on the layers that ``hidden`` pairs.

    The pairs are those of section ``hidden``, whether or not its own term has a weight.
    """

    weight: Scheduled = 0.0
    """Weight within distillation; 0: off."""
    hidden_dim: int = 64
    """Width of the hidden layer of each discriminator."""
    lr: float = 2e-4
    """Learning rate of the discriminators' own Adam, constant. A student can follow
    discriminators that are right in some 6 of 10 cases (``adversarial_accuracy``); at 1e-3 they
    were right in 96 % after 20 steps."""

    term_groups = {"adversarial": "feature"}

    def __post_init__(self) -> None:
        """Refuse discriminators that cannot learn."""
        checked_schedule("weight", self.weight, 0.0)
        if self.hidden_dim < 1 or not self.lr > 0.0:
            raise ConfigError(
                f"hidden_dim {self.hidden_dim}, lr {self.lr}; expected at least 1, above 0"
            )

    @property
    def is_used(self) -> bool:
        """Whether the term ever has a weight."""
        return is_used(self.weight)

    def build(self, context: MethodContext) -> Method | None:
        """Return the method; None where it is off or nothing is distilled."""
        if not (self.is_used and context.is_distilling):
            return None
        return Discriminators(self, context.layer_pairs.widths)


class Discriminators(Method):
    """Term ``adversarial``, and one discriminator per pair of layers.

    A discriminator classifies frames: the teacher's, or the student's after its adapter. A frame
    is first normalised to mean 0 and deviation 1 over its channels, so that the scale of a layer
    neither tells the two apart nor sets the pace. The discriminators have an optimiser of their
    own and are frozen in the student's step. Adam's first decay is 0.5, as is usual for two
    networks that are trained against each other.
    Sources: Goodfellow et al. 2014, arXiv:1406.2661 (the two losses, the student's in the form
    of section 3 that does not saturate); Chung et al. 2020, arXiv:2002.01775 (feature maps);
    Radford et al. 2016, arXiv:1511.06434, section 4 (decay).
    """

    needs_layer_pairs = True
    count_names = COUNTS

    def __init__(self, config: AdversarialConfig, widths: Sequence[int]) -> None:
        """Make one discriminator for each of the teacher's widths."""
        super().__init__()
        weight = as_schedule(config.weight)
        self.terms = (
            Term(name="adversarial", group="feature", weight=weight, has_cv_figure=False),
        )
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, 1)
            )
            for width in widths
        )
        self.requires_grad_(False)
        self._optimizer = torch.optim.Adam(self.parameters(), lr=config.lr, betas=(0.5, 0.999))

    def opponent_parameters(self) -> list[nn.Parameter]:
        """Return the discriminators' parameters."""
        return list(self.parameters())

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the discriminators' optimiser, for a resume."""
        return self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from ``get_extra_state()``."""
        self._optimizer.load_state_dict(state)

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the student's term: see ``student_loss``."""
        return {"adversarial": self.student_loss(inputs.aligned)} if "adversarial" in wanted else {}

    def student_loss(self, aligned: Sequence[AlignedPair]) -> Tensor:
        """Return -log D(student), the pairs' weighted mean, summed over the frames.

        0 where every frame is taken for the teacher's; N log 2 where the two cannot be told apart.
        """
        losses = [
            pair.weight * F.softplus(-_scores(network, pair.student)).sum()
            for network, pair in zip(self.networks, aligned, strict=True)
        ]
        return torch.stack(losses).sum() / sum(pair.weight for pair in aligned)

    def discriminator_loss(
        self, aligned: Sequence[AlignedPair]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminators' own loss and the counts of right and wrong decisions.

        The loss is -log D(teacher) - log(1 - D(student)) summed over pairs and frames; the
        features get no gradient.
        """
        scores = []
        for network, pair in zip(self.networks, aligned, strict=True):
            # The sign makes a positive score a right decision.
            scores += [_scores(network, pair.teacher.detach())]
            scores += [-_scores(network, pair.student.detach())]
        margins = torch.cat(scores)
        loss = F.softplus(-margins).sum()
        number = margins.new_tensor(margins.numel(), dtype=torch.float64)
        values = (number, (margins > 0.0).sum().double(), loss.detach().double())
        return loss, dict(zip(COUNTS, values, strict=True))

    def train_opponent(
        self,
        parts: Iterable[LossInputs],
        num_utterances: int,
        add_gradients: Callable[[Sequence[nn.Parameter]], None],
    ) -> dict[str, Tensor]:
        """Take one step of the discriminators on a batch, given in parts; return its counts.

        Like the student's gradient, theirs is a mean over the utterances of the whole step: it
        adds up over parts and processes.
        """
        self.requires_grad_(True)
        counts = []
        for inputs in parts:
            with torch.no_grad():
                aligned = inputs.aligned
            loss, found = self.discriminator_loss(aligned)
            (loss / num_utterances).backward()
            counts.append(found)
        add_gradients(self.opponent_parameters())
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.requires_grad_(False)
        return {name: torch.stack([each[name] for each in counts]).sum() for name in COUNTS}

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return the share of right decisions, and the loss per decision in nats.

        Where student and teacher cannot be told apart these are 0.5 and log 2. Empty if a stage
        left the term out.
        """
        if not counts.get("num_classified"):
            return {}
        number, right, loss = (counts[name] for name in COUNTS)
        return {"adversarial_accuracy": right / number, "discriminator_loss": loss / number}


def _scores(network: nn.Module, frames: Tensor) -> Tensor:
    return network(F.layer_norm(frames, frames.shape[1:])).squeeze(1)
