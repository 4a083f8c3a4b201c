"""The detector: front end, network and keyword search on a stream.

Only the network of a checkpoint needs torch; it is imported when one is loaded.
"""

from wekws.stream.load import load_model
from wekws.stream.network import Keyword, SpotterModel, StreamingNetwork
from wekws.stream.spotter import Detection, KeywordSpotter, StreamFrames

__all__ = [
    "Detection",
    "Keyword",
    "KeywordSpotter",
    "SpotterModel",
    "StreamFrames",
    "StreamingNetwork",
    "load_model",
]
