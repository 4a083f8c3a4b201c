"""Thresholds by the upper limit: tables, a search by hand, and what is promised, by simulation."""

import math

import numpy as np
import pytest

from wekws.errors import ConfigError
from wekws.score.det import Budget
from wekws.score.intervals import poisson_exact, poisson_upper, weighted_poisson_upper
from wekws.score.thresholds import (
    PooledNegatives,
    ThresholdOptions,
    as_they_are,
    category_hours_from_text,
    choose_threshold,
    choose_thresholds,
    hours_needed,
    most_false_alarms,
    negatives_of_all,
    support_text,
)


def poisson_cdf(count, mean):
    return sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(count + 1))


@pytest.mark.parametrize(("count", "limit"), [(0, 2.9957), (1, 4.7439), (2, 6.2958), (10, 16.962)])
def test_upper_limit_is_the_published_one(count, limit):
    assert poisson_upper(count, 1.0) == pytest.approx(limit, abs=1e-3)
    assert poisson_upper(count, 5.0) == pytest.approx(limit / 5, abs=1e-3)
    assert poisson_cdf(count, poisson_upper(count, 1.0)) == pytest.approx(0.05)
    assert poisson_upper(count, 1.0, 0.5) < poisson_upper(count, 1.0)


def test_upper_limit_of_a_weighted_sum():
    # Equal weights give the exact limit; a weight of 0 adds nothing.
    assert weighted_poisson_upper(3 * 0.5, 3 * 0.25, 0.5) == pytest.approx(poisson_upper(3, 2.0))
    # No event at all: the limit if all of the audio were of the category with few hours.
    assert weighted_poisson_upper(0.0, 0.0, 2.0) == pytest.approx(2 * 2.9957, abs=1e-3)
    with pytest.raises(ValueError, match="expected a weight > 0"):
        weighted_poisson_upper(0.0, 0.0, 0.0)


def test_upper_limit_of_a_weighted_sum_covers():
    """Rates 3 and 0.5 per hour in 2 h and 6 h of dev, used half and half: 1.75 per hour."""
    rng = np.random.default_rng(1)
    counts = rng.poisson([3 * 2, 0.5 * 6], (4000, 2))
    weights = np.array([0.5 / 2, 0.5 / 6])
    limits = weighted_poisson_upper(counts @ weights, counts @ weights**2, weights.max())
    assert 0.95 <= (limits >= 1.75).mean() < 0.99


def test_hours_needed():
    assert hours_needed(1.0) == pytest.approx(2.9957, abs=1e-4)
    assert hours_needed(0.5) == pytest.approx(5.9915, abs=1e-4)
    assert hours_needed(1.0, 1) == pytest.approx(4.7439, abs=1e-4)
    assert hours_needed(0.0) == math.inf


@pytest.mark.parametrize(
    ("per_hour", "hours", "most"),
    [
        (1.0, 0.02, None), (1.0, 2.99, None), (1.0, 3.0, 0), (1.0, 4.74, 0), (1.0, 4.75, 1),
        (0.5, 12.6, 2), (0.5, 0.0, None), (0.0, 9.0, None), (1.0, hours_needed(1.0), 0),
    ],
)  # fmt: skip
def test_most_false_alarms(per_hour, hours, most):
    assert most_false_alarms(per_hour, hours) == most


def test_what_dev_can_support():
    assert support_text(0.02, Budget(1.0)) == (
        False,
        "1/h: dev has 0.02 h of negatives, so no threshold for this budget can be chosen; at least "
        "3.0 h are needed (4.7 h to allow one false alarm there); give --negatives",
    )
    is_supported, text = support_text(5.0, Budget(1.0))
    assert is_supported and "may give 1 false alarm there" in text
    assert support_text(9.0, Budget(0.0))[0] is False


def test_what_dev_can_support_for_several_keywords():
    """3 h with six keywords: 18 h together. 8 h are enough for a threshold of each."""
    is_supported, text = support_text(3.0, Budget(0.5), 6)
    assert is_supported and most_false_alarms(0.5, 18.0) == 3
    assert text == (
        "0.5/h: dev has 3.00 h of negatives; one threshold for all 6 keywords may give 3 false "
        "alarms there, then the rate per keyword is at most 0.5/h (95% sure)"
    )
    assert "one threshold" not in support_text(8.0, Budget(1.0), 6)[1]
    is_supported, text = support_text(0.9, Budget(0.5), 6)
    assert not is_supported and "at least 1.0 h are needed (1.6 h" in text
    assert "one threshold for all 6" in support_text(8.0, Budget(1.0), 6, "true")[1]
    assert "at least 6.0 h" in support_text(3.0, Budget(0.5), 6, "false")[1]


def own(scores, hours=2.0):
    return as_they_are(np.array(scores), hours)


def test_one_threshold_for_all_keywords_keeps_the_mean_rate():
    events, budget = [own([0.9, 0.5]), own([0.6]), own([])], Budget(1.0)
    (chosen, *_) = both = choose_thresholds(events, budget, ThresholdOptions(shared="true"))
    # 6 h together: two false alarms are at most 1.05/h, one is 0.79/h.
    assert len(both) == 3 and chosen.num_keywords == 3 and chosen.false_alarms == 1
    assert chosen.threshold == pytest.approx(0.600001)
    assert chosen.upper_per_hour == pytest.approx(poisson_upper(1, 6.0))
    assert negatives_of_all(events).largest_weight == pytest.approx(1 / 6)


def test_auto_shares_a_threshold_where_a_keyword_is_allowed_fewer_than_three():
    events = {hours: [own([0.9, 0.5], hours), own([0.6], hours)] for hours in (7.7, 7.8)}
    rules = [
        [c.num_keywords for c in choose_thresholds(events[hours], Budget(1.0), ThresholdOptions())]
        for hours in (7.7, 7.8)
    ]
    assert rules == [[2, 2], [1, 1]] and most_false_alarms(1.0, 7.8) == 3
    by_count = ThresholdOptions(rule="count")
    assert choose_thresholds(events[7.7], Budget(0.1), by_count)[0].num_keywords == 1
    assert choose_thresholds(events[7.7], Budget(None), ThresholdOptions())[0].num_keywords == 1
    assert choose_thresholds(events[7.7][:1], Budget(0.1), ThresholdOptions())[0].num_keywords == 1


def test_one_threshold_for_all_keeps_its_promise():
    """Three keywords of true rates 2, 1 and 0.1 per hour at 0.5; dev has 4 h, 2,000 times."""
    rng, budget, broken = np.random.default_rng(1), 0.9, 0
    slopes = np.array([2.0, 1.0, 0.1]) / 0.5  # events per hour and unit of confidence
    for _ in range(2000):
        events = [own(rng.uniform(0, 1, rng.poisson(4.0 * slope)), 4.0) for slope in slopes]
        options = ThresholdOptions(shared="true")
        (chosen, *_) = choose_thresholds(events, Budget(budget), options)
        broken += (1 - chosen.threshold) * slopes.mean() > budget
    assert 0.01 < broken / 2000 < 0.06


def test_choice_by_hand():
    """5 h: no false alarm is at most 0.60/h, one 0.95/h, two 1.26/h, three 1.55/h."""
    negatives = as_they_are(np.array([0.9, 0.2, 0.7, 0.7, 0.5]), 5.0)
    found = {rate: choose_threshold(negatives, Budget(rate)) for rate in (0.5, 1.0, 1.3, 1.6)}
    assert [round(found[rate].threshold, 6) for rate in found] == [
        0.900001, 0.700001, 0.700001, 0.500001,
    ]  # fmt: skip
    assert [(f.allowed, f.false_alarms) for f in found.values()] == [
        (0, 0), (1, 1), (2, 1), (3, 3),
    ]  # fmt: skip
    # 0.5/h: strictest that dev supports, and its limit says that the budget is not kept.
    assert found[0.5].upper_per_hour == pytest.approx(0.5991, abs=1e-4)
    assert found[1.0].upper_per_hour == pytest.approx(0.9488, abs=1e-4)
    by_count = choose_threshold(negatives, Budget(0.5), "count")
    assert (by_count.allowed, by_count.rule) == (2, "count")
    assert choose_threshold(negatives, Budget(None)).rule == "count"


@pytest.mark.parametrize("rule", ["upper", "count"])
def test_all_events_within_the_budget(rule):
    few = as_they_are(np.array([0.3, 0.8]), 10.0)
    chosen = choose_threshold(few, Budget(1.0), rule)
    assert (chosen.threshold, chosen.false_alarms) == (0.0, 2)
    nothing = choose_threshold(as_they_are(np.zeros(0), 10.0), Budget(1.0), rule)
    assert (nothing.threshold, nothing.false_alarms) == (0.0, 0)


def test_weighted_choice():
    """An event of the rarer kind counts four times as much."""
    negatives = PooledNegatives(
        scores=np.array([0.9, 0.8, 0.7]), weights=np.array([0.1, 0.4, 0.1]), largest_weight=0.4
    )
    assert choose_threshold(negatives, Budget(0.5), "count").allowed == 2
    assert choose_threshold(negatives, Budget(0.49), "count").allowed == 1


def test_the_count_of_many_equal_weights_is_exact():
    negatives = as_they_are(np.linspace(0, 1, 2000), 7.0)
    assert choose_threshold(negatives, Budget(100.0), "count").allowed == 700


@pytest.mark.parametrize("per_hour", [0.5, 1.0])
def test_promise(per_hour):
    """Events of 40 per hour with uniform confidences: above t, the true rate is 40 (1 - t).

    Of 500 dev sets of 12 h, rule `upper` keeps the budget in at least 95 %: the true rate, and
    on a test set of 30 h the lower end of the measured one. Rule `count` keeps it in about half.
    """
    rng, hours, num = np.random.default_rng(7), 12.0, 500
    true_rates = {"upper": [], "count": []}
    for _ in range(num):
        scores = rng.uniform(size=rng.poisson(40 * hours))
        for rule, rates in true_rates.items():
            chosen = choose_threshold(as_they_are(scores, hours), Budget(per_hour), rule)
            rates.append(40 * (1 - chosen.threshold))
    kept = {rule: np.mean(np.array(r) <= per_hour) for rule, r in true_rates.items()}
    # At most 5 % may fail; three standard deviations of 500 draws are 2.9 %.
    assert kept["upper"] >= 0.95 - 0.029 and kept["count"] < 0.7
    counts = rng.poisson(np.array(true_rates["upper"]) * 30.0)
    assert np.mean(poisson_exact(counts, 30.0)[0] <= per_hour) >= 0.95
    # Exactly: it fails where dev has no more events above the true threshold than are allowed.
    allowed = most_false_alarms(per_hour, hours)
    assert (
        poisson_cdf(allowed, per_hour * hours) <= 0.05 < poisson_cdf(allowed + 1, per_hour * hours)
    )


def test_hours_of_use_from_text():
    assert category_hours_from_text("speech=2, music=0.5") == {"speech": 2.0, "music": 0.5}
    assert category_hours_from_text("") is None
    for text in ("speech", "speech=x", "=1", "a=1,a=2", "a=0", "a=inf"):
        with pytest.raises(ConfigError, match="category_hours: found"):
            category_hours_from_text(text)
