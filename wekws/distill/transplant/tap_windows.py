"""The frames that the taps of a memory read around each frame, and their second moments.

Axes: N valid frames, H input channels, P memory channels, O outputs, K taps from the oldest
frame to the newest.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from wekws.model.fsmn import Packing
from wekws.model.model_conf import FSMNConfig

_ROWS_AT_ONCE = 8192


def tap_offsets(config: FSMNConfig) -> list[int]:
    """Return the frame that each tap reads, relative to the present one."""
    past = [-i * config.left_stride for i in range(config.left_order - 1, -1, -1)]
    return past + [(j + 1) * config.right_stride for j in range(config.right_order)]


@dataclass(frozen=True)
class WindowMoments:
    """Second moments of the tap windows and a target, as sums over frames."""

    gram: Tensor
    """(K, H, K, H) centred moments of the windows with themselves."""
    crossed: Tensor
    """(K, H, O) centred moments of the windows with the target."""
    sums: Tensor
    """(K, H) sums of the windows, not centred."""
    target_sums: Tensor
    """(O,) sums of the target."""
    num: int
    """Number of frames, N."""


class TapWindows:
    """Tap windows of all frames, without copies: rows on a time axis with zeros in the gaps."""

    def __init__(self, rows: Tensor, packing: Packing, config: FSMNConfig) -> None:
        """Place (N, H) rows on the time axis."""
        self.config = config
        self.offsets = tap_offsets(config)
        # Room on both sides for every frame whose taps reach a valid frame, and for its taps.
        self.margin = config.left_reach + config.right_reach
        self.slots = packing.slots + self.margin
        self.length = packing.num_slots + 2 * self.margin
        self.rows = self._spread(rows)
        self.num = len(rows)

    def _spread(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(self.length, rows.shape[1]).index_copy(0, self.slots, rows)

    @functools.cached_property
    def sums(self) -> Tensor:
        """(K, H) sums of the windows over the valid frames."""
        return torch.stack([self.rows[self.slots + o].sum(dim=0) for o in self.offsets])

    @functools.cached_property
    def gram(self) -> Tensor:
        """(K, H, K, H) centred second moments of the windows.

        Over all slots, empty ones included, the moments of two taps depend on their distance
        only: one product per distance, minus the part of the empty slots, is a fifth of the work.
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
        for empty in self._empty_slots().split(_ROWS_AT_ONCE):
            stacked = torch.cat([self.rows[empty + offset] for offset in self.offsets], dim=1)
            flat.addmm_(stacked.T, stacked, alpha=-1.0)
        sums = self.sums.flatten()
        return gram.sub_(torch.outer(sums, sums / self.num).view_as(gram))

    def _empty_slots(self) -> Tensor:
        """Return the slots that hold no frame and whose taps may read one."""
        is_empty = torch.ones(self.length, dtype=torch.bool, device=self.slots.device)
        is_empty[self.slots] = False
        is_empty[: self.config.left_reach] = False
        is_empty[self.length - self.config.right_reach :] = False
        return is_empty.nonzero().squeeze(1)

    def moments(self, target: Tensor) -> WindowMoments:
        """Return the moments with an (N, O) target."""
        spread = self._spread(target)
        low, high = self.config.left_reach, self.length - self.config.right_reach
        inner = spread[low:high]
        crossed = torch.stack([self.rows[low + o : high + o].T @ inner for o in self.offsets])
        totals = target.sum(dim=0)
        crossed = crossed - torch.einsum("kh,o->kho", self.sums, totals / self.num)
        return WindowMoments(self.gram, crossed, self.sums, totals, self.num)

    def run_memory(self, project: Tensor, taps: Tensor) -> Tensor:
        """Return (N, P): output of a memory, the weighted sum over the window of each channel.

        project: (P, H). taps: (P, K), the identity of the present frame included.
        """
        projected = self.rows @ project.T
        terms = [taps[:, k] * projected[self.slots + o] for k, o in enumerate(self.offsets)]
        return torch.stack(terms).sum(dim=0)
