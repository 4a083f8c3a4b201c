"""Training: the loop, its checkpoints, averaging and processes."""
