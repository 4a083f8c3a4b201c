"""The parts of a detector: a network that runs on a stream, its keywords and their thresholds.

Axes: T frames, D input features, V vocabulary.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wekws.dataset.vocabulary import FILLER, Tokenizer, Vocabulary, normalise_keywords
from wekws.decode.duration import default_max_duration_s, duration_frames
from wekws.decode.path_code import MAX_LIMIT_FRAMES
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd

NetworkState = tuple[np.ndarray, ...]
"""State of a network between two pieces of a stream; never changed in place."""


class StreamingNetwork(Protocol):
    """A network that takes the frames of a stream piece by piece, in any number at a time.

    Row t of all log-probabilities belongs to input frame t, as in a whole recording. A network
    with look-ahead is late: the first ``look_ahead`` frames of a stream give no row, and ``flush``
    returns as many rows at the end.
    """

    @property
    def num_tokens(self) -> int:
        """Number of outputs, V."""
        ...

    @property
    def look_ahead(self) -> int:
        """Future input frames that a row depends on, >= 0."""
        ...

    @property
    def front_end(self) -> FrontEnd:
        """From samples to input frames."""
        ...

    def initial_state(self) -> NetworkState:
        """Return the state before the first frame of a stream."""
        ...

    def step(self, frames: np.ndarray, state: NetworkState) -> tuple[np.ndarray, NetworkState]:
        """Process the next frames of a stream.

        frames: (T, D) float32, T >= 1, after context expansion and frame skipping.
        Returns: log-probabilities (T', V) float32 and the next state. T' is T, less the frames
        within the look-ahead at the start of a stream.
        """
        ...

    def flush(self, state: NetworkState) -> np.ndarray:
        """Return the rows (T', V) that the end of the stream completes; T' may be 0."""
        ...


@dataclass(frozen=True, kw_only=True)
class Keyword:
    """A keyword with what its detection depends on."""

    text: str
    """The keyword in normalised form."""
    tokens: tuple[str, ...]
    """Its tokens, all in the vocabulary of the model, without blank and filler."""
    threshold: float | None
    """A detection is a confidence >= threshold, 0 to 1; None: not chosen yet."""
    min_duration_s: float = 0.0
    """Shortest time from the first to the last frame of the keyword, in seconds; 0: no limit."""
    max_duration_s: float = 0.0
    """Longest time from the first to the last frame of the keyword, in seconds; 0: no limit."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        where = f"keyword {self.text}"
        if not self.tokens:
            raise ConfigError(f"{where}: has no tokens")
        if self.threshold is not None:
            is_number = isinstance(self.threshold, numbers.Real)
            if not is_number or isinstance(self.threshold, bool) or not 0 <= self.threshold <= 1:
                raise ConfigError(f"{where}: threshold {self.threshold!r}; expected 0 to 1")
        for name in ("min_duration_s", "max_duration_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{where}: {name} {value}; expected seconds from 0 on")
        if 0 < self.max_duration_s < self.min_duration_s:
            raise ConfigError(
                f"{where}: min_duration_s {self.min_duration_s:g} is above max_duration_s "
                f"{self.max_duration_s:g}"
            )


def new_keyword(text: str, tokenizer: Tokenizer) -> Keyword:
    """Return a keyword with the longest duration that scoring gives it, and no threshold."""
    tokens = tuple(tokenizer.tokenise(text))
    longest_s = round(default_max_duration_s(tokens), 6)
    return Keyword(text=text, tokens=tokens, threshold=None, max_duration_s=longest_s)


@dataclass(frozen=True, kw_only=True)
class SpotterModel:
    """All that a `KeywordSpotter` needs: it can be stored in one file and run from it."""

    network: StreamingNetwork
    """From input frames to log-probabilities."""
    tokens: tuple[str, ...]
    """The vocabulary; the position of a token is its output. Token 0 is the blank."""
    keywords: tuple[Keyword, ...]
    """Keywords, one or more."""
    refractory_s: float = 1.0
    """Shortest time between two detections of one keyword, in seconds."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        Vocabulary(self.tokens).check_output_dim(self.network.num_tokens)
        if not self.keywords:
            raise ConfigError("a detector needs at least one keyword")
        names = [keyword.text for keyword in self.keywords]
        if len(set(names)) < len(names):
            raise ConfigError(f"keywords {', '.join(names)}: each may occur once")
        for keyword in self.keywords:
            _check_tokens(keyword.text, keyword.tokens, self.tokens)
            _longest_frames(keyword, self.front_end.hop_s)
        if not 0 <= self.refractory_s < math.inf:
            raise ConfigError(f"refractory_s: found {self.refractory_s}; expected >= 0 seconds")

    @property
    def front_end(self) -> FrontEnd:
        """From samples to the input frames of the network."""
        return self.network.front_end

    @property
    def keyword_ids(self) -> list[list[int]]:
        """Token ids of each keyword."""
        ids = {token: index for index, token in enumerate(self.tokens)}
        return [[ids[token] for token in keyword.tokens] for keyword in self.keywords]

    @property
    def max_frames(self) -> list[int] | None:
        """Longest duration of each keyword in input frames; None: no keyword has one."""
        if not any(keyword.max_duration_s for keyword in self.keywords):
            return None
        return [_longest_frames(keyword, self.front_end.hop_s) for keyword in self.keywords]

    def with_keywords(
        self, texts: Iterable[str], lexicon: str | os.PathLike[str] | None = None
    ) -> "SpotterModel":
        """Return a detector of other keywords; those that the model has stay as they are.

        The others get their tokens from the lexicon, if given, or from their letters, and no
        threshold: it has to be chosen on recordings of them.
        Raises: ConfigError naming the tokens that the model has no output for.
        """
        if isinstance(texts, str):
            raise ConfigError(f"keywords: found the text {texts!r}; expected a list, [{texts!r}]")
        known = {keyword.text: keyword for keyword in self.keywords}
        tokenizer = Tokenizer(lexicon)
        names = normalise_keywords(texts)
        chosen = tuple(known.get(text) or new_keyword(text, tokenizer) for text in names)
        return dataclasses.replace(self, keywords=chosen)

    def with_thresholds(self, thresholds: Mapping[str, float] | float) -> "SpotterModel":
        """Return the same detector with other thresholds, by keyword or one for all.

        Raises: ConfigError for a keyword that the model does not have, or a number out of range.
        """
        known = [keyword.text for keyword in self.keywords]
        if not isinstance(thresholds, Mapping):
            thresholds = dict.fromkeys(known, thresholds)
        if unknown := [name for name in thresholds if name not in known]:
            raise ConfigError(
                f"threshold of {unknown[0]}: no such keyword; the model has {', '.join(known)}"
            )
        changed = [
            dataclasses.replace(keyword, threshold=thresholds.get(keyword.text, keyword.threshold))
            for keyword in self.keywords
        ]
        return dataclasses.replace(self, keywords=tuple(changed))


def _longest_frames(keyword: Keyword, hop_s: float) -> int:
    """Return the longest duration of a keyword in input frames.

    Raises: ConfigError if it has more tokens than that, or the search cannot take it.
    """
    limit = MAX_LIMIT_FRAMES
    if keyword.max_duration_s:
        limit = duration_frames(keyword.max_duration_s, hop_s)
    if not len(keyword.tokens) <= limit <= MAX_LIMIT_FRAMES:
        raise ConfigError(
            f"keyword {keyword.text}: max_duration_s {keyword.max_duration_s:g} is {limit} "
            f"frames; expected {len(keyword.tokens)} (one per token) to {MAX_LIMIT_FRAMES}"
        )
    return limit


def _check_tokens(keyword: str, tokens: Sequence[str], vocabulary: Sequence[str]) -> None:
    known = set(vocabulary[FILLER + 1 :])
    if missing := list(dict.fromkeys(token for token in tokens if token not in known)):
        raise ConfigError(
            f"keyword {keyword}: the model has no output for {' '.join(missing)}; its "
            f"{len(known)} tokens are {' '.join(vocabulary[FILLER + 1 :][:40])}"
            + (" ..." if len(known) > 40 else "")
        )
