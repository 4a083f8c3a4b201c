"""Audio files as mono float32 samples, with a clear error for every file that cannot be used.

All formats that libsndfile reads are accepted (WAV of any sample format, FLAC, Ogg, ...), with
any number of channels and all usual sample rates. libsndfile does not report a truncated WAV (it
takes the length of the file) or a truncated Ogg (it stops at the last whole page), so both are
checked here.
"""

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

from wekws.dataset.resample import Resampler
from wekws.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""Names of files that are taken for recordings when a folder is searched."""

AudioDefect = Literal["missing", "empty", "truncated", "unreadable", "unsupported_rate"]

_MIN_SAMPLE_RATE_HZ = 4000
_MAX_SAMPLE_RATE_HZ = 384_000
# The resampling filter has about source x target / gcd^2 values: 70,560 from 44100 to 16000 Hz, but
# 7e8 from 44101 to 16000 Hz, which needs more than 20 GB to compute.
_MAX_FILTER_VALUES = 1 << 23
# A writer that streams cannot go back to the header; it leaves a size near 2 or 4 GiB there.
_STREAMED_WAV_BYTES = 0x7FFFF000
_MAX_OGG_PAGE_BYTES = 65307
_OGG_END_OF_STREAM = 4
_UNKNOWN_NUM_FRAMES = 2**62


class AudioError(DataError):
    """An audio file that cannot be used: the kind of defect and what was found."""

    def __init__(
        self, path: str | os.PathLike[str], kind: AudioDefect, found: str, advice: str
    ) -> None:
        """Pass all arguments on: pickle needs them to send the exception to another process."""
        super().__init__(path, kind, found, advice)
        self.kind = kind
        self.found = found

    def __str__(self) -> str:
        """Return one line: file, what was found, what to do."""
        path, _, found, advice = self.args
        return f"{path}: {found}; {advice}"


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """The header of an audio file."""

    sample_rate_hz: int
    """Sample rate of the file."""
    num_channels: int
    """Number of channels, >= 1."""
    num_frames: int
    """Samples per channel, > 0."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.sample_rate_hz

    def conversion(self, sample_rate_hz: int) -> str:
        """Describe how ``read_audio`` makes mono at ``sample_rate_hz``; empty if unchanged."""
        steps = []
        if self.num_channels > 1:
            steps.append(f"mixed down from {self.num_channels} channels")
        if self.sample_rate_hz != sample_rate_hz:
            steps.append(f"resampled from {self.sample_rate_hz} Hz")
        return ", ".join(steps)


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Read a header and check that the file has the length it states; no sample is decoded.

    Raises: AudioError.
    """
    with _open(path) as stream:
        return _info(stream)


def read_audio(path: str | os.PathLike[str], sample_rate_hz: int) -> np.ndarray:
    """Return the samples of a file, (N,) float32 in [-1, 1], mono, at ``sample_rate_hz``.

    Channels are averaged, other rates are resampled (windowed sinc).
    Raises: AudioError for a file that is missing, empty, truncated or unreadable, or whose sample
    rate is not supported.
    """
    return np.concatenate([*read_pieces(path, sample_rate_hz, piece_s=math.inf)])


def read_pieces(
    path: str | os.PathLike[str], sample_rate_hz: int, *, piece_s: float = 10.0
) -> Iterator[np.ndarray]:
    """Yield the samples of `read_audio` piece by piece, so that long recordings need no memory.

    piece_s: audio in a piece, in seconds. Raises: as `read_audio`; where a file decodes to less
    than its header says, the error comes after the pieces before it.
    """
    with _open(path) as stream:
        yield from _pieces(stream, path, sample_rate_hz, piece_s)


def read_part(
    path: str | os.PathLike[str], sample_rate_hz: int, num_samples: int, start: float
) -> np.ndarray:
    """Return that many samples of a file, or all of a shorter one; nothing else is decoded.

    start: where the part lies, from 0, at the beginning, to 1, at the end.
    Returns: (at most num_samples,) as `read_audio`. Raises: as `read_audio`.
    """
    with _open(path) as stream:
        info = _info(stream)
        num = min(info.num_frames, math.ceil(num_samples * info.sample_rate_hz / sample_rate_hz))
        begin = int(start * (info.num_frames - num))
        resampler = _resampler(info, path, sample_rate_hz)
        try:
            stream.seek(begin)
        except soundfile.LibsndfileError as error:
            found = f"sample {begin} is not found: {error.error_string}"
            raise AudioError(path, "unreadable", found, "replace it") from None
        part = resampler(_read_mono(stream, path, num, begin, info))
        return np.concatenate([part, resampler.flush()])[:num_samples]


def audio_from_bytes(content: bytes, name: str, sample_rate_hz: int) -> np.ndarray:
    """Return what `read_audio` would of a file with this content.

    name: the file's, for messages. Raises: AudioError.
    """
    try:
        stream = soundfile.SoundFile(io.BytesIO(content))
    except soundfile.LibsndfileError as error:
        found = error.error_string.rstrip(".")
        raise AudioError(name, "unreadable", found, "write the shards again") from None
    with stream:
        return np.concatenate([*_pieces(stream, name, sample_rate_hz, math.inf)])


def _pieces(
    stream: soundfile.SoundFile, path: str | os.PathLike[str], sample_rate_hz: int, piece_s: float
) -> Iterator[np.ndarray]:
    info = _info(stream)
    resampler = _resampler(info, path, sample_rate_hz)
    for piece in _mono_pieces(stream, path, info, piece_s):
        yield resampler(piece)
    yield resampler.flush()


def _resampler(info: AudioInfo, path: str | os.PathLike[str], sample_rate_hz: int) -> Resampler:
    if found := unsupported_rate(info.sample_rate_hz, sample_rate_hz):
        raise AudioError(path, "unsupported_rate", found, f"convert it to {sample_rate_hz} Hz")
    return Resampler(info.sample_rate_hz, sample_rate_hz)


def decode_pieces(path: str | os.PathLike[str], *, piece_s: float = 10.0) -> Iterator[np.ndarray]:
    """Yield all samples of a file piece by piece, (N,) float32 mono at the file's own rate.

    Raises: as `read_pieces`.
    """
    with _open(path) as stream:
        info = _info(stream)
        yield from _mono_pieces(stream, path, info, piece_s)


def _mono_pieces(
    stream: soundfile.SoundFile, path: str | os.PathLike[str], info: AudioInfo, piece_s: float
) -> Iterator[np.ndarray]:
    piece = int(min(info.num_frames, max(1, piece_s * info.sample_rate_hz)))
    for begin in range(0, info.num_frames, piece):
        yield _read_mono(stream, path, min(piece, info.num_frames - begin), begin, info)


def _read_mono(
    stream: soundfile.SoundFile,
    path: str | os.PathLike[str],
    num: int,
    begin: int,
    info: AudioInfo,
) -> np.ndarray:
    """Read the next samples of a file, channels averaged."""
    try:
        samples = stream.read(num, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        found = f"decoding failed: {error.error_string}"
        raise AudioError(path, "unreadable", found, "replace it") from None
    if len(samples) < num:
        found = f"{begin + len(samples)} of {info.num_frames} samples decode"
        raise AudioError(path, "truncated", found, "copy the file again")
    mono = samples[:, 0] if info.num_channels == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(path, "unreadable", "NaN or infinite samples", "replace it")
    return mono


def unsupported_rate(source_rate_hz: int, target_rate_hz: int) -> str:
    """Describe why audio cannot be resampled from one rate to another; empty if it can.

    Refused are implausible rates, and ratios whose filter would need too much memory.
    """
    if source_rate_hz == target_rate_hz:
        return ""
    if not _MIN_SAMPLE_RATE_HZ <= source_rate_hz <= _MAX_SAMPLE_RATE_HZ:
        return (
            f"sample rate {source_rate_hz} Hz is not between {_MIN_SAMPLE_RATE_HZ} and"
            f" {_MAX_SAMPLE_RATE_HZ} Hz"
        )
    divisor = math.gcd(source_rate_hz, target_rate_hz)
    if source_rate_hz // divisor * (target_rate_hz // divisor) > _MAX_FILTER_VALUES:
        return f"sample rate {source_rate_hz} Hz has no simple ratio to {target_rate_hz} Hz"
    return ""


def _info(stream: soundfile.SoundFile) -> AudioInfo:
    return AudioInfo(
        sample_rate_hz=stream.samplerate, num_channels=stream.channels, num_frames=stream.frames
    )


def _open(path: str | os.PathLike[str]) -> soundfile.SoundFile:
    """Open a file after checking that it exists, has samples and is not truncated."""
    path = Path(path)
    if path.name.endswith("|"):
        raise AudioError(path, "missing", "a command, not a file", "run it and list its output")
    try:
        if not path.is_file():
            raise _missing(path)
        if path.stat().st_size == 0:
            raise AudioError(path, "empty", "0 bytes", "record it again or remove it")
        if found := _truncation(path):
            raise AudioError(path, "truncated", found, "copy the file again")
    except OSError as error:
        raise AudioError(path, "unreadable", str(error), "check its permissions") from None
    try:
        stream = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        found = error.error_string.rstrip(".")
        raise AudioError(path, "unreadable", found, "expected WAV, FLAC or Ogg") from None
    if 0 < stream.frames < _UNKNOWN_NUM_FRAMES:
        return stream
    stream.close()
    if stream.frames:
        raise AudioError(path, "unreadable", "no length in the header", "write the file again")
    raise AudioError(path, "empty", "no samples", "record it again or remove it")


def _missing(path: Path) -> AudioError:
    if path.exists():
        found, advice = "not a regular file", "name an audio file; wekws-spot reads pipes as -"
        return AudioError(path, "missing", found, advice)
    return AudioError(path, "missing", "no such file", "correct the path")


def _truncation(path: Path) -> str:
    """Describe how a WAV or Ogg file is cut off; empty if it is whole or of another format."""
    with open(path, "rb") as stream:
        start = stream.read(12)
        num_bytes = os.fstat(stream.fileno()).st_size
        if start[:4] == b"RIFF" and start[8:] == b"WAVE":
            return _wav_truncation(stream, num_bytes)
        if start[:4] == b"OggS":
            stream.seek(max(0, num_bytes - _MAX_OGG_PAGE_BYTES))
            return _ogg_truncation(stream.read())
    return ""


def _wav_truncation(stream: BinaryIO, num_bytes: int) -> str:
    """Compare the size in a WAV's data chunk with the bytes that follow it."""
    while len(header := stream.read(8)) == 8:
        size = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            present = num_bytes - stream.tell()
            is_cut = present < size < _STREAMED_WAV_BYTES
            return f"{present} of {size} bytes of samples" if is_cut else ""
        stream.seek(size + size % 2, os.SEEK_CUR)
    return "ends inside the header"


def _ogg_truncation(tail: bytes) -> str:
    """Check that the last page of an Ogg file is whole and ends the stream (RFC 3533)."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    num_segments = page[26] if len(page) > 26 else 256
    body = sum(page[27 : 27 + num_segments])
    if len(page) < 27 + num_segments + body:
        return "ends inside a page"
    return "" if page[5] & _OGG_END_OF_STREAM else "ends before the end of the stream"


def audio_files(folder: str) -> list[Path]:
    """Return the recordings below a folder, sorted.

    Raises: DataError if there is none.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise DataError(
            f"{folder}: no {', '.join(AUDIO_SUFFIXES)} file; expected recordings of noise or rooms"
        )
    return paths
