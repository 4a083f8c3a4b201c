"""Export: ONNX graphs for streams, quantisation, parity, golden vectors."""

from wekws.errors import ConfigError

try:
    import onnx as onnx
    import onnxruntime as onnxruntime
except ImportError as error:
    raise ConfigError(
        f"{error.name} is not installed, and the export needs it: pip install -e .[export]"
    ) from None
