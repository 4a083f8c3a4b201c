"""Scores of a dataset and what they say: error rates, operating points, summaries."""
