"""The neighbours in time that a memory sees of each frame, and their second moments.

Axes: N valid frames, H input channels, P memory channels, O outputs, K taps from the oldest
frame to the newest.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.model.fsmn import FSMNConfig, Packing

_ROWS_AT_ONCE = 8192


def tap_offsets(config: FSMNConfig) -> list[int]:
    """Return which frame each tap reads, the present being 0."""
    past = [-i * config.left_stride for i in range(config.left_order - 1, -1, -1)]
    return past + [(j + 1) * config.right_stride for j in range(config.right_order)]


@dataclass(frozen=True)
class Moments:
    """Centred sums over the frames. gram: (K, H, K, H) of the neighbours among themselves.

    crossed: (K, H, O) of the neighbours with a target. sums: (K, H) of the neighbours, not
    centred. target_sums: (O,). num: N.
    """

    gram: Tensor
    crossed: Tensor
    sums: Tensor
    target_sums: Tensor
    num: int


class Contexts:
    """Every frame's neighbours, without a copy of them: rows in time order, zeros between."""

    def __init__(self, rows: Tensor, packing: Packing, config: FSMNConfig) -> None:
        """Lay (N, H) rows out in time."""
        self.config = config
        self.offsets = tap_offsets(config)
        # Room on both sides for every frame from which a tap reaches a valid one, and its taps.
        self.margin = config.left_reach + config.right_reach
        self.slots = packing.slots + self.margin
        self.length = packing.num_slots + 2 * self.margin
        self.rows = self._spread(rows)
        self.num = len(rows)

    def _spread(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(self.length, rows.shape[1]).index_copy(0, self.slots, rows)

    @functools.cached_property
    def sums(self) -> Tensor:
        """(K, H) sums of the neighbours over the valid frames."""
        return torch.stack([self.rows[self.slots + o].sum(dim=0) for o in self.offsets])

    @functools.cached_property
    def gram(self) -> Tensor:
        """(K, H, K, H) centred second moments of the neighbours.

        Over all frames, silence included, the moments of two taps depend on their distance only:
        a product for each distance, less what the silent frames add, is a fifth of the work.
        """
        taps, width = self.sums.shape
        by_lag = {
            lag: self.rows[: self.length - lag].T @ self.rows[lag:]
            for lag in {abs(a - b) for a in self.offsets for b in self.offsets}
        }
        gram = self.rows.new_empty(taps, width, taps, width)
        for i, a in enumerate(self.offsets):
            for j, b in enumerate(self.offsets):
                gram[i, :, j] = by_lag[b - a] if b >= a else by_lag[a - b].T
        flat = gram.view(taps * width, taps * width)
        for silent in self._silent_slots().split(_ROWS_AT_ONCE):
            stacked = torch.cat([self.rows[silent + offset] for offset in self.offsets], dim=1)
            flat.addmm_(stacked.T, stacked, alpha=-1.0)
        sums = self.sums.flatten()
        return gram.sub_(torch.outer(sums, sums / self.num).view_as(gram))

    def _silent_slots(self) -> Tensor:
        """Return the slots that hold no frame and from which a tap may reach one."""
        is_silent = torch.ones(self.length, dtype=torch.bool, device=self.slots.device)
        is_silent[self.slots] = False
        is_silent[: self.config.left_reach] = False
        is_silent[self.length - self.config.right_reach :] = False
        return is_silent.nonzero().squeeze(1)

    def moments(self, target: Tensor) -> Moments:
        """Return the moments with an (N, O) target."""
        spread = self._spread(target)
        low, high = self.config.left_reach, self.length - self.config.right_reach
        inner = spread[low:high]
        crossed = torch.stack([self.rows[low + o : high + o].T @ inner for o in self.offsets])
        totals = target.sum(dim=0)
        crossed = crossed - torch.einsum("kh,o->kho", self.sums, totals / self.num)
        return Moments(self.gram, crossed, self.sums, totals, self.num)

    def remember(self, project: Tensor, taps: Tensor) -> Tensor:
        """Return (N, P): each channel's weighted sum over its neighbours.

        project: (P, H). taps: (P, K), that of the present frame included.
        """
        projected = self.rows @ project.T
        terms = [taps[:, k] * projected[self.slots + o] for k, o in enumerate(self.offsets)]
        return torch.stack(terms).sum(dim=0)
