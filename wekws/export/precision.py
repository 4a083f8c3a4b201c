"""Formats of the weights of an exported graph: float16, and int8 with int8 arithmetic.

int8: static quantisation after training. Weights are signed, with a scale per output channel;
activations are unsigned, with a scale and zero point per tensor from the smallest and largest
value on calibration recordings. Weights use 7 of their 8 bits: with all 8, processors without
VNNI (AVX2) overflow in silence.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from wekws.errors import DataError
from wekws.files import named_in_errors
from wekws.model.cmvn import CMVN_KEYS

Feed = Mapping[str, NDArray[np.float32]]
"""Inputs of a graph by name."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with float16 weights, which are converted to float32 when it is loaded.

    CMVN stays float32. Arithmetic, inputs, outputs and state stay float32.
    Raises: DataError if a weight is beyond the range of float16.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, casts = result.graph, []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT or constant.name in CMVN_KEYS:
            continue
        name, value = constant.name, numpy_helper.to_array(constant)
        if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
            raise DataError(f"{name}: {np.abs(value).max():g} is beyond float16; export as fp32")
        constant.CopyFrom(numpy_helper.from_array(value.astype(np.float16), f"{name}.fp16"))
        casts.append(
            helper.make_node(
                "Cast", [f"{name}.fp16"], [name], name=f"{name}.cast", to=TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(result)
    return result


def to_int8(model: onnx.ModelProto, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """Return the graph with int8 weights and arithmetic; state and outputs stay float32.

    feeds: inputs of the graph for calibration, one or more.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        named_in_errors(folder),
        _without_warnings(),
    ):
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            str(path),
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


class _Feeds(CalibrationDataReader):
    """Hands out the calibration inputs one by one."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence onnxruntime's advice to optimise the graph first, which this one does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
