"""Range of the seed of a training, without torch: options are checked before it is imported."""

MAX_SEED = 1 << 63
"""Seeds are below this number."""
