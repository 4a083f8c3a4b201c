"""Distance between the student's features and the embeddings of a feature teacher.

The feature teacher is a frozen model of speech with a front end and a frame rate of its own
(``wekws.dataset.feature_teacher``). It has an output for all audio, labelled or not.

Axes: B batch, T frames of the student, K embeddings, D values per embedding, C channels,
M embeddings of the whole batch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wekws.dataset.batch import Embeddings
from wekws.dataset.embeddings import EmbeddingSpace
from wekws.distill.frames import valid_frames
from wekws.distill.method import LossInputs, Method, MethodConfig, MethodContext, Term
from wekws.distill.schedule import Scheduled, as_schedule, checked_schedule, is_used
from wekws.distill.taps import tap_widths
from wekws.errors import ConfigError
from wekws.model.fsmn import block_path
from wekws.runlog.health import HealthRule, RunLog

# Both distances are 1 for a student whose features say nothing of the embeddings.
UNLEARNT_DISTANCE, UNLEARNT_EPOCHS = 0.95, 4


def unlearnt_embedding(log: RunLog) -> str | None:
    """Find features from which the embeddings cannot be told after some epochs."""
    distances = log.series("embedding_distance")
    weights = log.mean("weighted_embedding")
    if not weights or len(distances) < UNLEARNT_EPOCHS or distances[-1] < UNLEARNT_DISTANCE:
        return None
    return (
        f"the student's features say nothing of the feature teacher's embeddings: mean distance "
        f"{distances[-1]:.2f} after {len(distances)} epochs, 1 for chance"
    )


HEALTH_RULES = (
    HealthRule(
        "unlearnt_embedding",
        unlearnt_embedding,
        "Give `distill_conf.embedding.weight` more, or name another `tap`.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(MethodConfig):
    """Section ``distill_conf.embedding``: the outputs of a feature teacher as targets."""

    weight: Scheduled = 0.0
    """Weight within distillation, or beside CTC in a run without a teacher's checkpoint; 0: off.
    Where it is on, ``--feature_teacher`` names the model."""
    distance: Literal["cosine", "mse"] = "cosine"
    """``cosine``: 1 - cos; ``mse`` over values. Each value is normalised to mean 0 and deviation 1
    over the training set before."""
    tap: str = ""
    """Module path of the student's layer; empty: its last block."""
    segment_ms: float = 150.0
    """The student's features are averaged over pieces of the window of about this length, above 0;
    the adapter sees the means of all pieces. As long as the window: one mean, without order."""

    term_groups = {"embedding": "feature"}
    health_rules = HEALTH_RULES
    needs_feature_teacher = True

    def __post_init__(self) -> None:
        """Refuse negative weights and pieces without length."""
        checked_schedule("weight", self.weight, 0.0)
        if not self.segment_ms > 0.0:
            raise ConfigError(f"segment_ms: found {self.segment_ms}; expected above 0")

    @property
    def is_used(self) -> bool:
        """Whether the term ever has a weight."""
        return is_used(self.weight)

    def build(self, context: MethodContext) -> Method | None:
        """Return the method; None where it is off.

        Raises: ConfigError if the run has no feature teacher, or the student no such layer.
        """
        if not self.is_used:
            return None
        if context.embedding_space is None:
            raise ConfigError("distill_conf.embedding.weight: above 0 without a feature teacher")
        num_layers = context.student.config.backbone.num_layers
        path = self.tap or block_path(num_layers - 1)
        width = tap_widths(context.student, [path], "student")[path]
        return EmbeddingDistance(
            self, context.embedding_space, path=path, width=width, hop_ms=context.hop_ms
        )


class EmbeddingDistance(Method):
    """Term ``embedding``: the distance between mapped features and embeddings.

    The student's features within the window of an embedding are averaged over consecutive pieces,
    and one linear layer (the adapter) maps the means of all pieces to the embedding. So what the
    window holds, and in which order, must be readable from the features, but no single frame has
    to hold all of it. The layer is trained with the student and never exported. Its random start
    has a generator of its own, so that the student's weights are the same with and without it.
    """

    needs_teacher = False
    count_names = ("embedding_sum", "embedding_num")

    def __init__(
        self,
        config: EmbeddingConfig,
        space: EmbeddingSpace,
        *,
        path: str,
        width: int,
        hop_ms: float,
    ) -> None:
        """Compare the layer at ``path``, of ``width`` channels, with embeddings of ``space``.

        hop_ms: time from one frame of the student to the next.
        """
        super().__init__()
        weight = as_schedule(config.weight)
        self.terms = (Term(name="embedding", group="feature", weight=weight),)
        self.student_paths = (path,)
        self._path = path
        self._distance = {"cosine": _cosine, "mse": _mse}[config.distance]
        self._num_pieces = max(1, round(space.window_ms / config.segment_ms))
        # A term counts as much as one per frame of the student, whatever the teacher's rate.
        self._frames_per_embedding = space.hop_ms / hop_ms
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", space.mean)
        self.register_buffer("deviation", space.deviation)
        num_inputs = width * self._num_pieces
        self.adapter = nn.utils.skip_init(nn.Linear, num_inputs, space.num_values)
        generator = torch.Generator().manual_seed(0)
        nn.init.normal_(self.adapter.weight, std=num_inputs**-0.5, generator=generator)
        nn.init.zeros_(self.adapter.bias)

    def values(self, inputs: LossInputs, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return ``embedding``, summed over the windows, and the counts for the figures."""
        if "embedding" not in wanted:
            return {}
        targets = inputs.targets.embeddings
        assert targets is not None, "a run with this term has a feature teacher"
        features = inputs.student.features[self._path].float()
        means = piece_means(features, inputs.targets.lengths, targets, self._num_pieces)
        valid = valid_frames(targets.lengths, targets.values.shape[1], features.device)
        normalised = (targets.values[valid] - self.mean) / self.deviation
        distances = self._distance(self.adapter(means[valid]), normalised)
        total = distances.sum()
        return {
            "embedding": self._frames_per_embedding * total,
            "embedding_sum": total.detach(),
            "embedding_num": valid.sum().to(total),
        }

    def figures(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return ``embedding_distance``, the mean of a window: 1 says nothing was learnt."""
        num = counts.get("embedding_num")
        return {"embedding_distance": counts["embedding_sum"] / num} if num else {}


def piece_means(features: Tensor, lengths: Tensor, targets: Embeddings, num: int) -> Tensor:
    """Return the student's features averaged over ``num`` equal pieces of each window.

    features: (all valid frames, C). lengths: (B,) valid frames. targets: windows placed in model
    frames; frame t stands for t - 1/2 to t + 1/2 and counts by its overlap with the piece. A piece
    that reaches beyond the utterance's frames is averaged over those that it covers; one that
    covers none is that of the nearest frame.
    Returns: (B, K, num * C), pieces in order; of padding, anything.
    """
    num_frames = int(lengths.max())
    mask = valid_frames(lengths, num_frames, features.device)
    padded = features.new_zeros(*mask.shape, features.shape[1])
    padded = padded.masked_scatter(mask[..., None], features)
    edges = torch.linspace(0.0, 1.0, num + 1, device=features.device)
    places = targets.starts[..., None] + (targets.ends - targets.starts)[..., None] * edges
    places = places.to(features)
    last = (lengths - 1)[:, None, None].to(features)
    low = torch.minimum(places[..., :-1], last).flatten(1)[..., None]
    high = places[..., 1:].clamp(min=0.0).flatten(1)[..., None]
    frames = torch.arange(num_frames, device=features.device)
    overlap = torch.minimum(high, frames + 0.5) - torch.maximum(low, frames - 0.5)
    overlap = overlap.clamp(min=0.0) * mask[:, None]
    weights = overlap / overlap.sum(dim=2, keepdim=True).clamp(min=1e-6)
    return (weights @ padded).unflatten(1, (-1, num)).flatten(2)


def _cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return 1.0 - F.cosine_similarity(student, teacher, dim=1)


def _mse(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(dim=1)
