"""Feature teachers: frozen models of speech whose outputs are targets of training.

A feature teacher has a front end and a frame rate of its own: it maps audio to one embedding per
window. It is an ONNX model, or a chain of them, described by a small YAML file, or one of
``torchaudio.pipelines`` (HuBERT, wav2vec 2.0), whose weights torchaudio downloads.

Axes: N samples, K embeddings, D values per embedding.
"""

import hashlib
import importlib.util
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchaudio

from wekws.config import load_yaml_with_base, parse_section, to_mapping
from wekws.errors import ConfigError, DataError, did_you_mean
from wekws.files import file_sha256

_INT16_SCALE = 32768.0
_MAX_WINDOWS_PER_RUN = 64


@dataclass(frozen=True, kw_only=True)
class OnnxStage:
    """One model of a chain; the first takes samples, the others what the one before gives."""

    model: str
    """ONNX file, relative to the description; ``PACKAGE:PATH`` is a file of an installed Python
    package."""
    window: int = 0
    """Samples or frames that the model takes at a time, for one frame of output; 0: it takes the
    whole sequence and gives a sequence."""
    hop: int = 0
    """Samples or frames from one window to the next, >= 1 where there is a window."""
    scale: float = 1.0
    """Factor on the outputs."""
    offset: float = 0.0
    """Added to the outputs after ``scale``."""

    def __post_init__(self) -> None:
        """Refuse windows without a hop."""
        if self.window < 0 or (self.hop < 1) != (self.window == 0) or self.hop < 0:
            raise ConfigError(
                f"window {self.window}, hop {self.hop}: expected both >= 1, or both left out"
            )


@dataclass(frozen=True, kw_only=True)
class OnnxTeacherConfig:
    """The description of a feature teacher that is an ONNX model or a chain of them."""

    sample_rate_hz: int = 16000
    """Sample rate of its input; audio is resampled."""
    samples: Literal["float", "int16"] = "float"
    """Range of the samples: -1 to 1, or that of int16; the type is float in both cases."""
    window_ms: float
    """Audio that one embedding is computed from."""
    hop_ms: float
    """Time from one embedding to the next."""
    num_values: int
    """Numbers per embedding, D."""
    stages: tuple[OnnxStage, ...]
    """The models, in the order in which they run."""

    def __post_init__(self) -> None:
        """Refuse descriptions without a model or with an empty window."""
        if not self.stages:
            raise ConfigError("stages: expected at least one model")
        if self.sample_rate_hz <= 0 or self.num_values <= 0:
            raise ConfigError("sample_rate_hz and num_values: expected > 0")
        if not (self.window_ms > 0 and self.hop_ms > 0):
            raise ConfigError("window_ms and hop_ms: expected > 0")


class FeatureTeacher(ABC):
    """A frozen model that maps audio to embeddings.

    Embedding k is computed from the ``window_ms`` that begin at ``k * hop_ms``. Only windows that
    lie within the audio have one, so that no padding enters a target.
    """

    def __init__(
        self,
        name: str,
        *,
        sample_rate_hz: int,
        window_ms: float,
        hop_ms: float,
        num_values: int,
        fingerprint: str,
    ) -> None:
        """Set what is known of the model.

        name: for messages. sample_rate_hz: of its input. fingerprint: hash of the weights and of
        everything else that the embeddings depend on.
        """
        self.name = name
        self.sample_rate_hz = sample_rate_hz
        self.window_ms, self.hop_ms = window_ms, hop_ms
        self.num_values = num_values
        self.fingerprint = fingerprint

    def num_embeddings(self, num_samples: int) -> int:
        """Return the number of whole windows in so much audio."""
        window = round(self.window_ms * self.sample_rate_hz / 1000)
        hop = round(self.hop_ms * self.sample_rate_hz / 1000)
        return max(0, 1 + (num_samples - window) // hop)

    def embed(self, samples: np.ndarray) -> np.ndarray:
        """Return the embeddings of audio, (K, D) float32.

        samples: (N,) in [-1, 1] at ``sample_rate_hz``.
        Raises: DataError if the model's output has another shape than it should, or is not finite.
        """
        num = self.num_embeddings(len(samples))
        if num == 0:
            return np.empty((0, self.num_values), np.float32)
        embeddings = self._run(samples)
        if embeddings.shape != (num, self.num_values):
            raise DataError(
                f"{self.name}: {embeddings.shape[0]} embeddings of {embeddings.shape[1]} values "
                f"for {len(samples)} samples; expected {num} of {self.num_values} "
                f"(window {self.window_ms:g} ms, hop {self.hop_ms:g} ms)"
            )
        if not np.isfinite(embeddings).all():
            raise DataError(f"{self.name}: embeddings are not finite")
        return embeddings.astype(np.float32, copy=False)

    @abstractmethod
    def _run(self, samples: np.ndarray) -> np.ndarray:
        """Return the model's output for audio of at least one window, as (frames, values)."""

    def check(self) -> None:
        """Run the model on audio of a few windows.

        Raises: ConfigError if its output is not as described.
        """
        num_ms = self.window_ms + 3.5 * self.hop_ms
        num_samples = round(num_ms * self.sample_rate_hz / 1000)
        noise = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
        try:
            self.embed(0.1 * noise)
        except DataError as error:
            raise ConfigError(f"{error}; correct the description") from None


class OnnxTeacher(FeatureTeacher):
    """ONNX models that run one after another in onnxruntime, on one CPU thread."""

    def __init__(self, config: OnnxTeacherConfig, path: Path) -> None:
        """Load the models.

        path: the description.
        Raises: ConfigError if a model is missing or does not take what it is given.
        """
        self._config, self._path = config, path
        files = [find_model(stage.model, path) for stage in config.stages]
        settings = {**to_mapping(config), "stages": [_settings(stage) for stage in config.stages]}
        text = json.dumps([settings, *map(file_sha256, files)], sort_keys=True)
        super().__init__(
            str(path),
            sample_rate_hz=config.sample_rate_hz,
            window_ms=config.window_ms,
            hop_ms=config.hop_ms,
            num_values=config.num_values,
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        )
        self._sessions = [_open_session(file) for file in files]

    def _run(self, samples: np.ndarray) -> np.ndarray:
        scale = _INT16_SCALE if self._config.samples == "int16" else 1.0
        sequence = samples.astype(np.float32) * np.float32(scale)
        for stage, session in zip(self._config.stages, self._sessions, strict=True):
            if stage.window:
                output = self._run_windows(stage, session, sequence)
            else:
                output = self._run_session(stage, session, sequence[None])
                output = output.reshape(-1, output.shape[-1])
            sequence = output * np.float32(stage.scale) + np.float32(stage.offset)
        return sequence

    def _run_windows(self, stage: OnnxStage, session: Any, sequence: np.ndarray) -> np.ndarray:
        """Return one row of outputs per window of a sequence (items,) or (items, values)."""
        starts = range(0, len(sequence) - stage.window + 1, stage.hop)
        outputs = []
        for first in range(0, len(starts), _MAX_WINDOWS_PER_RUN):
            part = starts[first : first + _MAX_WINDOWS_PER_RUN]
            windows = np.stack([sequence[start : start + stage.window] for start in part])
            outputs.append(self._run_session(stage, session, windows).reshape(len(windows), -1))
        return np.concatenate(outputs)

    def _run_session(self, stage: OnnxStage, session: Any, array: np.ndarray) -> np.ndarray:
        """Run a model; axes of size 1 are appended until the input has the model's rank."""
        model_input = session.get_inputs()[0]
        array = array.reshape(*array.shape, *[1] * (len(model_input.shape) - array.ndim))
        try:
            return session.run(None, {model_input.name: array})[0]
        except Exception as error:  # onnxruntime's exceptions have no other common base
            raise DataError(
                f"{self._path}: {stage.model} does not take {array.shape}, it expects "
                f"{model_input.shape}: {error}"
            ) from None


def find_model(model: str, description: Path) -> Path:
    """Return the file of a model that a description names.

    Raises: ConfigError if the file or the Python package does not exist.
    """
    package, _, inner = model.rpartition(":")
    if not package:
        path = description.parent / model
        advice = "expected a path relative to the description"
    else:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise ConfigError(
                f"{description}: Python package {package} is not installed; see the comments there"
            )
        path = Path(found.submodule_search_locations[0]) / inner
        advice = f"expected it in the package {package}, perhaps in another version"
    if not path.is_file():
        raise ConfigError(f"{description}: {path}: no such file; {advice}")
    return path


def _settings(stage: OnnxStage) -> dict[str, Any]:
    """Return what a stage's outputs depend on besides its file, wherever that lies."""
    return {key: value for key, value in to_mapping(stage).items() if key != "model"}


def _open_session(path: Path) -> Any:
    try:
        import onnxruntime  # An optional extra; only this kind of teacher needs it.
    except ImportError:
        raise ConfigError(
            "onnxruntime is not installed, and a feature teacher of ONNX models needs it: "
            "pip install -e .[embedding]"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise ConfigError(f"{path}: not an ONNX model that onnxruntime can run: {error}") from None


class TorchaudioTeacher(FeatureTeacher):
    """A layer of a torchaudio ``Wav2Vec2Model`` (wav2vec 2.0, HuBERT, WavLM)."""

    def __init__(self, model: Any, name: str, *, sample_rate_hz: int, layer: int = 0) -> None:
        """Take a model that is loaded.

        layer: transformer layer whose output is taken, from 1; 0: the last.
        Raises: ConfigError if it has no such layer.
        """
        inner = getattr(model, "model", model)  # models that normalise their input are wrapped
        num_layers = len(inner.encoder.transformer.layers)
        self._layer = layer or num_layers
        if not 1 <= self._layer <= num_layers:
            raise ConfigError(f"{name}: layer {layer}; expected 1 to {num_layers}")
        self._model = model.eval().requires_grad_(False)
        # Window and hop of the convolutions; each transformer layer sees the whole utterance.
        window = hop = 1
        for block in inner.feature_extractor.conv_layers:
            window += (block.kernel_size - 1) * hop
            hop *= block.stride
        digest = hashlib.sha256(f"{self._layer}\0{sample_rate_hz}".encode())
        for key, value in model.state_dict().items():
            digest.update(key.encode())
            digest.update(value.contiguous().numpy().tobytes())
        super().__init__(
            name,
            sample_rate_hz=sample_rate_hz,
            window_ms=1000 * window / sample_rate_hz,
            hop_ms=1000 * hop / sample_rate_hz,
            num_values=inner.encoder.transformer.layers[0].final_layer_norm.normalized_shape[0],
            fingerprint=digest.hexdigest(),
        )

    @torch.inference_mode()
    def _run(self, samples: np.ndarray) -> np.ndarray:
        wave = torch.from_numpy(np.ascontiguousarray(samples))[None]
        layers, _ = self._model.extract_features(wave, num_layers=self._layer)
        return layers[-1][0].numpy()


def load_feature_teacher(name: str) -> FeatureTeacher:
    """Load a feature teacher and check it on a few windows of noise.

    name: YAML description of an ONNX teacher; or a bundle of ``torchaudio.pipelines`` such as
        ``HUBERT_BASE``, with the number of a layer behind a colon if it is not the last:
        ``HUBERT_BASE:9``.
    Raises: ConfigError if there is no such file or bundle, a model is missing, or its output is
    not as described.
    """
    teacher: FeatureTeacher
    if is_description(name):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"--feature_teacher {name}: no such file")
        config = parse_section(OnnxTeacherConfig, load_yaml_with_base(path), name)
        teacher = OnnxTeacher(config, path)
    else:
        teacher = _load_bundle(name)
    teacher.check()
    return teacher


def is_description(name: str | os.PathLike[str]) -> bool:
    """Return whether the name of a feature teacher is that of a file, not of a bundle."""
    return Path(name).suffix in (".yaml", ".yml")


def bundle_names() -> Sequence[str]:
    """Return the bundles of ``torchaudio.pipelines`` that can be feature teachers."""
    bundles = vars(torchaudio.pipelines)
    return sorted(name for name, bundle in bundles.items() if _is_speech_bundle(bundle))


def _is_speech_bundle(bundle: object) -> bool:
    return isinstance(bundle, torchaudio.pipelines.Wav2Vec2Bundle)


def _load_bundle(name: str) -> TorchaudioTeacher:
    bundle_name, _, layer = name.partition(":")
    bundle: Any = getattr(torchaudio.pipelines, bundle_name, None)
    if not _is_speech_bundle(bundle) or (layer and not layer.isdecimal()):
        raise ConfigError(
            f"--feature_teacher {name}: expected a YAML description, or a bundle of "
            f"torchaudio.pipelines, NAME or NAME:LAYER; NAME is one of {', '.join(bundle_names())}"
            f"{did_you_mean(bundle_name, bundle_names())}"
        )
    try:
        model = bundle.get_model()
    except OSError as error:  # URLError is one: no network, no such host
        raise ConfigError(
            f"--feature_teacher {name}: torchaudio cannot load the weights: {error}; copy the "
            f"file it downloads into {torch.hub.get_dir()}/checkpoints"
        ) from None
    return TorchaudioTeacher(model, name, sample_rate_hz=bundle.sample_rate, layer=int(layer or 0))
