"""A detector with random weights, and audio for it."""

import numpy as np
import pytest
from small_detector import detector


@pytest.fixture(scope="session")
def model():
    return detector()


@pytest.fixture(scope="session")
def audio():
    """4 s of noise and tones that change every 100 ms, float32."""
    rng = np.random.default_rng(0)
    times = np.arange(1600) / 16000
    tones = [np.sin(2 * np.pi * rng.uniform(200, 4000) * times) for _ in range(40)]
    levels = 10 ** rng.uniform(-3, -0.5, 40)
    noise = 10 ** rng.uniform(-4, -2, 40)
    parts = [
        level * tone + floor * rng.standard_normal(1600)
        for level, tone, floor in zip(levels, tones, noise, strict=True)
    ]
    return np.concatenate(parts).astype(np.float32)
