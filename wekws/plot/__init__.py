"""Figures, drawn from result files or plain values."""
