"""Padded features and labels of one training step.

Axes: B batch, T frames of 10 ms, F mel bins, L labels, K keywords, E embeddings, D values per
embedding.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Outputs of a feature teacher for the utterances of a batch, and where their windows lie.

    Places count in frames of the batch: the centre of frame i is at i, and the frame stands for
    i - 1/2 to i + 1/2.
    """

    values: torch.Tensor
    """(B, E, D) float32, padded with 0."""
    starts: torch.Tensor
    """(B, E) float32, where the window of each embedding begins."""
    ends: torch.Tensor
    """(B, E) float32, where it ends."""
    lengths: torch.Tensor
    """(B,) int64, embeddings per utterance; 0 for one that is shorter than a window."""

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Embeddings":
        """Return the same with every tensor changed."""
        return Embeddings(
            values=change(self.values),
            starts=change(self.starts),
            ends=change(self.ends),
            lengths=change(self.lengths),
        )

    def every(self, num_frames: int) -> "Embeddings":
        """Return the same with places in frames of which one is made per ``num_frames``."""
        return dataclasses.replace(
            self, starts=self.starts / num_frames, ends=self.ends / num_frames
        )

    def chunk(self, num: int) -> list["Embeddings"]:
        """Return the utterances in at most ``num`` parts, as ``torch.chunk`` divides them."""
        names = ("values", "starts", "ends", "lengths")
        parts = zip(*(getattr(self, name).chunk(num) for name in names), strict=True)
        return [Embeddings(**dict(zip(names, part, strict=True))) for part in parts]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Utterances of one step, or this process's share of them."""

    keys: list[str]
    """B utterance ids."""
    feats: torch.Tensor
    """(B, T, F) float32, padded with 0."""
    feat_lengths: torch.Tensor
    """(B,) int64, valid frames per utterance."""
    labels: torch.Tensor
    """(B, L) int64, padded with 0; L is at least 1."""
    label_lengths: torch.Tensor
    """(B,) int64, valid labels per utterance."""
    holds_keyword: torch.Tensor
    """(B, K) bool: the transcript contains the keyword."""
    indices: torch.Tensor
    """(B,) int64, position of each utterance in the data set; -1 where two are joined."""
    places: torch.Tensor
    """(B,) int64, place of each utterance in the step of all processes; random masks go by it."""
    num_global: int
    """Utterances of the whole step, all processes together."""
    embeddings: Embeddings | None = None
    """The feature teacher's outputs; None without one."""

    @property
    def is_keyword(self) -> torch.Tensor:
        """(B,) bool: the transcript contains one of the keywords."""
        return self.holds_keyword.any(dim=1)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which a GPU copies while it computes."""
        return self._map(torch.Tensor.pin_memory)

    def select(self, rows: torch.Tensor) -> "Batch":
        """Return the utterances where ``rows`` (B,) is True; ``num_global`` is unchanged."""
        keys = [key for key, is_kept in zip(self.keys, rows.tolist(), strict=True) if is_kept]
        return dataclasses.replace(self._map(lambda tensor: tensor[rows]), keys=keys)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return dataclasses.replace(
            self,
            feats=change(self.feats),
            feat_lengths=change(self.feat_lengths),
            labels=change(self.labels),
            label_lengths=change(self.label_lengths),
            holds_keyword=change(self.holds_keyword),
            indices=change(self.indices),
            places=change(self.places),
            embeddings=self.embeddings and self.embeddings.map(change),
        )
