"""The log of a training run: ``metrics.jsonl``, its writer, its reader and the health rules."""
