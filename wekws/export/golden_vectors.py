"""Golden vectors of an exported model: one recording with every intermediate result.

Axes: N samples, T filterbank frames, F mel bins, U input frames, D features, K keywords, V tokens.

Files of a folder (``.f32`` files are little-endian float32, row by row, without a header):

    golden.json       names, shapes, thresholds, and the events
    samples.f32       (N,) the recording, -1 to 1
    fbank.f32         (T, F) log-mel filterbank
    frames.f32        (U, D) input frames: context expansion and frame skip
    log_probs.f32     (U, V) outputs of the model
    confidence.f32    (U, K) confidence of each keyword that ends at the frame
    start.i32         (U, K) its first frame, little-endian int32

Thresholds are half of the highest confidence of each keyword, so that every keyword with any
confidence is detected.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wekws.decode.duration import duration_frames
from wekws.decode.stream_search import StreamSearch
from wekws.export.export_audio import read_recordings, standard_signal
from wekws.files import atomic_path, write_json
from wekws.stream.front_end_stream import FilterBank, FrontEndStream
from wekws.stream.onnx_network import load_exported
from wekws.stream.spotter import KeywordSpotter

INFO_NAME = "golden.json"


def golden_recording(
    model_path: str | os.PathLike[str], data_list: str | os.PathLike[str] | None
) -> NDArray[np.float32]:
    """Return samples for golden vectors: the first recording that export takes from a list.

    data_list: None: a synthesised signal.
    """
    model = load_exported(model_path)
    if data_list is None:
        return standard_signal(model.front_end)
    words = [keyword.text for keyword in model.keywords]
    return read_recordings(data_list, words, model.front_end, number=1)[0]


def write_golden(
    model_path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    samples: NDArray[np.float32],
) -> Path:
    """Run an exported model on a recording and write every intermediate result.

    samples: (N,) at the model's rate, at least a window long.
    Returns: the path of ``golden.json``, which is written last.
    """
    out_dir, model = Path(out_dir), load_exported(model_path)
    front_end, network = model.front_end, model.network
    samples = np.ascontiguousarray(samples, np.float32)
    stream = FrontEndStream(front_end)
    frames = np.concatenate([*stream.accept(samples), stream.flush()])
    log_probs, state = network.step(frames, network.initial_state())
    log_probs = np.concatenate([log_probs, network.flush(state)])
    max_frames = [duration_frames(k.max_duration_s, front_end.hop_s) for k in model.keywords]
    search = StreamSearch(model.keyword_ids, max_frames=max_frames)
    confidence, start = search(log_probs)
    thresholds = {
        keyword.text: round(float(best) / 2, 6)
        for keyword, best in zip(model.keywords, confidence.max(axis=0), strict=True)
    }
    spotter = KeywordSpotter(model.with_thresholds(thresholds))
    events = spotter.accept(samples) + spotter.flush()
    arrays: dict[str, NDArray[Any]] = {
        "samples.f32": samples,
        "fbank.f32": FilterBank(front_end)(samples),
        "frames.f32": frames,
        "log_probs.f32": log_probs,
        "confidence.f32": confidence,
        "start.i32": start,
    }
    for name, values in arrays.items():
        kind = "<i4" if name.endswith(".i32") else "<f4"
        with atomic_path(out_dir / name) as temporary:
            temporary.write_bytes(values.astype(kind).tobytes())
    content = {
        "model": Path(model_path).name,
        "shapes": {name: list(values.shape) for name, values in arrays.items()},
        "keywords": [
            {
                **asdict(keyword),
                "ids": ids,
                "max_frames": limit,
                "threshold": thresholds[keyword.text],
            }
            for keyword, ids, limit in zip(
                model.keywords, model.keyword_ids, max_frames, strict=True
            )
        ],
        "refractory_s": model.refractory_s,
        "events": [asdict(event) for event in events],
    }
    write_json(out_dir / INFO_NAME, content)
    return out_dir / INFO_NAME
