"""Figure of a recording and what a detector made of it.

Axes: N samples, T frames, K keywords, V vocabulary.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes

from wekws.errors import ConfigError
from wekws.plot import style
from wekws.stream.front_end_stream import FilterBank
from wekws.stream.network import SpotterModel
from wekws.stream.spotter import Detection, StreamFrames

MAX_PLOT_S = 600.0  # longer recordings have more frames than a figure has pixels, many times over
_ENVELOPE_POINTS = 4000
_RANGE_NATS = 14.0  # of the filterbank's colours, below the loudest


@dataclass(kw_only=True)
class RecordedStream:
    """Samples and frames of a stream, collected for `plot_detections`."""

    samples: list[np.ndarray] = field(default_factory=list)
    """Pieces of the audio."""
    frames: list[StreamFrames] = field(default_factory=list)
    """Frames in order."""
    duration_s: float = 0.0
    """Length of the audio so far."""

    def add_samples(self, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add a piece of audio. Raises: ConfigError if the recording is too long for a figure."""
        self.samples.append(samples)
        self.duration_s += len(samples) / sample_rate_hz
        if self.duration_s > MAX_PLOT_S:
            raise ConfigError(f"--plot: a recording above {MAX_PLOT_S:g} s; cut out a part of it")


def plot_detections(
    stream: RecordedStream,
    model: SpotterModel,
    detections: Sequence[Detection],
    path: str | os.PathLike[str],
    *,
    title: str,
) -> None:
    """Draw waveform, filterbank, token posteriors and confidences, with the detections marked.

    Posteriors are those of the keywords' tokens. Raises: ConfigError if there is no frame to draw.
    """
    if not stream.frames:
        raise ConfigError("--plot: the recording is shorter than one frame")
    samples = np.concatenate(stream.samples)
    log_probs = np.concatenate([frames.log_probs for frames in stream.frames])
    confidence = np.concatenate([frames.confidence for frames in stream.frames])
    times = (np.arange(len(log_probs)) + 0.5) * model.front_end.hop_s
    width = float(np.clip(4 + 1.2 * stream.duration_s, 8, 24))
    with style.saved_figure(path, width, 8.5) as figure:
        axes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1.5, 1.5, 1.5))
        axes[0].set_title(style.readable(title, round(9 * width)))
        _draw_waveform(axes[0], samples, model.front_end.sample_rate_hz)
        _draw_fbank(axes[1], samples, model)
        _draw_posteriors(axes[2], times, np.exp(log_probs), model)
        _draw_confidence(axes[3], times, confidence, model, detections)
        for axis in axes:
            for detection in detections:
                axis.axvspan(detection.start_s, detection.end_s, color=style.GUIDE, alpha=0.18)
        axes[-1].set_xlim(0, max(stream.duration_s, times[-1]))
        axes[-1].set_xlabel("Time in s")


def _draw_waveform(axis: Axes, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Draw the lowest and highest sample of each of a few thousand pieces."""
    size = max(1, len(samples) // _ENVELOPE_POINTS)
    whole = samples[: len(samples) // size * size].reshape(-1, size)
    times = (np.arange(len(whole)) + 0.5) * size / sample_rate_hz
    axis.fill_between(times, whole.min(axis=1), whole.max(axis=1), color=style.INK, linewidth=0.5)
    axis.set_ylabel("Waveform")


def _draw_fbank(axis: Axes, samples: np.ndarray, model: SpotterModel) -> None:
    front_end = model.front_end
    feats = FilterBank(front_end)(samples)
    shift_s, length_s = front_end.frame_shift_ms / 1000, front_end.frame_length_ms / 1000
    begin = (length_s - shift_s) / 2  # a pixel is centred on its window
    loudest = feats.max()
    axis.imshow(
        feats.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(begin, begin + len(feats) * shift_s, 0, front_end.num_mel_bins),
        vmin=loudest - _RANGE_NATS,
        vmax=loudest,
        cmap="magma",
    )
    axis.grid(False)
    axis.set_ylabel("Mel bin")


def _draw_posteriors(
    axis: Axes, times: np.ndarray, posteriors: np.ndarray, model: SpotterModel
) -> None:
    tokens = list(dict.fromkeys(token for keyword in model.keywords for token in keyword.tokens))
    axis.fill_between(times, posteriors[:, 0], color=style.FAINT, label="blank", linewidth=0)
    for i, token in enumerate(tokens):
        axis.plot(
            times,
            posteriors[:, model.tokens.index(token)],
            color=style.PALETTE[i % len(style.PALETTE)],
            linestyle=("-", "--", ":")[i // len(style.PALETTE) % 3],
            linewidth=1.4,
            label=style.readable(token),
        )
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("Posterior")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(tokens) // 9, fontsize=8)


def _draw_confidence(
    axis: Axes,
    times: np.ndarray,
    confidence: np.ndarray,
    model: SpotterModel,
    detections: Sequence[Detection],
) -> None:
    for i, keyword in enumerate(model.keywords):
        colour = style.PALETTE[i % len(style.PALETTE)]
        name = style.readable(keyword.text)
        axis.plot(times, confidence[:, i], color=colour, linewidth=1.4, label=name)
        if keyword.threshold is not None:
            axis.axhline(keyword.threshold, color=colour, linewidth=0.8, linestyle="--")
        events = [d for d in detections if d.keyword == keyword.text]
        axis.plot(
            [d.end_s for d in events],
            [d.confidence for d in events],
            marker="v",
            linestyle="none",
            color=colour,
            markersize=8,
        )
    axis.set_ylim(0, 1.08)
    axis.set_ylabel("Confidence")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
