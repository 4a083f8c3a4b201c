"""Model inputs of a training step, and the batches they are made of.

Axes: B batch, T frames, D model input, L label length.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wekws.dataset.augment import spec_augment
from wekws.dataset.batch import Batch, Embeddings
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.features import expand_context
from wekws.distill.method import LossTargets


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """Inputs of student and teacher for one step, on the run's device but for the two lengths."""

    student: Tensor
    """(B, T, D), masked by SpecAugment in training."""
    teacher: Tensor
    """The same tensor, unless the teacher gets clean features."""
    second_view: Tensor
    """The student's input with other masks; the first view where no term needs a second one."""
    lengths: Tensor
    """(B,) valid frames, on the CPU: they size what is computed, and no step waits for a GPU."""
    labels: Tensor
    """(B, L)."""
    label_lengths: Tensor
    """(B,), on the CPU."""
    holds_keyword: Tensor
    """(B, K)."""
    indices: Tensor
    """(B,)."""
    num_global: int
    """Utterances of the whole step, all processes and parts together."""
    embeddings: Embeddings | None = None
    """The feature teacher's outputs, placed in model frames; None without one."""

    @property
    def targets(self) -> LossTargets:
        """Labels, lengths and embeddings, for the loss."""
        return LossTargets(
            self.lengths,
            self.labels,
            self.label_lengths,
            self.holds_keyword,
            self.indices,
            self.embeddings,
        )

    def parts(self, num: int) -> Iterator["StepInputs"]:
        """Yield the utterances in at most ``num`` parts of about the same number."""
        others = ("num_global", "embeddings")
        names = [f.name for f in dataclasses.fields(self) if f.name not in others]
        chunks = [getattr(self, name).chunk(num) for name in names]
        embeddings = self.embeddings.chunk(num) if self.embeddings else [None] * len(chunks[0])
        for *part, targets in zip(*chunks, embeddings, strict=True):
            yield StepInputs(
                **dict(zip(names, part, strict=True)),
                num_global=self.num_global,
                embeddings=targets,
            )


@dataclass(frozen=True, kw_only=True)
class InputMaker:
    """Makes the inputs of a step from a batch of features."""

    config: DatasetConfig
    """SpecAugment, context and frame skip."""
    neutral: Tensor
    """(F,) value that masks write into each mel bin: the mean, which is 0 once normalised. A mask
    of 0 in raw log-mel would be a loud click."""
    device: torch.device
    """Device of the run."""

    def make(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        *,
        teacher_sees_masks: bool = True,
        has_second_view: bool = False,
    ) -> StepInputs:
        """Return the inputs for a batch.

        generator: source of SpecAugment's masks; None leaves the features as they are, for all.
        """
        on_cpu, batch = batch, batch.to(self.device)
        student = self._view(batch, on_cpu, generator)
        teacher = second_view = student
        embeddings = batch.embeddings and batch.embeddings.every(self.config.frame_skip)
        if generator is not None and has_second_view:
            second_view = self._view(batch, on_cpu, generator)
        if generator is not None and not teacher_sees_masks:
            teacher = self._view(batch, on_cpu, None)
        return StepInputs(
            student=student,
            teacher=teacher,
            second_view=second_view,
            lengths=-(-on_cpu.feat_lengths // self.config.frame_skip),
            labels=batch.labels,
            label_lengths=on_cpu.label_lengths,
            holds_keyword=batch.holds_keyword,
            indices=batch.indices,
            num_global=batch.num_global,
            embeddings=embeddings,
        )

    def _view(self, batch: Batch, on_cpu: Batch, generator: torch.Generator | None) -> Tensor:
        feats, config = batch.feats, self.config
        if generator is not None and config.spec_aug:
            feats = spec_augment(
                feats,
                on_cpu.feat_lengths,
                config=config.spec_aug_conf,
                generator=generator,
                fill=self.neutral,
                places=on_cpu.places,
                num_places=batch.num_global,
            )
        return expand_context(feats, batch.feat_lengths, config.front_end)[0]


def step_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Return the source of one step's random masks, the same in every process."""
    # The last number was that of the process once; runs of one process keep their masks.
    place = np.random.SeedSequence([seed, epoch, index, 0])
    return torch.Generator().manual_seed(int(place.generate_state(1, np.uint64)[0] >> 1))
