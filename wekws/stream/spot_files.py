"""Recordings for a detector: files and folders, read in pieces."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from wekws.dataset.audio import AUDIO_SUFFIXES, AudioError, read_pieces
from wekws.errors import DataError
from wekws.stream.spotter import Detection, KeywordSpotter

FILE_FRAMES_PER_STEP = 10
"""Input frames at a time for recordings, where no one waits. ``benchmarks/detector_cost.py``
compares its CPU time with that of 1."""


def spot_pieces(
    spotter: KeywordSpotter,
    pieces: Iterable[np.ndarray],
    on_piece: Callable[[np.ndarray], None] | None = None,
) -> Iterator[Detection]:
    """Yield the detections of one stream as they are decided, from its first to its last sample.

    pieces: see `KeywordSpotter.accept`. on_piece: called with each piece that has been processed.
    """
    spotter.reset()
    for piece in pieces:
        yield from spotter.accept(piece)
        if on_piece is not None:
            on_piece(piece)
    yield from spotter.flush()


def spot_file(
    spotter: KeywordSpotter,
    path: str | os.PathLike[str],
    on_piece: Callable[[np.ndarray], None] | None = None,
) -> Iterator[Detection]:
    """Yield the detections of an audio file of any length, format and sample rate.

    Raises: DataError naming it if it cannot be used; for one that turns out to be damaged further
    on, after the detections before that.
    """
    pieces = read_pieces(path, spotter.model.front_end.sample_rate_hz)
    try:
        yield from spot_pieces(spotter, pieces, on_piece)
    except AudioError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def recordings_in(path: str | os.PathLike[str]) -> list[Path]:
    """Return the audio files below a folder, sorted, or the file itself.

    Raises: DataError if there is no such path, or no audio file in the folder.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    names = (p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    found = sorted(p for p in names if not p.is_dir())
    if not found:
        raise DataError(f"{path}: no audio file in it; expected {', '.join(AUDIO_SUFFIXES)}")
    return found
