"""Error rates and thresholds against counting by hand and by loop."""

import numpy as np
import pytest

from wekws.errors import ConfigError, DataError
from wekws.score.det import (
    Budget,
    budget_from_label,
    budgets_from_text,
    det_points,
    write_stats,
)
from wekws.score.thresholds import as_they_are, choose_threshold


def operating_point(scores, hours, budget):
    """Return the threshold of rule `count`."""
    return choose_threshold(as_they_are(scores, hours), budget, "count").threshold


def test_by_hand():
    points = det_points(np.array([0.9, 0.4, -1.0]), np.array([0.4, 0.2, 0.2, 0.0]), 2.0)
    assert points.thresholds.tolist() == [0.0, 0.2, 0.4, 0.9, 1.0]
    assert points.false_alarms.tolist() == [4, 3, 1, 0, 0]
    assert points.misses.tolist() == [1, 1, 1, 2, 3]  # the rejected one is missed even at 0
    assert points.fa_per_hour.tolist() == [2.0, 1.5, 0.5, 0.0, 0.0]
    assert points.frr[-1] == 1.0


def test_exact_at_every_threshold():
    generator = np.random.default_rng(0)
    positives = generator.beta(5, 2, 300).round(2)
    negatives = generator.beta(1, 4, 900).round(2)
    points = det_points(positives, negatives, 3.0, extra_thresholds=[0.123456])
    assert 0.123456 in points.thresholds
    for i, threshold in enumerate(points.thresholds):
        assert points.false_alarms[i] == sum(negatives >= threshold)
        assert points.misses[i] == sum(positives < threshold)


def test_the_last_threshold_is_above_every_score():
    points = det_points(np.array([1.0, 0.5]), np.array([1.0]), 1.0)
    assert points.thresholds[-1] > 1.0
    assert points.false_alarms[-1] == 0 and points.misses[-1] == 2
    assert 1.0 in points.thresholds


def test_no_false_alarm_at_all_stays_none():
    points = det_points(np.array([0.5]), np.array([]), 1.0)
    assert not points.false_alarms.any()


def test_degenerate_sets():
    with pytest.raises(DataError, match="no positives: FRR needs utterances"):
        det_points(np.array([]), np.array([0.1]), 1.0)
    with pytest.raises(DataError, match="no negatives"):
        det_points(np.array([0.1]), np.array([]), 0.0)
    with pytest.raises(DataError, match="no negatives"):
        operating_point(np.array([]), 0.0, Budget(1.0))


@pytest.mark.parametrize(
    ("per_hour", "hours", "allowed"),
    [(0.5, 1.0, 0), (0.5, 2.0, 1), (1.0, 3.7, 3), (0.1, 30.0, 3), (None, 0.1, 1), (0.0, 9.0, 0)],
)
def test_budget_counts(per_hour, hours, allowed):
    assert Budget(per_hour).allowed(hours) == allowed


@pytest.mark.parametrize("per_hour", [0.0, 0.5, 1.0, 2.0, None])
def test_lowest_threshold_within_the_budget(per_hour):
    negatives = np.array([0.9, 0.31, 0.31, 0.2, 0.1, 0.0])
    budget, hours = Budget(per_hour), 2.0
    threshold = operating_point(negatives, hours, budget)
    assert (negatives >= threshold).sum() <= budget.allowed(hours)
    just_below = np.nextafter(threshold, 0) - 2e-6
    assert (negatives >= just_below).sum() > budget.allowed(hours)


def test_threshold_does_not_wait_for_the_next_score():
    # one of the two equal 0.31 would break the budget of one; the next score, 0.9, is far off
    assert operating_point(np.array([0.9, 0.31, 0.31]), 1.0, Budget(1.0)) == 0.310001


def test_threshold_at_the_edges():
    assert operating_point(np.array([0.4]), 1.0, Budget(1.0)) == 0.0
    assert operating_point(np.array([1.0, 1.0]), 1.0, Budget(0.0)) > 1.0
    assert 0 < operating_point(np.array([0.0, 0.0]), 1.0, Budget(1.0)) < 1e-6
    assert operating_point(np.array([9.99999e-3]), 1.0, Budget(0.0)) == 0.01
    assert operating_point(np.array([0.12345678]), 1.0, Budget(0.0)) == 0.123457


def test_budgets_from_text():
    labels = [budget.label for budget in budgets_from_text("0.5,1")]
    assert labels == ["0.5/h", "1/h"]
    assert [budget_from_label(label) for label in (*labels, "1 in all")] == [
        *(Budget(0.5), Budget(1.0), Budget(None))
    ]
    for text in ("a", "1,1", "-1", "inf"):
        with pytest.raises(ConfigError, match="budgets: found"):
            budgets_from_text(text)


def test_stats_file(tmp_path):
    path = tmp_path / "stats.A.txt"
    write_stats(path, det_points(np.array([0.9, 1.0]), np.array([0.123456, 1e-9]), 2.0))
    rows = [line.split() for line in path.read_text().splitlines()]
    assert rows[0] == ["0", "1.000000", "0.000000"]
    assert [row[0] for row in rows] == ["0", "1e-09", "0.123456", "0.9", "1", "1.000001"]
    assert rows[-1][1:] == ["0.000000", "1.000000"]
