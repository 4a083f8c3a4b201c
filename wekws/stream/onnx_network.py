"""Exported networks: an ONNX file in onnxruntime, without torch.

Axes: B recordings, T frames, D input features, V vocabulary, S numbers of state.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from wekws.errors import ConfigError, DataError
from wekws.front_end import FrontEnd
from wekws.stream.metadata import Description, read_description
from wekws.stream.network import NetworkState, SpotterModel
from wekws.stream.threshold_file import read_thresholds

ONNX_SUFFIX = ".onnx"
_INPUTS, _OUTPUTS = {"frames": 3, "valid": 2, "state": 2}, {"log_probs": 3, "next_state": 2}
_MAX_STATE = 2**18  # a student's state is about 2,100 numbers, a teacher's below 10,000
# How every protobuf message spells the key of a tensor's external data: its length, then its text.
# The last byte of the length is 8, or 0 where a writer spelt 8 in more bytes than it needs.
_EXTERNAL_DATA = re.compile(rb"[\x00\x08]location")
_MAX_FRAMES_AT_ONCE = 4096  # longer recordings go through the network in pieces


class OnnxNetwork:
    """The network of an exported file; a `StreamingNetwork`, and a scorer of whole batches."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Load a file that `wekws.bin.export_onnx` wrote, on one CPU thread.

        Raises: DataError if it is damaged, is another model, or contradicts its own description;
        ConfigError if onnxruntime is not installed.
        """
        self.path = Path(path)
        self._session = open_session(self.path)
        try:
            self.description = read_description(self._session.get_modelmeta().custom_metadata_map)
            self._state_size, self.num_tokens = self._check_shapes()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: a text inside is not UTF-8 ({error.reason}); the file is damaged, "
                "copy or export it again"
            ) from None
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        self._check_outputs()

    description: Description
    """Description of the detector inside the file."""
    num_tokens: int
    """Number of outputs, V."""

    @property
    def look_ahead(self) -> int:
        """Future input frames that a row depends on."""
        return self.description.look_ahead_frames

    @property
    def front_end(self) -> FrontEnd:
        """From samples to input frames."""
        return self.description.front_end

    @property
    def state_size(self) -> int:
        """Float32 numbers of state per recording, S."""
        return self._state_size

    def initial_state(self) -> NetworkState:
        """Return the state before the first frame: the network's, and the rows still to drop."""
        return np.zeros((1, self._state_size), np.float32), np.array(self.look_ahead)

    def step(self, frames: np.ndarray, state: NetworkState) -> tuple[np.ndarray, NetworkState]:
        """Process the next frames (T, D), T >= 1; see `StreamingNetwork.step`."""
        inner, to_drop = state
        valid = np.ones((1, len(frames)), np.float32)
        log_probs, inner = self._run(frames[None], valid, inner)
        dropped = min(int(to_drop), len(frames))
        return log_probs[0, dropped:], (inner, to_drop - dropped)

    def flush(self, state: NetworkState) -> np.ndarray:
        """Return the rows that the end of the stream completes."""
        inner, to_drop = state
        if to_drop == self.look_ahead:
            return np.zeros((0, self.num_tokens), np.float32)
        padding = np.zeros((1, self.look_ahead, self.front_end.input_dim), np.float32)
        log_probs, _ = self._run(padding, padding[:, :, 0], inner)
        return log_probs[0, int(to_drop) :]

    def log_probs(self, frames: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the log-probabilities of whole recordings.

        frames: (B, T, D), padding may hold anything finite. lengths: (B,) valid frames.
        Returns: (B, T, V); padding has no meaning.
        """
        batch, num_frames = frames.shape[:2]
        total = num_frames + self.look_ahead
        valid = (np.arange(total) < lengths[:, None]).astype(np.float32)
        padding = np.zeros((batch, self.look_ahead, frames.shape[2]), np.float32)
        state = np.zeros((batch, self._state_size), np.float32)
        rows = []
        for first in range(0, total, _MAX_FRAMES_AT_ONCE):
            part = frames[:, first : first + _MAX_FRAMES_AT_ONCE]
            missing = min(_MAX_FRAMES_AT_ONCE, total - first) - part.shape[1]
            part = np.concatenate([part, padding[:, :missing]], axis=1)
            out, state = self._run(part, valid[:, first : first + part.shape[1]], state)
            rows.append(out)
        return np.concatenate(rows, axis=1)[:, self.look_ahead :]

    def _run(
        self, frames: np.ndarray, valid: np.ndarray, state: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        feed = {"frames": frames, "valid": valid, "state": state}
        try:
            log_probs, next_state = self._session.run(list(_OUTPUTS), feed)
        except Exception as error:  # onnxruntime's exceptions have no other common base
            raise DataError(f"{self.path}: the network does not run: {one_line(error)}") from None
        return log_probs, next_state

    def _check_shapes(self) -> tuple[int, int]:
        """Return the numbers of state and of outputs; check inputs and outputs of the graph."""
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        for expected, found in ((_INPUTS, inputs), (_OUTPUTS, outputs)):
            ranks = {name: len(value.shape) for name, value in found.items()}
            if ranks != expected or any(v.type != "tensor(float)" for v in found.values()):
                names = _printable(", ".join(sorted(found)))
                raise DataError(
                    f"inputs or outputs are {names}; expected float32 "
                    f"{', '.join(expected)} (--layout wekws is for WeKWS's runtimes)"
                )
        input_dim, state_size = inputs["frames"].shape[2], inputs["state"].shape[1]
        num_tokens = outputs["log_probs"].shape[2]
        if input_dim != self.front_end.input_dim:
            raise DataError(
                f"takes {input_dim!r} features; the front end has {self.front_end.input_dim}"
            )
        if not isinstance(state_size, int) or not 0 < state_size <= _MAX_STATE:
            raise DataError(f"state of {state_size!r} numbers; expected 1 to {_MAX_STATE}")
        if not isinstance(num_tokens, int) or num_tokens < len(self.description.tokens):
            raise DataError(
                f"has {num_tokens!r} outputs for {len(self.description.tokens)} tokens; expected "
                "one for each"
            )
        return state_size, num_tokens

    def _check_outputs(self) -> None:
        """Run the network on a frame of zeros."""
        frames = np.zeros((1, 1, self.front_end.input_dim), np.float32)
        state = np.zeros((1, self._state_size), np.float32)
        log_probs, next_state = self._run(frames, np.ones((1, 1), np.float32), state)
        if log_probs.shape != (1, 1, self.num_tokens) or next_state.shape != state.shape:
            raise DataError(
                f"{self.path}: gives outputs of {log_probs.shape} and a state of "
                f"{next_state.shape}; expected {(1, 1, self.num_tokens)} and {state.shape}"
            )
        if not np.isfinite(log_probs).all():
            raise DataError(f"{self.path}: outputs are not finite; is the file damaged?")


def open_session(path: Path) -> Any:
    """Open an ONNX file in onnxruntime, on one CPU thread.

    Raises: DataError if it is missing, is no ONNX model or refers to other files; ConfigError if
    onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(
            "onnxruntime is not installed, and exported models need it: pip install onnxruntime"
        ) from None
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an exported model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # The other format that onnxruntime reads is not searched for external data below.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    content = path.read_bytes()
    if _EXTERNAL_DATA.search(content):
        raise DataError(
            f"{path}: has weights in other files (external data); "
            "expected one file that holds all: export it again"
        )
    try:
        # The fallback would print to standard output, and do the same again.
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise DataError(
            f"{path}: not a model that onnxruntime can run: {one_line(error)}"
        ) from None


def load_exported(path: str | os.PathLike[str]) -> SpotterModel:
    """Return the detector of an exported file, with the keywords and thresholds inside it.

    Thresholds that `wekws.bin.tune_threshold` wrote for this very file, beside it, count first.
    Raises: as `OnnxNetwork`; DataError if thresholds beside it are those of another file.
    """
    network = OnnxNetwork(path)
    description, chosen = network.description, read_thresholds(path)
    try:
        model = SpotterModel(
            network=network,
            tokens=description.tokens,
            keywords=description.keywords,
            refractory_s=description.refractory_s,
        )
    except (ConfigError, DataError) as error:
        raise DataError(f"{path}: {error}") from None
    known = [keyword.text for keyword in model.keywords]
    return model.with_thresholds({text: chosen[text] for text in known if text in chosen})


def one_line(error: Exception) -> str:
    """Return the first line of a message, without the codes at its start."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return _printable(text[0].rpartition("] : ")[2])


def _printable(text: str) -> str:
    """Return the start of a text of a file, safe to show on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])
