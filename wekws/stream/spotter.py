"""The detector: takes the samples of a stream in chunks of any size and returns detections.

Axes: T frames, D input features, K keywords, V vocabulary.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from wekws.decode.event_rule import Event, EventRule
from wekws.decode.stream_search import StreamSearch
from wekws.errors import ConfigError, DataError
from wekws.stream.front_end_stream import FrontEndStream
from wekws.stream.network import SpotterModel

_LARGEST_SAMPLE = 1e9  # beyond about 1e11 the energies leave float32


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A keyword in a stream; times count from the start of the stream."""

    keyword: str
    """The keyword."""
    confidence: float
    """0 to 1; at or above the threshold."""
    start_s: float
    """Start of its first frame, in seconds."""
    end_s: float
    """End of its last frame, in seconds."""
    decided_s: float
    """End of the samples that the decision needs, in seconds."""


@dataclass(frozen=True, kw_only=True)
class StreamFrames:
    """Some frames of a stream, for plots and displays."""

    first: int
    """Number of the first frame."""
    log_probs: np.ndarray
    """(T, V) log-probabilities of the tokens."""
    confidence: np.ndarray
    """(T, K) confidence of a keyword that ends at the frame, 0 to 1."""


class KeywordSpotter:
    """Finds the keywords of a model in one stream of audio.

    The results do not depend on how the samples are cut into chunks. Memory does not grow with the
    stream. `wekws.decode.event_rule` says when a keyword is detected.

    model: network, keywords and thresholds. frames_per_step: input frames (30 ms each, usually)
    that are processed at a time; 1 has the lowest delay, more need less CPU time and return a
    detection up to as many frames after its ``decided_s``.
    observer: called with the frames of each step.
    Raises: ConfigError if a keyword has no threshold.
    """

    def __init__(
        self,
        model: SpotterModel,
        *,
        frames_per_step: int = 1,
        observer: Callable[[StreamFrames], None] | None = None,
    ) -> None:
        """Start before the first sample."""
        if not isinstance(frames_per_step, int | np.integer) or frames_per_step < 1:
            raise ConfigError(
                f"frames_per_step: found {frames_per_step!r}; expected a whole number from 1 on"
            )
        self.model = model
        self._observer = observer
        self._front_end = FrontEndStream(model.front_end, frames_per_step)
        hop_s = model.front_end.hop_s
        self._search = StreamSearch(model.keyword_ids, max_frames=model.max_frames)
        self._rule = EventRule(
            _thresholds(model),
            round(model.refractory_s / hop_s),
            min_frames=[
                max(1, round(keyword.min_duration_s / hop_s)) for keyword in model.keywords
            ],
        )
        self.reset()

    def reset(self) -> None:
        """Forget the stream so far; the next sample is the first one of another."""
        self._front_end.reset()
        self._search.reset()
        self._rule.reset()
        self._state = self.model.network.initial_state()
        self._num_frames = 0
        self._num_samples = 0

    @property
    def duration_s(self) -> float:
        """Length of the stream so far in seconds."""
        return self._num_samples / self.model.front_end.sample_rate_hz

    def accept(self, samples: np.ndarray) -> list[Detection]:
        """Take the next samples of the stream and return the detections that they decide.

        samples: (N,) at the sample rate of the model, N >= 0; float32 in [-1, 1], or int16.
        Raises: DataError for another type or shape, and for samples that are NaN, infinite or
        absurdly large; the stream is then as before the call.
        """
        samples = _as_float(samples)
        self._num_samples += len(samples)
        detections = []
        for frames in self._front_end.accept(samples):
            log_probs, self._state = self.model.network.step(frames, self._state)
            detections += self._decode(log_probs)
        return detections

    def flush(self) -> list[Detection]:
        """End the stream, return the detections that its end decides, and `reset`."""
        frames = self._front_end.flush()
        detections = []
        if len(frames):
            log_probs, self._state = self.model.network.step(frames, self._state)
            detections += self._decode(log_probs)
        detections += self._decode(self.model.network.flush(self._state))
        detections += self._detections(self._rule.flush())
        self.reset()
        return detections

    def _decode(self, log_probs: np.ndarray) -> list[Detection]:
        """Return the detections that the next log-probabilities (T, V) decide."""
        if not len(log_probs):
            return []
        if not np.isfinite(log_probs).all():
            self.reset()
            raise DataError("the outputs of the model are not finite; is its file damaged?")
        confidence, start = self._search(log_probs)
        if self._observer is not None:
            frames = StreamFrames(
                first=self._num_frames, log_probs=log_probs, confidence=confidence
            )
            self._observer(frames)
        self._num_frames += len(log_probs)
        return self._detections(self._rule(confidence, start))

    def _detections(self, events: Iterable[tuple[int, Event]]) -> list[Detection]:
        hop_s = self.model.front_end.hop_s
        return [
            Detection(
                keyword=self.model.keywords[keyword].text,
                confidence=event.score,
                start_s=round(event.start * hop_s, 6),
                end_s=round((event.end + 1) * hop_s, 6),
                decided_s=self._decided_s(event),
            )
            for keyword, event in events
        ]

    def _decided_s(self, event: Event) -> float:
        """Return the end of the samples that decide an event: the frame after its peak."""
        num_frames = event.end + 2 + self.model.network.look_ahead
        num_samples = self._front_end.samples_until(num_frames)
        rate_hz = self.model.front_end.sample_rate_hz
        return round(min(num_samples, self._num_samples) / rate_hz, 6)


def _thresholds(model: SpotterModel) -> list[float]:
    thresholds = []
    for keyword in model.keywords:
        if keyword.threshold is None:
            raise ConfigError(
                f"keyword {keyword.text}: no threshold was chosen for it; give one, 0 to 1"
            )
        thresholds.append(keyword.threshold)
    return thresholds


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Return samples (N,) as float32 in [-1, 1] after checking them."""
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.float32, np.int16):
        found = samples.dtype if isinstance(samples, np.ndarray) else type(samples).__name__
        raise DataError(
            f"samples: found {found}; expected a numpy array of float32 in [-1, 1] or of int16"
        )
    if samples.ndim != 1:
        raise DataError(
            f"samples: found an array of shape {samples.shape}; expected one channel, shape (N,)"
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    if len(samples) and not np.abs(samples).max() <= _LARGEST_SAMPLE:
        is_bad = ~(np.abs(samples) <= _LARGEST_SAMPLE)
        place = int(is_bad.argmax())
        raise DataError(
            f"samples: {samples[place]} at place {place}; expected numbers from -1 to 1"
        )
    return samples
