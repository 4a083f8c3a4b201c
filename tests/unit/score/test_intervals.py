"""Intervals against published tables and the definitions they invert."""

import math

import numpy as np
import pytest

from wekws.score.intervals import poisson_exact, wilson


@pytest.mark.parametrize(
    ("count", "low", "high"),  # Garwood's table, as in Pearson and Hartley
    [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904)],
)
def test_poisson_table(count, low, high):
    assert poisson_exact(count, 1.0) == pytest.approx((low, high), abs=1e-4)
    assert poisson_exact(count, 4.0) == pytest.approx((low / 4, high / 4), abs=1e-4)


def test_poisson_inverts_the_tails():
    low, high = poisson_exact(7, 1.0)
    term = lambda mean, k: math.exp(-mean) * mean**k / math.factorial(k)  # noqa: E731
    assert sum(term(high, k) for k in range(8)) == pytest.approx(0.025)
    assert 1 - sum(term(low, k) for k in range(7)) == pytest.approx(0.025)


def test_poisson_of_arrays_and_large_counts():
    counts = np.array([[3, 0], [100000, 3]])
    low, high = poisson_exact(counts, 2.0)
    assert low.shape == high.shape == (2, 2)
    assert (low[0, 0], high[0, 0]) == poisson_exact(3, 2.0)
    assert low[1, 0] == pytest.approx((1e5 - 1.96 * 1e5**0.5) / 2, rel=1e-4)


def test_wilson_by_hand():
    # 1 of 10, z^2 = 3.84146: centre (0.1 + 0.192073) / 1.384146, half width
    # sqrt(0.384146 * (0.09 + 0.0960365)) / 1.384146
    assert wilson(1, 10) == pytest.approx((0.017876, 0.404150), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert wilson(10, 10)[1] == 1.0


def test_wilson_of_a_curve():
    low, high = wilson(np.array([0, 1, 10]), 10)
    assert (low[1], high[1]) == wilson(1, 10)
    assert (low <= [0, 0.1, 1]).all() and ([0, 0.1, 1] <= high).all()


@pytest.mark.parametrize(("misses", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_nonsense(misses, trials):
    with pytest.raises(ValueError, match="wilson"):
        wilson(misses, trials)


def test_poisson_refuses_nonsense():
    with pytest.raises(ValueError, match="poisson"):
        poisson_exact(1, 0.0)
