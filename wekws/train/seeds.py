"""What the seed of a training may be."""

MAX_SEED = 1 << 63
"""Seeds are below this number."""
