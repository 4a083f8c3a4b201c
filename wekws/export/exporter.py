"""Export of a checkpoint to one ONNX file that runs alone, checked against the checkpoint."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
from onnx import helper

from wekws.dataset.vocabulary import Vocabulary
from wekws.errors import ConfigError, DataError
from wekws.export.export_audio import read_recordings, standard_signal
from wekws.export.graph import smallest_form
from wekws.export.layouts import ExportLayout, StreamLayout, WekwsLayout, torch_log_probs
from wekws.export.precision import to_fp16, to_int8
from wekws.files import atomic_path, file_sha256
from wekws.front_end import FrontEnd
from wekws.model.cost import model_cost
from wekws.model.model import KwsModel, num_parameters
from wekws.stream.metadata import MAX_SECONDS, Description, Precision
from wekws.stream.network import Keyword
from wekws.stream.onnx_network import ONNX_SUFFIX
from wekws.stream.torch_network import TorchNetwork, load_checkpoint

Layout = Literal["stream", "wekws"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

MAX_LOG_PROB_DIFFERENCE = 1e-4
"""Of a float32 export, at any frame and token. Of a log-probability below -10 it is 1e-5 of it:
float32 has no more digits after the sums of a network."""
LOWEST_LOG_PROB = -80.0
"""Smaller ones are compared as this."""
MAX_MEAN_DIFFERENCE = {"fp32": 1e-5, "fp16": 0.005, "int8": 0.03}
"""Of the probability that differs most, mean over frames; `wekws.bin.export_onnx` prints it."""
MIN_COMPARED_FRAMES = 50
"""Of recordings, at least; 1.5 s at 30 ms per frame."""
_NUM_COMPARED = 20  # recordings


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Outputs of an exported network against those of its checkpoint, on the same frames."""

    max_log_prob: float
    """Largest difference of a log-probability; of one below -10, scaled to -10."""
    mean_prob: float
    """Difference of the probability that differs most, mean over frames."""
    num_frames: int
    """Frames compared."""
    is_real_audio: bool
    """Whether they come from recordings; otherwise from a synthesised signal."""


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """Result of `export_checkpoint`."""

    path: Path
    """The file."""
    size_bytes: int
    """Its size."""
    state_bytes: int
    """Bytes of state per stream, float32."""
    num_parameters: int
    """Trainable parameters of the exported network."""
    delay_frames: int
    """Input frames by which the outputs are late."""
    difference: Difference
    """Against the checkpoint."""
    keywords: tuple[Keyword, ...]
    """Keywords with their thresholds."""


def export_path(checkpoint: str | os.PathLike[str], precision: Precision, layout: Layout) -> Path:
    """Return the usual name: avg_30.onnx, avg_30.int8.onnx, avg_30.wekws.onnx."""
    parts = [layout] * (layout != "stream") + [precision] * (precision != "fp32")
    return Path(checkpoint).with_suffix("".join(f".{part}" for part in parts) + ONNX_SUFFIX)


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    precision: Precision = "fp32",
    layout: Layout = "stream",
    data_list: str | os.PathLike[str] | None = None,
    num_utterances: int = 200,
    refractory_s: float = 1.0,
    config: str | os.PathLike[str] | None = None,
    dict_path: str | os.PathLike[str] | None = None,
    lexicon: str | os.PathLike[str] | None = None,
    keywords_file: str | os.PathLike[str] | None = None,
) -> ExportedModel:
    """Export a checkpoint with its keywords and thresholds.

    out: the file; None: see `export_path`. It is written only if it passes the comparison.
    precision: format of the weights; int8 needs ``data_list``.
    layout: ``stream`` is our own graph; ``wekws`` that of WeKWS's runtimes.
    data_list: dev recordings for the comparison, and for the calibration of int8; None: a
    synthesised signal.
    num_utterances: utterances for calibration, at most.
    refractory_s: shortest time between two detections of one keyword.
    config, dict_path, lexicon, keywords_file: None: the files beside the checkpoint.
    Thresholds are those that `wekws.bin.tune_threshold` wrote beside the checkpoint.
    Raises: ConfigError or DataError naming what does not fit; DataError if the outputs of the file
    differ from those of the checkpoint, or too few frames of recordings were compared.
    """
    checkpoint = Path(checkpoint)
    out = Path(out or export_path(checkpoint, precision, layout))
    if out.suffix != ONNX_SUFFIX:
        raise ConfigError(f"{out}: expected a name that ends in {ONNX_SUFFIX}")
    require_calibration(precision, data_list)
    if num_utterances < 1:
        raise ConfigError(f"num_utterances: found {num_utterances}; expected at least 1")
    if not 0 <= refractory_s <= MAX_SECONDS:
        raise ConfigError(
            f"refractory_s: found {refractory_s:g}; expected 0 to {MAX_SECONDS:g} seconds"
        )
    if checkpoint.suffix == ONNX_SUFFIX:
        raise ConfigError(f"{checkpoint}: is exported already; give the checkpoint, such as N.pt")
    spotter = load_checkpoint(
        checkpoint,
        config=config,
        dict_path=dict_path,
        lexicon=lexicon,
        keywords_file=keywords_file,
        refractory_s=refractory_s,
    )
    front_end, network = spotter.front_end, spotter.network
    assert isinstance(network, TorchNetwork)
    recordings = [standard_signal(front_end)]
    if data_list is not None:
        words = [keyword.text for keyword in spotter.keywords]
        recordings = read_recordings(data_list, words, front_end, num_utterances)
    model = smallest_form(network.model)
    make_layout = StreamLayout if layout == "stream" else WekwsLayout
    exported: ExportLayout = make_layout(model, front_end)
    graph = exported.graph()
    if precision == "fp16":
        graph = to_fp16(graph)
    elif precision == "int8":
        graph = to_int8(graph, [exported.feed(samples) for samples in recordings])
    description = Description(
        precision=precision,
        look_ahead_frames=network.look_ahead,
        front_end=front_end,
        tokens=spotter.tokens,
        keywords=spotter.keywords,
        refractory_s=spotter.refractory_s,
        num_parameters=num_parameters(model),
        macs_per_second=model_cost(model.config, front_end)["macs_per_second"],
        fingerprints={
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": file_sha256(checkpoint),
            "vocabulary": Vocabulary(spotter.tokens).fingerprint,
        },
    )
    helper.set_model_props(graph, exported.metadata(description))
    with atomic_path(out) as temporary:
        onnx.save(graph, temporary)
        with _instead_of(temporary, out):
            difference = compare(
                temporary,
                exported,
                network.model,
                front_end,
                _some(recordings),
                is_real_audio=data_list is not None,
            )
        _require_parity(difference, precision, out)
    return ExportedModel(
        path=out,
        size_bytes=out.stat().st_size,
        state_bytes=4 * exported.state_size,
        num_parameters=description.num_parameters,
        delay_frames=description.look_ahead_frames,
        difference=difference,
        keywords=spotter.keywords,
    )


def require_calibration(precision: Precision, data_list: str | os.PathLike[str] | None) -> None:
    """Raise ConfigError for a precision that needs recordings where there are none."""
    if precision == "int8" and data_list is None:
        raise ConfigError("int8 is calibrated on recordings; give --data_list, best that of dev")


@contextlib.contextmanager
def _instead_of(temporary: Path, out: Path) -> Iterator[None]:
    """Name the file that a user asked for in errors about the temporary one."""
    try:
        yield
    except DataError as error:
        text = str(error).removeprefix(f"{temporary}: ")
        raise DataError(f"{out}: not written: {text}") from None


def _some(recordings: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return recordings[:: max(1, len(recordings) // _NUM_COMPARED)]


def compare(
    path: Path,
    exported: ExportLayout,
    model: KwsModel,
    front_end: FrontEnd,
    recordings: Sequence[np.ndarray],
    *,
    is_real_audio: bool,
) -> Difference:
    """Compare the outputs of an exported file with those of the checkpoint.

    Raises: DataError if no recording is long enough.
    """
    log_differences, differences = [], []
    for samples in recordings:
        expected = torch_log_probs(model, samples, front_end)
        first, found = exported.log_probs(path, samples)
        # WeKWS's runtimes do not bring out the last frames.
        expected = expected[first : first + len(found)]
        # The probabilities of layout wekws end near exp(-87), where float32 does.
        found, expected = np.maximum(found, LOWEST_LOG_PROB), np.maximum(expected, LOWEST_LOG_PROB)
        scale = np.maximum(np.abs(expected) / 10, 1)
        log_differences.append((np.abs(found - expected) / scale).ravel())
        differences.append(np.abs(np.exp(found) - np.exp(expected)).max(1, initial=0))
    difference = np.concatenate(differences)
    if len(difference) == 0:
        raise DataError("no recording is long enough to compare outputs; give longer ones")
    return Difference(
        max_log_prob=float(np.concatenate(log_differences).max()),
        mean_prob=float(difference.mean()),
        num_frames=len(difference),
        is_real_audio=is_real_audio,
    )


def _require_parity(difference: Difference, precision: Precision, out: Path) -> None:
    if difference.is_real_audio and difference.num_frames < MIN_COMPARED_FRAMES:
        raise DataError(
            f"{out}: not written: {difference.num_frames} frames of recordings were compared; "
            f"expected at least {MIN_COMPARED_FRAMES}; give more of them, or longer ones"
        )
    limit = MAX_MEAN_DIFFERENCE[precision]
    problem = ""
    if precision == "fp32" and not difference.max_log_prob <= MAX_LOG_PROB_DIFFERENCE:
        problem = f"a log-probability by {difference.max_log_prob:.2g}"
        problem += f"; expected at most {MAX_LOG_PROB_DIFFERENCE:g}"
    elif not difference.mean_prob <= limit:
        problem = f"probabilities by {difference.mean_prob:.2g} on average"
        problem += f"; expected at most {limit:g}"
    if problem:
        raise DataError(
            f"{out}: not written: the outputs of the {precision} export differ from those of the "
            f"checkpoint, {problem}"
        )


def summary_line(exported: ExportedModel) -> str:
    """Return what a user should know about an exported file."""
    difference = exported.difference
    source = "recordings" if difference.is_real_audio else "a synthesised signal"
    thresholds = "thresholds inside"
    if any(keyword.threshold is None for keyword in exported.keywords):
        thresholds = "no thresholds: choose them with wekws.bin.tune_threshold, then export again"
    return (
        f"{exported.path}: {exported.size_bytes:,} bytes, {exported.num_parameters:,} parameters, "
        f"state {exported.state_bytes:,} bytes, outputs late by {exported.delay_frames} frames; "
        f"against the checkpoint on {difference.num_frames:,} frames of {source}: largest "
        f"difference of a log-probability {difference.max_log_prob:.2g}, mean difference of "
        f"probabilities {difference.mean_prob:.2g}; {thresholds}"
    )
