"""Scoring a dataset: confidences, error rates, operating points, intervals, summaries."""
