"""The acoustic model: CMVN, FSMN, checkpoints, head folding, computational cost."""
