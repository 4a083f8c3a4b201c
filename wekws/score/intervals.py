"""95 % intervals of error rates: Wilson's for shares, exact Poisson for counts per time."""

import numpy as np

Z_95 = 1.959963984540054  # standard normal quantile of 0.975
TAIL = 0.025
UPPER_CONFIDENCE = 0.95
"""Confidence of one-sided upper limits."""


def wilson(
    misses: int | np.ndarray, num_trials: int | np.ndarray
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return the lower and upper end for a share; of a whole DET curve if given arrays.

    Raises: ValueError unless 0 <= misses <= num_trials and num_trials > 0.
    Source: Wilson 1927, JASA 22, 209; without continuity correction.
    """
    misses, trials = np.asarray(misses, dtype=float), np.asarray(num_trials, dtype=float)
    if not (np.all(trials > 0) and np.all(misses >= 0) and np.all(misses <= trials)):
        raise ValueError("wilson: expected 0 <= misses <= num_trials and num_trials > 0")
    share, weight = misses / trials, Z_95**2 / trials
    centre = share + weight / 2
    half = np.sqrt(weight * (share * (1 - share) + weight / 4))
    low = np.where(misses == 0, 0.0, (centre - half) / (1 + weight))
    high = np.where(misses == trials, 1.0, (centre + half) / (1 + weight))
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def poisson_exact(
    count: int | np.ndarray, hours: float
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Return the lower and upper end for a rate per hour, from a count of events in `hours`.

    Raises: ValueError unless count >= 0 and hours > 0.
    Source: Garwood 1936, Biometrika 28, 437: the rates at which this count or more (or
    fewer) has a probability of 2.5 %.
    """
    counts = np.asarray(count, dtype=float)
    if not (hours > 0 and np.all(counts >= 0)):
        raise ValueError("poisson_exact: expected count >= 0 and hours > 0")
    unique, position = np.unique(counts, return_inverse=True)
    low, high = (
        bound[position].reshape(counts.shape) / hours
        for bound in (
            np.where(unique == 0, 0.0, _gamma_quantile(np.maximum(unique, 1.0), TAIL)),
            _gamma_quantile(unique + 1.0, 1.0 - TAIL),
        )
    )
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def poisson_upper(
    count: int | np.ndarray, hours: float, confidence: float = UPPER_CONFIDENCE
) -> np.ndarray | float:
    """Return the upper limit of a rate per hour, from a count of events in `hours`.

    One-sided: the true rate lies above the limit in at most 1 - confidence of all sets. Of no
    event in 3 h it is 1 per hour (the rule of three).
    Raises: ValueError unless count >= 0, hours > 0 and 0 < confidence < 1.
    Source: Garwood 1936, Biometrika 28, 437.
    """
    counts = np.asarray(count, dtype=float)
    if not (hours > 0 and np.all(counts >= 0)):
        raise ValueError("poisson_upper: expected count >= 0 and hours > 0")
    weight = 1 / hours
    return weighted_poisson_upper(counts * weight, counts * weight**2, weight, confidence)


def weighted_poisson_upper(
    rate: float | np.ndarray,
    variance: float | np.ndarray,
    largest_weight: float,
    confidence: float = UPPER_CONFIDENCE,
) -> np.ndarray | float:
    """Return the upper limit of a weighted sum of Poisson counts.

    rate: sum of the weights of the events. variance: sum of their squares. largest_weight: that of
    any event that might have been observed. With equal weights the limit is exact, otherwise
    it is conservative in simulations.
    Raises: ValueError unless largest_weight > 0 and 0 < confidence < 1.
    Source: Fay and Feuer 1997, Statistics in Medicine 16, 791, equation 4.
    """
    if not (largest_weight > 0 and 0 < confidence < 1):
        raise ValueError("weighted_poisson_upper: expected a weight > 0 and 0 < confidence < 1")
    mean = np.asarray(rate, dtype=float) + largest_weight
    scale = (np.asarray(variance, dtype=float) + largest_weight**2) / mean
    high = np.asarray(_gamma_quantile(mean / scale, confidence) * scale)
    return float(high) if high.ndim == 0 else high


def _gamma_quantile(shape: float | np.ndarray, share: float) -> np.ndarray:
    """Return the quantiles of gamma distributions of scale 1."""
    # Imported here: a detector reads thresholds, and runs without scipy.
    from scipy.special import gammaincinv

    return np.asarray(gammaincinv(shape, share))
