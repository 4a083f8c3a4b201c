"""Distillation: loss terms, and how a student starts from a larger model."""
