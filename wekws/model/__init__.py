"""The acoustic model: CMVN, FSMN, checkpoints, and what they cost."""
