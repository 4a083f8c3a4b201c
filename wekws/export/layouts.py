"""The two forms of an exported file, and how each of them is run.

Axes: N samples, T input frames, V tokens.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from wekws.dataset.features import fbank
from wekws.export.export_audio import input_frames
from wekws.export.graph import delay_frames, kept_frames, stream_graph
from wekws.export.precision import Feed
from wekws.export.wekws_layout import cache_shape, wekws_graph
from wekws.front_end import FrontEnd
from wekws.model.cost import state_size
from wekws.model.model import KwsModel
from wekws.stream.metadata import Description
from wekws.stream.onnx_network import OnnxNetwork, open_session

_CHUNKS = (1, 7, 2, 40, 3, 1, 100)  # frames per call, in turn


class ExportLayout(Protocol):
    """A form of an exported file."""

    state_size: int
    """Float32 numbers of state per stream."""

    def graph(self) -> onnx.ModelProto:
        """Return the float32 graph of the model."""
        ...

    def metadata(self, description: Description) -> dict[str, str]:
        """Return the texts that the file stores."""
        ...

    def feed(self, samples: NDArray[np.float32]) -> Feed:
        """Return the inputs of the graph for a recording (N,)."""
        ...

    def log_probs(self, path: Path, samples: NDArray[np.float32]) -> tuple[int, NDArray]:
        """Run a file on a recording (N,), in chunks as a stream does.

        Returns: the number of an input frame, and the rows (T', V) from this frame on that must be
        those of the model.
        """
        ...


class StreamLayout:
    """Our own form: `wekws.export.graph.stream_graph` and a description of the detector."""

    def __init__(self, model: KwsModel, front_end: FrontEnd) -> None:
        """Take the model to export."""
        self._model, self._front_end = model, front_end
        self.state_size = state_size(model.config.backbone)

    def graph(self) -> onnx.ModelProto:
        """Return the float32 graph of the model."""
        return stream_graph(self._model)

    def metadata(self, description: Description) -> dict[str, str]:
        """Return the description."""
        return description.to_texts()

    def feed(self, samples: NDArray[np.float32]) -> Feed:
        """Return the inputs of the graph for a recording (N,)."""
        frames = input_frames(samples, self._front_end)[None]
        return {
            "frames": frames,
            "valid": np.ones(frames.shape[:2], np.float32),
            "state": np.zeros((1, self.state_size), np.float32),
        }

    def log_probs(self, path: Path, samples: NDArray[np.float32]) -> tuple[int, NDArray]:
        """Run a file as a detector does, end included."""
        network = OnnxNetwork(path)
        state, rows = network.initial_state(), []
        for chunk in _chunks(input_frames(samples, self._front_end)):
            out, state = network.step(chunk, state)
            rows.append(out)
        return 0, np.concatenate([*rows, network.flush(state)])


class WekwsLayout:
    """The form of WeKWS's runtimes: `wekws.export.wekws_layout.wekws_graph`."""

    def __init__(self, model: KwsModel, front_end: FrontEnd) -> None:
        """Take the model to export."""
        self._model, self._front_end = model, front_end
        self._cache_shape = cache_shape(model.config.backbone, front_end)
        self.state_size = self._cache_shape[0] * self._cache_shape[1]

    def graph(self) -> onnx.ModelProto:
        """Return the float32 graph of the model."""
        return wekws_graph(self._model, self._front_end)

    def metadata(self, description: Description) -> dict[str, str]:
        """Return the two numbers that the runtimes read, and the description for readers.

        Without ``format``: a detector of this project does not take the file.
        """
        texts = description.to_texts()
        del texts["format"]
        dim, length = self._cache_shape
        return {"cache_dim": str(dim), "cache_len": str(length), **texts}

    def feed(self, samples: NDArray[np.float32]) -> Feed:
        """Return the inputs of the graph for a recording (N,)."""
        return {
            "input": fbank(samples, self._front_end).numpy()[None],
            "cache": np.zeros((1, *self._cache_shape), np.float32),
        }

    def log_probs(self, path: Path, samples: NDArray[np.float32]) -> tuple[int, NDArray]:
        """Run a file as WeKWS's runtimes do, on a signal before which a start has passed by."""
        session = open_session(path)
        feed = self.feed(samples)
        cache, rows = feed["cache"], []
        for chunk in _chunks(feed["input"][0]):
            out, cache = session.run(["output", "r_cache"], {"input": chunk[None], "cache": cache})
            rows.append(out[0])
        sizes = self._model.config.backbone
        first = sizes.num_layers * kept_frames(sizes)
        probabilities = np.concatenate(rows)[delay_frames(sizes) + first :]
        return first, np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _chunks(frames: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the frames in chunks of different lengths."""
    ends, number = [0], 0
    while ends[-1] < len(frames):
        ends.append(ends[-1] + _CHUNKS[number % len(_CHUNKS)])
        number += 1
    return [frames[a:b] for a, b in zip(ends, ends[1:], strict=False)]


@torch.inference_mode()
def torch_log_probs(
    model: KwsModel, samples: NDArray[np.float32], front_end: FrontEnd
) -> NDArray[np.float32]:
    """Return the log-probabilities (T, V) of a model for a whole recording (N,)."""
    frames = torch.from_numpy(input_frames(samples, front_end))
    return model(frames[None])[0].log_softmax(-1).numpy()
