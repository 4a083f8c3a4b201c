"""Description of a detector inside an exported model file, as texts by name.

    format               1
    precision            fp32 | fp16 | int8: of the weights
    look_ahead_frames    input frames by which the outputs are late
    front_end            JSON: the fields of `FrontEnd`
    tokens               JSON: the vocabulary; the position of a token is its output, 0 is the blank
    keywords             JSON: for each keyword the fields of `Keyword`
    refractory_s         JSON: shortest time between two detections of one keyword, in seconds
    num_parameters       JSON: trainable parameters of the exported network
    macs_per_second      JSON: multiply-accumulates of the network per second of audio
    fingerprints         JSON: {checkpoint, checkpoint_sha256, vocabulary}

A file can come from anywhere: everything read here is checked, and a problem ends in one message.
"""

import dataclasses
import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from wekws.errors import ConfigError, DataError
from wekws.front_end import FrontEnd
from wekws.stream.front_end_stream import check_front_end
from wekws.stream.network import Keyword

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FORMAT = "1"
MAX_CHARACTERS = 2**24  # of one text; a vocabulary of 100,000 tokens has 2 million
MAX_SECONDS = 60.0  # of a duration or a refractory time
MAX_LOOK_AHEAD = 10_000
MAX_COUNT = 10**15  # of parameters, or of operations per second
MAX_FRONT_END = 1_000_000  # of any number; the front end has a range for each


@dataclass(frozen=True, kw_only=True)
class Description:
    """Description of a detector inside an exported file."""

    precision: Precision
    """Format of the weights."""
    look_ahead_frames: int
    """Input frames by which the outputs are late."""
    front_end: FrontEnd
    """From samples to input frames."""
    tokens: tuple[str, ...]
    """The vocabulary."""
    keywords: tuple[Keyword, ...]
    """Keywords with their thresholds."""
    refractory_s: float
    """Shortest time between two detections of one keyword, in seconds."""
    num_parameters: int
    """Trainable parameters of the exported network."""
    macs_per_second: int
    """Multiply-accumulates of the network per second of audio."""
    fingerprints: Mapping[str, str]
    """The checkpoint, its SHA-256, and the fingerprint of the vocabulary."""

    def to_texts(self) -> dict[str, str]:
        """Return the texts that a file stores."""
        values = {
            "front_end": dataclasses.asdict(self.front_end),
            "tokens": list(self.tokens),
            "keywords": [dataclasses.asdict(keyword) for keyword in self.keywords],
            "refractory_s": self.refractory_s,
            "num_parameters": self.num_parameters,
            "macs_per_second": self.macs_per_second,
            "fingerprints": dict(self.fingerprints),
        }
        texts = {"format": FORMAT, "precision": self.precision}
        texts["look_ahead_frames"] = str(self.look_ahead_frames)
        return texts | {
            name: json.dumps(value, ensure_ascii=False, allow_nan=False)
            for name, value in values.items()
        }


def read_description(texts: Mapping[str, str]) -> Description:
    """Return what the texts of a file say.

    Raises: DataError naming the text that is missing or cannot be used.
    """
    found = texts.get("format")
    if found is None:
        raise DataError("has no description of a detector; export it with wekws.bin.export_onnx")
    if found != FORMAT:
        raise DataError(f"format {found[:20]!r}; expected {FORMAT}; export the model again")
    keywords = tuple(_keyword(value) for value in _json(texts, "keywords", list))
    fingerprints = _json(texts, "fingerprints", dict)
    tokens = _json(texts, "tokens", list)
    for text in tokens:
        _require_plain(text, "tokens")
    for text in [*fingerprints, *fingerprints.values()]:
        _require_plain(text, "fingerprints")
    return Description(
        precision=_precision(_text(texts, "precision")),
        look_ahead_frames=_count(texts, "look_ahead_frames", MAX_LOOK_AHEAD),
        front_end=_front_end(_json(texts, "front_end", dict)),
        tokens=tuple(tokens),
        keywords=keywords,
        refractory_s=_number(_value(texts, "refractory_s"), "refractory_s", 0, MAX_SECONDS),
        num_parameters=_count(texts, "num_parameters", MAX_COUNT),
        macs_per_second=_count(texts, "macs_per_second", MAX_COUNT),
        fingerprints=fingerprints,
    )


def _text(texts: Mapping[str, str], name: str) -> str:
    text = texts.get(name)
    if text is None:
        raise DataError(f"{name}: missing from the description; export the model again")
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"{name}: {len(text)} characters; expected at most {MAX_CHARACTERS}")
    return text


def _value(texts: Mapping[str, str], name: str) -> Any:
    text = _text(texts, name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not readable as JSON: {str(error)[:100]}") from None


def _json(texts: Mapping[str, str], name: str, kind: type) -> Any:
    value = _value(texts, name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{name}: found {_short(value)}; expected a JSON {kind.__name__}")
    return value


def _precision(text: str) -> Precision:
    for precision in PRECISIONS:
        if text == precision:
            return precision
    raise DataError(f"precision: found {_short(text)}; expected {', '.join(PRECISIONS)}")


def _require_plain(text: object, name: str) -> None:
    """Refuse what is no text, or cannot be printed or would control a terminal."""
    if not isinstance(text, str):
        raise DataError(f"{name}: found {_short(text)}; expected texts")
    # Control characters, halves of a character, and breaks of lines and paragraphs.
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        raise DataError(f"{name}: found {_short(text)}; expected texts that can be printed")


def _count(texts: Mapping[str, str], name: str, high: int) -> int:
    """Return a whole number from 0 on."""
    return int(_number(_json(texts, name, int), name, 0, high))


def _number(value: object, name: str, low: float, high: float) -> float:
    """Return a number of a range, NaN excluded."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise DataError(f"{name}: found {_short(value)}; expected a number from {low} to {high}")
    return value  # type: ignore[return-value]


def _front_end(values: Mapping[str, Any]) -> FrontEnd:
    kinds = {field.name: field.type for field in dataclasses.fields(FrontEnd)}
    values = {"expected_dither": 0.0, **values}  # absent from earlier files
    if values.keys() != kinds.keys():
        raise DataError(f"front_end: found {_short(list(values))}; expected {', '.join(kinds)}")
    for name, kind in kinds.items():
        _number(values[name], f"front_end.{name}", 0, MAX_FRONT_END)
        if kind is int and not isinstance(values[name], int):
            raise DataError(f"front_end.{name}: found {values[name]}; expected a whole number")
    front_end = FrontEnd(**values)
    try:
        check_front_end(front_end)
    except ConfigError as error:
        raise DataError(str(error)) from None
    return front_end


def _keyword(values: Any) -> Keyword:
    names = [field.name for field in dataclasses.fields(Keyword)]
    if not isinstance(values, dict) or values.keys() != set(names):
        raise DataError(f"keywords: found {_short(values)}; expected objects of {', '.join(names)}")
    text, tokens, threshold = values["text"], values["tokens"], values["threshold"]
    if not isinstance(text, str) or not isinstance(tokens, list):
        raise DataError(f"keywords: found {_short(values)}; expected a text and a list of tokens")
    if not text.strip():
        raise DataError(f"keywords: found the text {text[:40]!r}; expected one that is not empty")
    for part in [text, *tokens]:
        _require_plain(part, "keywords")
    if threshold is not None:
        _number(threshold, f"threshold of {text[:40]}", 0, 1)
    for name in ("min_duration_s", "max_duration_s"):
        _number(values[name], f"{name} of {text[:40]}", 0, MAX_SECONDS)
    try:
        return Keyword(**{**values, "tokens": tuple(tokens)})
    except ConfigError as error:
        raise DataError(str(error)) from None


def _short(value: object) -> str:
    """Return a value as a text of one short line."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
