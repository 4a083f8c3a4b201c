"""Keyword search in posteriors: the exact scorer, a prefix beam search, and their events."""
