"""Keyword search in posteriors: exact scorer, prefix beam search, events."""
