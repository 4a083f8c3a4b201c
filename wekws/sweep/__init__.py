"""Grids of runs: plans of an ablation, presets, and the time that a step takes."""
