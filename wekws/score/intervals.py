"""95 % intervals of error rates: Wilson's for shares, exact Poisson for counts per time."""

import numpy as np
import torch

Z_95 = 1.959963984540054  # standard normal quantile of 0.975
TAIL = 0.025


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
        bound.numpy()[position].reshape(counts.shape) / hours
        for bound in _garwood(torch.from_numpy(unique))
    )
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def _garwood(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the expected counts at both ends of the interval, (N,) float64 each."""
    low = _gamma_quantile(counts.clamp(min=1.0), TAIL)
    return torch.where(counts == 0, 0.0, low), _gamma_quantile(counts + 1.0, 1.0 - TAIL)


def _gamma_quantile(shape: torch.Tensor, share: float) -> torch.Tensor:
    """Return x with P(shape, x) = share, by bisection of the incomplete gamma function."""
    low = torch.zeros_like(shape)
    high = shape + 10.0 * shape.sqrt() + 10.0
    for _ in range(60):  # halvings: to the last bits of a double
        middle = (low + high) / 2
        is_below = torch.special.gammainc(shape, middle) < share
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (low + high) / 2
