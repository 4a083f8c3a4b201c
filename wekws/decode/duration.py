"""Longest duration of a keyword, from the first to the last frame of its path."""

import math
import unicodedata
from collections.abc import Sequence
from typing import Literal

from wekws.errors import ConfigError

MaxDuration = float | Literal["auto"]
"""Seconds for every keyword, 0 for no limit, or the rule `default_max_duration_s`."""

# Measured as the time between first and last sound (within 25 dB of the loudest, pauses of up to
# 0.4 s joined) on 2,300 recordings of 28 words by about 150 people, some of them with noise or
# further words around. Longest 2 % of the recordings:
#   5 letters ALEXA 1.85 s, 6 JARVIS 0.94, AMELIA 1.50, 8 COMPUTER 0.99, 9 VIEW GLASS 1.24,
#   11 SMART MIRROR 1.26, 13 HEY CHATTERBOX 1.43; two Mandarin characters 1.19 to 1.79.
# The rule gives 1.8, 1.9, 1.9, 2.1, 2.2, 2.4, 2.6 and 1.9 s.
BASE_S = 1.3
LETTER_S = 0.1
UNIT_S = 0.3  # of a token that is no single letter: a character, a syllable, a word piece


def default_max_duration_s(tokens: Sequence[str]) -> float:
    """Return the longest duration of a keyword in seconds, from its tokens.

    It is `BASE_S` and, for each token, `LETTER_S` or `UNIT_S`.
    """
    return BASE_S + sum(LETTER_S if _is_letter(token) else UNIT_S for token in tokens)


def _is_letter(token: str) -> bool:
    """Return whether a token is one letter of an alphabet, digits and apostrophes included."""
    return len(token) == 1 and unicodedata.category(token) != "Lo"


def duration_frames(duration_s: float, hop_s: float) -> int:
    """Return the frames of a longest duration, at least 1; first and last frame are counted."""
    return max(1, round(duration_s / hop_s))


def max_duration_from_text(text: str) -> MaxDuration:
    """Return the option `--max_duration_s`.

    Raises: ConfigError if it is neither ``auto`` nor a number of seconds from 0 on.
    """
    if text == "auto":
        return "auto"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(
            f"--max_duration_s: found {text!r}; expected auto, seconds, or 0 for no limit"
        )
    return seconds
