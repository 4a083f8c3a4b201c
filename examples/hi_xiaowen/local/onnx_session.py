"""Sessions of onnxruntime that give the same numbers every time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wekws.errors import DataError

MISSING = "onnxruntime is not installed; Piper's and Kokoro's voices need it: pip install -e .[{}]"


def open_session(path: Path, seed: Sequence[int]) -> Any:
    """Load a network on one thread; random numbers inside it start from the seed.

    Sums over several threads differ from run to run.
    Raises: DataError if onnxruntime is missing or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DataError(MISSING.format("piper")) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    onnxruntime.set_seed(int(np.random.default_rng(list(seed)).integers(2**31)))
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has no base class of its own for these
        raise DataError(f"{path}: onnxruntime cannot load it ({error})") from error
