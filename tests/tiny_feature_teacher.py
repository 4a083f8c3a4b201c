"""A feature teacher of two small ONNX models, with the exact answer known."""

from pathlib import Path

import numpy as np
import yaml

WINDOW_MS, HOP_MS, NUM_VALUES = 115, 40, 6


def write_feature_teacher(folder: Path) -> Path:
    """Write two ONNX models and their description; return its path.

    The first gives, every 160 samples, the mean |x| of 400 samples on the int16 scale, in 3 copies.
    The second takes windows of 10 such frames every 4 (90 + 25 = 115 ms, 40 ms) of shape
    (1, 10, 3, 1) and gives 6 values: the mean of the window, times 1 to 6.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def save(name, nodes, taken, given, tensors):
        values = [numpy_helper.from_array(np.asarray(t), n) for n, t in tensors.items()]
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            name,
            [info("input", TensorProto.FLOAT, taken)],
            [info("output", TensorProto.FLOAT, given)],
            values,
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / name)

    node = helper.make_node
    save(
        "frames.onnx",
        [
            node("Abs", ["input"], ["size"]),
            node("Unsqueeze", ["size", "one"], ["channel"]),
            node("Conv", ["channel", "kernel"], ["frames"], strides=[160]),
            node("Transpose", ["frames"], ["output"], perm=[0, 2, 1]),
        ],
        ["batch", "samples"],
        ["batch", "time", 3],
        {"one": np.array([1]), "kernel": np.full((3, 1, 400), 1 / 400, np.float32)},
    )
    save(
        "windows.onnx",
        [
            node("Flatten", ["input"], ["flat"]),
            node("MatMul", ["flat", "matrix"], ["output"]),
        ],
        ["batch", 10, 3, 1],
        ["batch", NUM_VALUES],
        {"matrix": np.tile(np.arange(1, 7, dtype=np.float32) / 30, (30, 1))},
    )
    description = {
        "sample_rate_hz": 16000,
        "samples": "int16",
        "window_ms": WINDOW_MS,
        "hop_ms": HOP_MS,
        "num_values": NUM_VALUES,
        "stages": [
            {"model": "frames.onnx", "scale": 0.5, "offset": 1.0},
            {"model": "windows.onnx", "window": 10, "hop": 4},
        ],
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(description))
    return path
