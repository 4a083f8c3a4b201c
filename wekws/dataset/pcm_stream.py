"""Audio from a pipe: raw 16-bit PCM, or a WAV whose end is not known yet."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from wekws.dataset.audio import unsupported_rate
from wekws.dataset.resample import Resampler
from wekws.errors import DataError

_PIECE_BYTES = 1 << 16
_MAX_FORMAT_BYTES = 1 << 12
_MAX_CHANNELS = 64
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# A writer that streams cannot go back to the header; it leaves a size near 2 or 4 GiB there.
_STREAMED_BYTES = 0x7FFFF000
# First bytes of formats that would be noise if they were taken for raw PCM.
_OTHER_FORMATS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"RF64": "RF64",
    b"RIFF": "RIFF, but not as a WAV",
}


@dataclass(frozen=True, kw_only=True)
class _Format:
    """Layout of the samples in a stream."""

    sample_rate_hz: int
    num_channels: int
    is_float: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.num_channels * (4 if self.is_float else 2)

    def decode(self, data: bytes) -> np.ndarray:
        """Return (N,) float32 in [-1, 1], channels averaged; data: whole frames."""
        if self.is_float:
            samples = np.frombuffer(data, "<f4")
        else:
            samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        return samples.reshape(-1, self.num_channels).mean(axis=1, dtype=np.float32)


def read_pcm(stream: BinaryIO, sample_rate_hz: int, raw_rate_hz: int) -> Iterator[np.ndarray]:
    """Yield the samples of a stream as they arrive, (N,) float32 at ``sample_rate_hz``.

    stream: WAV of 16-bit PCM or 32-bit float with any number of channels, or raw 16-bit PCM,
    little-endian, of one channel at ``raw_rate_hz``.
    Raises: DataError for another format (FLAC, Ogg, MP3 and RF64 are recognised), a header that is
    cut off, and at the end for a WAV that is shorter than its header says.
    """
    start = stream.read(12)
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        layout, num_bytes = _read_header(stream)
        start = b""
    else:
        _refuse_other_formats(start)
        layout = _Format(sample_rate_hz=raw_rate_hz, num_channels=1, is_float=False)
        num_bytes = None
    if found := unsupported_rate(layout.sample_rate_hz, sample_rate_hz):
        raise DataError(f"stream: {found}; convert it to {sample_rate_hz} Hz")
    resampler = Resampler(layout.sample_rate_hz, sample_rate_hz)
    for data in _whole_frames(stream, start, layout.frame_bytes, num_bytes):
        yield resampler(layout.decode(data))
    yield resampler.flush()


def _refuse_other_formats(start: bytes) -> None:
    for mark, name in _OTHER_FORMATS.items():
        if start.startswith(mark):
            raise DataError(
                f"stream: starts as {name}; expected a WAV or raw 16-bit PCM; convert it: "
                "ffmpeg -i FILE -f wav - | ..."
            )


def _whole_frames(
    stream: BinaryIO, waiting: bytes, frame_bytes: int, num_bytes: int | None
) -> Iterator[bytes]:
    """Yield the bytes of whole frames as they arrive; num_bytes: None: until the stream ends."""
    # Pipes are read as far as they are filled; other streams have no such method.
    read = getattr(stream, "read1", stream.read)
    total = len(waiting)
    while num_bytes is None or total < num_bytes:
        whole = len(waiting) // frame_bytes * frame_bytes
        if whole:
            yield waiting[:whole]
            waiting = waiting[whole:]
        wanted = _PIECE_BYTES if num_bytes is None else min(_PIECE_BYTES, num_bytes - total)
        if not (data := read(wanted)):
            break
        total += len(data)
        waiting += data
    if whole := len(waiting) // frame_bytes * frame_bytes:
        yield waiting[:whole]
    if total < frame_bytes:
        raise DataError("stream: no samples; expected raw 16-bit PCM or a WAV")
    if num_bytes is not None and total < num_bytes:
        raise DataError(f"stream: ends after {total} of {num_bytes} bytes of samples")


def _read_header(stream: BinaryIO) -> tuple[_Format, int | None]:
    """Read a WAV's header up to its samples; return their layout and size, None if unknown."""
    layout = None
    while len(header := stream.read(8)) == 8:
        name, size = header[:4], int.from_bytes(header[4:], "little")
        if name == b"data":
            if layout is None:
                raise DataError("stream: a WAV without `fmt ` before its samples; write it again")
            return layout, size if 0 < size < _STREAMED_BYTES else None
        if name == b"fmt " and 16 <= size <= _MAX_FORMAT_BYTES:
            layout = _layout(stream.read(size + size % 2))
            continue
        left = size + size % 2
        while left and (data := stream.read(min(left, _PIECE_BYTES))):
            left -= len(data)
    raise DataError("stream: a WAV that ends inside its header")


def _layout(data: bytes) -> _Format:
    if len(data) < 16:
        raise DataError("stream: a WAV that ends inside its header")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", data[:16])
    if kind == _EXTENSIBLE and len(data) >= 26:
        kind = int.from_bytes(data[24:26], "little")
    if (kind, bits) not in ((_PCM, 16), (_FLOAT, 32)):
        raise DataError(
            f"stream: a WAV of format {kind} with {bits} bits; expected 16-bit PCM or 32-bit float"
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise DataError(f"stream: {channels} channels; expected 1 to {_MAX_CHANNELS}")
    return _Format(sample_rate_hz=rate, num_channels=channels, is_float=kind == _FLOAT)
