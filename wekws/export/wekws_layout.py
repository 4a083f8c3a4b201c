"""The ONNX graph that WeKWS's own runtimes load (C++, Android, Raspberry Pi).

Axes: T filterbank frames, F mel bins, U output frames, V tokens, P memory channels, L blocks,
C frames that a memory keeps.

Those runtimes know two inputs, ``input`` and ``cache``, two outputs, ``output`` and ``r_cache``,
and two numbers of metadata, ``cache_dim`` and ``cache_len``: the cache is (1, cache_dim, cache_len)
and zero at the start. They compute plain filterbank frames and pass them on as they come, so
context expansion and frame skipping are part of this graph: ``input`` is (1, T, F) for any T, and
``output`` (1, U, V) has probabilities (a softmax, as WeKWS exports a CTC model), one row per
``frame_skip`` frames. The cache holds the memories of the blocks side by side, P x C each, then
the last filterbank frames and their number.

As in WeKWS nothing is flushed and nothing is masked: row u of the output is row u - `delay_frames`
of ours. Away from the start (by L x C frames) they are equal; near it they differ slightly, because
the zeros before the start pass through WeKWS's layers.
Source: keyword_spotting.cc, feature_pipeline.h and export_onnx.py of WeKWS.
"""

import numpy as np
import onnx

from wekws.export.graph import TO_THE_END, GraphWriter, kept_frames, run_blocks, weights_of
from wekws.front_end import FrontEnd
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig


def cache_shape(sizes: FSMNConfig, front_end: FrontEnd) -> tuple[int, int]:
    """Return ``cache_dim`` and ``cache_len``."""
    num_front = _kept_fbank(front_end) * front_end.num_mel_bins + 1
    memories = sizes.num_layers * kept_frames(sizes)
    return sizes.proj_dim, memories + -(-num_front // sizes.proj_dim)


def wekws_graph(model: KwsModel, front_end: FrontEnd) -> onnx.ModelProto:
    """Return the graph for WeKWS's runtimes, without metadata."""
    sizes = model.config.backbone
    dim, length = cache_shape(sizes, front_end)
    kept = kept_frames(sizes)
    writer = GraphWriter(weights_of(model))
    caches = [
        writer.slice("cache", i * kept, (i + 1) * kept, 2, f"cache_{i}")
        for i in range(sizes.num_layers)
    ]
    front = writer.slice("cache", sizes.num_layers * kept, TO_THE_END, 2, "front_cache")
    frames, next_front = _input_frames(writer, front_end, front, dim)
    x = writer.normalise(frames, model)
    x, next_caches = run_blocks(writer, sizes, x, caches, masks=[], num_extra=1)
    x = writer.node("Softmax", [writer.head(x, sizes)], "probabilities", axis=-1)
    writer.slice(x, 0, -1, 1, "output")
    writer.node("Concat", [*next_caches, next_front], "r_cache", axis=2)
    return writer.model(
        inputs={"input": [1, "T", front_end.num_mel_bins], "cache": [1, dim, length]},
        outputs={"output": [1, "U", model.config.output_dim], "r_cache": [1, dim, length]},
    )


def _kept_fbank(front_end: FrontEnd) -> int:
    """Return the filterbank frames that later input frames may need."""
    return max(front_end.left_context + front_end.right_context, 1)


def _input_frames(
    writer: GraphWriter, front_end: FrontEnd, front: str, dim: int
) -> tuple[str, str]:
    """Write context expansion and frame skipping.

    front: (1, dim, columns) of the cache: the last filterbank frames, and how many there were.
    Returns: input frames (1, U + 1, D), of which the last one repeats others, because onnxruntime's
    convolutions take no empty input; and the next value of ``front``.
    """
    kept, mels = _kept_fbank(front_end), front_end.num_mel_bins
    skip, right = front_end.frame_skip, front_end.right_context
    num_values = kept * mels
    columns = -(-(num_values + 1) // dim)
    int64 = writer.constant

    flat = writer.node("Reshape", [front, int64("flat", [1, -1])], "front_flat")
    past = writer.slice(flat, 0, num_values, 1, "past_flat")
    past = writer.node("Reshape", [past, int64("past_shape", [1, kept, mels])], "past")
    count = writer.slice(flat, num_values, num_values + 1, 1, "count_float")
    count = writer.node("Reshape", [count, int64("one", [1])], "count_1")
    count = writer.node("Cast", [count], "count", to=onnx.TensorProto.INT64)
    # Before the first frame the first frame is repeated.
    first = writer.slice("input", 0, 1, 1, "first_frame")
    is_start = writer.node("Equal", [count, int64("zero", [0])], "is_start")
    past = writer.node("Where", [is_start, first, past], "past_or_first")
    window = writer.node("Concat", [past, "input"], "fbank_window", axis=1)

    # The first centre is the first multiple of skip whose right context was not complete before.
    # All terms are kept positive: ONNX rounds integer division towards zero.
    raised = writer.node(
        "Add", [count, int64("raise", [skip * (right + 1) - right + skip - 1])], "r"
    )
    groups = writer.node("Div", [raised, int64("skip", [skip])], "groups_raised")
    groups = writer.node("Sub", [groups, int64("lowered", [right + 1])], "groups")
    groups = writer.node("Max", [groups, "zero"], "groups_from_0")
    centre = writer.node("Mul", [groups, "skip"], "first_centre")
    place = writer.node("Sub", [centre, count], "place_relative")
    place = writer.node("Add", [place, int64("num_kept", [kept])], "first_place")
    shape = writer.node("Shape", [window], "window_shape")
    total = writer.slice(shape, 1, 2, 0, "window_length")
    limit = writer.node("Sub", [total, int64("right", [right])], "place_limit")
    scalar = writer.constant("scalar", np.zeros(0, np.int64))
    ends = [writer.node("Reshape", [x, scalar], f"{x}_scalar") for x in (place, limit, "skip")]
    places = writer.node("Range", ends, "places")
    places = writer.node(
        "Concat", [places, int64("extra", [front_end.left_context])], "all_places", axis=0
    )
    rows = writer.node("Unsqueeze", [places, "one"], "place_rows")
    offsets = list(range(-front_end.left_context, right + 1))
    index = writer.node("Add", [rows, int64("offsets", offsets)], "frame_index")
    frames = writer.node("Gather", [window, index], "contexts", axis=1)
    frames = writer.node(
        "Reshape", [frames, int64("frames_shape", [1, -1, front_end.input_dim])], "frames"
    )

    # The count goes on modulo skip, far enough from 0 that the start does not come back.
    period = skip * (right + 1)
    num_new = writer.slice(writer.node("Shape", ["input"], "input_shape"), 1, 2, 0, "num_new")
    seen = writer.node("Add", [count, num_new], "seen")
    beyond = writer.node("Sub", [seen, int64("period", [period])], "beyond")
    beyond = writer.node("Max", [beyond, "zero"], "beyond_from_0")
    beyond = writer.node("Mod", [beyond, "period"], "beyond_modulo")
    wrapped = writer.node("Add", [beyond, "period"], "wrapped")
    seen = writer.node("Min", [seen, wrapped], "next_count")
    seen = writer.node("Cast", [seen], "next_count_float", to=onnx.TensorProto.FLOAT)
    seen = writer.node("Reshape", [seen, int64("pair", [1, 1])], "next_count_2d")
    last = writer.slice(window, -kept, TO_THE_END, 1, "last_fbank")
    last = writer.node("Reshape", [last, "flat"], "last_flat")
    unused = np.zeros((1, columns * dim - num_values - 1), np.float32)
    parts = [last, seen, writer.constant("unused", unused)]
    merged = writer.node("Concat", parts, "next_front_flat", axis=1)
    return frames, writer.node(
        "Reshape", [merged, int64("front_shape", [1, dim, columns])], "next_front"
    )
