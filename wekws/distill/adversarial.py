"""Features that nobody can tell from the teacher's. Axes: N valid frames, C channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.distill.hidden import Aligned
from wekws.distill.schedule import Scheduled, checked_schedule
from wekws.errors import ConfigError

# Sums over all judged frames, from which ``verdict_figures`` makes loss and accuracy.
COUNTS = ("judged", "judged_right", "judged_loss")


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Section ``distill_conf.adversarial``: discriminators on the layers that ``hidden`` pairs.

    The pairs are those of section ``hidden``, whether or not its own term has a weight.

    weight: within distillation; 0: off.
    hidden_dim: width of the discriminators' hidden layer.
    lr: of their own Adam, constant. A student can follow judges that are right in some 6 of 10
    cases (``adversarial_accuracy``); at 1e-3 they were right in 96 % after 20 steps.
    """

    weight: Scheduled = 0.0
    hidden_dim: int = 64
    lr: float = 2e-4

    def __post_init__(self) -> None:
        """Refuse what cannot judge or learn."""
        checked_schedule("weight", self.weight, 0.0)
        if self.hidden_dim < 1 or not self.lr > 0.0:
            raise ConfigError(
                f"hidden_dim {self.hidden_dim}, lr {self.lr}; expected at least 1, above 0"
            )


class Discriminators(nn.Module):
    """One network a pair of layers: is a frame the teacher's, or the student's after its adapter?

    A frame is first brought to mean 0 and deviation 1 over its channels, so that the scale of a
    layer neither gives the student away nor sets the pace. Moved by an optimiser of their own,
    between whose steps they are frozen: the student's step only passes through them.
    Sources: Goodfellow et al. 2014, arXiv:1406.2661 (the two losses, the student's in the form
    of section 3 that does not saturate); Chung et al. 2020, arXiv:2002.01775 (feature maps).
    """

    def __init__(self, config: AdversarialConfig, widths: Sequence[int]) -> None:
        """Make one for each of the teacher's widths."""
        super().__init__()
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, 1)
            )
            for width in widths
        )
        self.requires_grad_(False)

    def forward(self, aligned: Sequence[Aligned]) -> Tensor:
        """Return the student's term: -log D(student), the pairs' weighted mean, summed over frames.

        0 where every frame passes for the teacher's; N log 2 where nobody can tell.
        """
        losses = [
            pair.weight * F.softplus(-_scores(network, pair.student)).sum()
            for network, pair in zip(self.networks, aligned, strict=True)
        ]
        return torch.stack(losses).sum() / sum(pair.weight for pair in aligned)

    def verdict(self, aligned: Sequence[Aligned]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminators' own loss and the counts of their judgements.

        The loss is -log D(teacher) - log(1 - D(student)) summed over pairs and frames; what
        made the features gets no gradient.
        """
        scores = []
        for network, pair in zip(self.networks, aligned, strict=True):
            # The sign makes a positive score a right one.
            scores += [_scores(network, pair.teacher.detach())]
            scores += [-_scores(network, pair.student.detach())]
        merits = torch.cat(scores)
        loss = F.softplus(-merits).sum()
        number = merits.new_tensor(merits.numel(), dtype=torch.float64)
        values = (number, (merits > 0.0).sum().double(), loss.detach().double())
        return loss, dict(zip(COUNTS, values, strict=True))


def _scores(network: nn.Module, frames: Tensor) -> Tensor:
    return network(F.layer_norm(frames, frames.shape[1:])).squeeze(1)


def verdict_figures(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the share of frames that were judged rightly, and the loss of a judgement.

    Where student and teacher cannot be told apart these are 0.5 and log 2, in nats.
    """
    number, right, loss = (counts[name] for name in COUNTS)
    return {"adversarial_accuracy": right / number, "discriminator_loss": loss / number}
