"""A path of the keyword search as one 64-bit integer: its score and its first frame.

`wekws.decode.keyword` explains scores. They lie in the upper bits, in steps of 2^-20 nats; the
lower bits hold the first frame, modulo 2^22. Everything here works without torch.
"""

from collections.abc import Sequence

START_BITS = 22  # 35 h of 30 ms frames; first frames are kept modulo this
FRACTION_BITS = 20
UNIT = 1 << (START_BITS + FRACTION_BITS)  # one nat
START_MASK = (1 << START_BITS) - 1
FLOOR_NATS = -1024.0  # smaller log probabilities count as this
UNREACHED = -(1 << 19) * UNIT  # twice this, less a few thousand nats, still fits 64 bits
NO_PATH = UNREACHED // 2  # smaller states are no complete path; as a confidence they are 0
MAX_LIMIT_FRAMES = 1000  # of a longest duration; more could leave 64 bits


def check_keywords(
    keyword_ids: Sequence[Sequence[int]], blank: int, max_frames: Sequence[int] | None
) -> None:
    """Check the keywords of a search.

    Raises: ValueError if there is no keyword, one is empty or holds the blank, or a limit is not
    between 1 and `MAX_LIMIT_FRAMES`.
    """
    if not keyword_ids or any(len(ids) == 0 for ids in keyword_ids):
        raise ValueError("keyword_ids: expected one or more keywords of one or more tokens")
    if any(token == blank or token < 0 for ids in keyword_ids for token in ids):
        raise ValueError(f"keyword_ids: {list(keyword_ids)} has the blank or a negative id")
    if max_frames is not None and (
        len(max_frames) != len(keyword_ids)
        or not all(1 <= limit <= MAX_LIMIT_FRAMES for limit in max_frames)
    ):
        raise ValueError(
            f"max_frames: found {list(max_frames)}; expected one number from 1 to "
            f"{MAX_LIMIT_FRAMES} for each of {len(keyword_ids)} keywords"
        )


def padded_keywords(keyword_ids: Sequence[Sequence[int]], blank: int) -> list[list[int]]:
    """Return the keywords with blanks at their ends, all as long as the longest."""
    longest = max(len(ids) for ids in keyword_ids)
    return [[*ids, *[blank] * (longest - len(ids))] for ids in keyword_ids]


def has_repeats(keyword_ids: Sequence[Sequence[int]]) -> bool:
    """Return whether a keyword has two equal tokens in a row, which need a blank between them."""
    return any(a == b for ids in keyword_ids for a, b in zip(ids, ids[1:], strict=False))
