"""The usable utterances of a data list, and batches of them made with array operations.

Axes: N utterances of the data set, K keywords, B batch, T frames of 10 ms, F mel bins, L labels.
"""

import hashlib
import itertools
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii

import numpy as np
import numpy.typing as npt
import torch

from wekws.dataset.batch import Batch
from wekws.dataset.cache import FeatureCache, padded_index
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.embeddings import EmbeddingSet
from wekws.dataset.join import choose_partners, join_batches
from wekws.dataset.label_set import LabelSet
from wekws.dataset.shards import ShardSource
from wekws.dataset.sources import (
    FeatureSource,
)
from wekws.errors import DataError


class SpeechDataset:
    """The usable utterances of a data list with features and labels; see ``open_dataset``."""

    def __init__(
        self,
        *,
        config: DatasetConfig,
        label_set: LabelSet,
        keys: Sequence[str],
        labels: Sequence[Sequence[int]],
        holds_keyword: npt.NDArray[np.bool_],
        source: FeatureSource,
        rows: npt.NDArray[np.int64],
        caches: Sequence[FeatureCache] = (),
        join_prob: float = 0.0,
        seed: int = 0,
        embeddings: EmbeddingSet | None = None,
        durations_s: npt.NDArray[np.float64] | None = None,
        num_listed: int = 0,
        audio: str = "",
    ) -> None:
        """Build the data set from its parts.

        keys: ids of N utterances.
        labels: label ids per utterance.
        holds_keyword: (N, K), whether the transcript contains each keyword of the label set.
        source: gives the features of the list's utterances, but for long ones that are left out.
        rows: (N,), position of each utterance in the source.
        caches: feature caches of the list, one per augmented copy; none where features are
            computed from audio in every epoch.
        join_prob: share of utterances that are followed by another one, 0 to 1.
        seed: chooses the joined utterances.
        embeddings: outputs of a feature teacher for the list's utterances; None: none.
        durations_s: (N,) length of each utterance in the list; None: unknown.
        num_listed: utterances of the list, usable or not.
        audio: hash of names, sizes and times of the list's audio files; empty: unknown.
        """
        self.durations_s, self.num_listed, self.audio = durations_s, num_listed, audio
        self.config, self.label_set = config, label_set
        self.keys, self.labels = list(keys), list(labels)
        self.holds_keyword = holds_keyword
        self.is_keyword: npt.NDArray[np.bool_] = np.asarray(holds_keyword.any(axis=1))
        self.caches = list(caches)
        self._source, self._rows = source, rows
        num_labels = np.fromiter(map(len, self.labels), np.int64, len(self.labels))
        self._label_offsets = np.concatenate([[0], np.cumsum(num_labels)])
        flat = itertools.chain(itertools.chain.from_iterable(self.labels), [0])
        self._flat_labels = np.fromiter(flat, np.int64, self._label_offsets[-1] + 1)
        self._join_prob, self._seed = join_prob, seed
        self.embeddings = embeddings
        self.repeated: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Positions of the utterances that occur once more in each epoch."""

    def __len__(self) -> int:
        """Return the number of usable utterances."""
        return len(self.keys)

    @property
    def fingerprint(self) -> str:
        """Hash (16 hexadecimal digits) of the utterances' keys and labels, in their order."""
        # The text is json.dumps([keys, labels]); most labels are those of some other utterance.
        labels = {id(ids): str(ids) for ids in self.labels}
        digest = hashlib.sha256(b"[[")
        digest.update(", ".join(map(encode_basestring_ascii, self.keys)).encode())
        digest.update(b"], [")
        digest.update(", ".join([labels[id(ids)] for ids in self.labels]).encode())
        digest.update(b"]]")
        return digest.hexdigest()[:16]

    @property
    def num_frames(self) -> np.ndarray:
        """Frames of each utterance in the first epoch, (N,)."""
        return self.frames_in(0)

    def frames_in(self, epoch: int) -> np.ndarray:
        """Return the frames of each utterance in an epoch, (N,); before a speed change online."""
        return self._source.num_frames(epoch)[self._rows]

    @property
    def shards(self) -> npt.NDArray[np.int64] | None:
        """Number of each utterance's shard, (N,); None where the audio is in files of its own."""
        source = self._source
        return source.shards[self._rows] if isinstance(source, ShardSource) else None

    def start(self, indices: np.ndarray, epoch: int) -> None:
        """Announce the utterances of an epoch, in the order in which batches will hold them."""
        self._source.start(self._rows[indices], epoch)

    @property
    def audio_fingerprint(self) -> str:
        """Hash that tells the list's audio; empty: unknown."""
        return self._source.audio_fingerprint

    @property
    def num_ahead(self) -> int:
        """Batches that can be made at the same time."""
        return self._source.num_ahead

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        epoch: int = 0,
        *,
        places: np.ndarray | None = None,
        num_global: int | None = None,
    ) -> Batch:
        """Return the utterances at ``indices`` with their features of ``epoch``.

        places: (B,) places of these utterances in the step of all processes; None: 0 to B - 1.
        num_global: utterances of that step; None: those of this batch.
        Raises: DataError if none of them, or too few of the list, can be read.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if places is None:
            places = np.arange(len(chosen))
        batch = self._joined_batch(chosen, epoch, places, num_global)
        is_readable = batch.feat_lengths > 0
        if is_readable.all():
            return batch
        if not is_readable.any():
            raise DataError(f"no utterance of a batch can be read: {', '.join(batch.keys)}")
        return batch.select(is_readable)

    def _joined_batch(
        self, chosen: np.ndarray, epoch: int, places: np.ndarray, num_global: int | None
    ) -> Batch:
        batch = self._single_batch(chosen, epoch, places, num_global)
        if self._join_prob == 0:
            return batch
        partners = choose_partners(
            len(self), join_prob=self._join_prob, seed=self._seed, epoch=epoch
        )[chosen]
        rows = np.flatnonzero(partners >= 0)
        if len(rows) == 0:
            return batch
        return join_batches(
            batch,
            rows=rows,
            second=self._single_batch(partners[rows], epoch, rows, None),
            frame_skip=self.config.frame_skip,
            max_labels=self.config.filter_conf.max_label_length,
        )

    def _single_batch(
        self, indices: np.ndarray, epoch: int, places: np.ndarray, num_global: int | None
    ) -> Batch:
        """Return a batch of utterances that are not joined."""
        feats, feat_lengths = self._source.features(self._rows[indices], epoch)
        embeddings = None
        if self.embeddings is not None:
            speeds = np.array([self._source.speed(self.keys[i], epoch) for i in indices])
            rows = self._rows[indices]
            embeddings = self.embeddings.gather(rows, speeds, self.config.front_end)
        label_index = padded_index(self._label_offsets, indices, len(self._flat_labels) - 1)
        if label_index.shape[1] == 0:
            label_index = np.full((len(indices), 1), len(self._flat_labels) - 1)
        return Batch(
            keys=[self.keys[i] for i in indices],
            feats=torch.from_numpy(feats),
            feat_lengths=torch.from_numpy(feat_lengths),
            labels=torch.from_numpy(self._flat_labels[label_index]),
            label_lengths=torch.from_numpy(np.diff(self._label_offsets)[indices]),
            holds_keyword=torch.from_numpy(self.holds_keyword[indices]),
            indices=torch.from_numpy(indices),
            places=torch.from_numpy(places),
            num_global=len(indices) if num_global is None else num_global,
            embeddings=embeddings,
        )

    def with_labels_of(self, other: "SpeechDataset") -> "SpeechDataset":
        """Return the utterances all of whose labels occur in another set, with the same source."""
        known = np.bincount(other._flat_labels[:-1], minlength=self.label_set.size) > 0
        is_unseen = np.concatenate([[0], np.cumsum(~known[self._flat_labels[:-1]])])
        chosen = np.flatnonzero(np.diff(is_unseen[self._label_offsets]) == 0)
        return SpeechDataset(
            config=self.config,
            label_set=self.label_set,
            keys=[self.keys[i] for i in chosen.tolist()],
            labels=[self.labels[i] for i in chosen.tolist()],
            holds_keyword=self.holds_keyword[chosen],
            source=self._source,
            rows=self._rows[chosen],
            caches=self.caches,
            join_prob=self._join_prob,
            seed=self._seed,
            embeddings=self.embeddings,
            durations_s=None if self.durations_s is None else self.durations_s[chosen],
            num_listed=self.num_listed,
            audio=self.audio,
        )

    def close(self) -> None:
        """End the processes that augment online, if there are any."""
        self._source.close()
