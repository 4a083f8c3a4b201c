import json

import numpy as np
import pytest

from wekws.errors import DataError
from wekws.score.det import Budget
from wekws.score.paired import Bootstrap, RunTrials, Trials, estimate, read_trials

HOUR = Budget(1.0)

INFO = {"checkpoint": "1.pt", "decoder": "keyword", "keywords": ["你好"]}


def trials(positives, negatives, places=None, *, num_negatives=50, hours=2.0):
    order = np.argsort(-np.asarray(negatives))
    places = np.arange(len(negatives)) if places is None else np.asarray(places)
    return Trials(
        np.asarray(positives, dtype=float),
        np.asarray(negatives, dtype=float)[order],
        places[order],
        num_negatives,
        hours,
    )


def run(*args, keys=("a",), **kwargs):
    return RunTrials(tuple(keys), {"word": trials(*args, **kwargs)})


def test_frr_at_the_threshold_that_uses_the_budget_up():
    # Two hours at one an hour allow two events: the third, 0.5, must not be detected, and a
    # positive at 0.5 itself is missed with it. 0.2, 0.5 and the rejected one of four are below.
    one = run([0.9, 0.5, 0.2, -1.0], [0.8, 0.6, 0.5, 0.1])
    assert Bootstrap(("a",), 10).frr([one], None, HOUR)[0] == 0.75


def test_without_events_to_spare_only_rejected_ones_are_missed():
    one = run([0.9, 0.0, -1.0], [0.8, 0.6])
    assert Bootstrap(("a",), 10).frr([one], None, HOUR)[0] == pytest.approx(1 / 3)


def test_mean_over_runs_and_keywords():
    both = RunTrials(("a",), {"x": trials([0.9, 0.1], [0.5] * 5), "y": trials([0.1], [0.5] * 5)})
    other = RunTrials(("a",), {"x": trials([0.9, 0.9], [0.5] * 5), "y": trials([0.9], [0.5] * 5)})
    bootstrap = Bootstrap(("a",), 10)
    assert bootstrap.frr([both, other], None, HOUR)[0] == pytest.approx((0.5 + 1.0 + 0 + 0) / 4)
    assert bootstrap.frr([both], "y", HOUR)[0] == 1.0


def test_a_run_against_itself_differs_by_nothing_in_any_resample():
    rng = np.random.default_rng(1)
    one = run(rng.random(100), rng.random(40) * 0.5)
    bootstrap = Bootstrap(("a",))
    difference = bootstrap.frr([one], None, HOUR) - bootstrap.frr([one], None, HOUR)
    assert (difference == 0).all()


def test_the_interval_of_a_share_is_about_the_binomial_one():
    # A threshold that no resample moves (no events): 100 of 400 rejected.
    one = run([0.9] * 300 + [-1.0] * 100, [])
    found = estimate(Bootstrap(("a",), 4000).frr([one], None, HOUR))
    deviation = np.sqrt(0.25 * 0.75 / 400)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - 1.96 * deviation, abs=0.006)
    assert found.high == pytest.approx(0.25 + 1.96 * deviation, abs=0.006)


def test_the_threshold_is_uncertain_too():
    # All positives lie between the third and the fourth event: either none is missed or all.
    one = run([0.55] * 50, [0.8, 0.7, 0.6, 0.5], hours=3.0)
    found = estimate(Bootstrap(("a",)).frr([one], None, HOUR))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 1.0)


def test_runs_are_drawn_too():
    good, bad = run([0.9] * 100, []), run([-1.0] * 100, [])
    found = estimate(Bootstrap(("a",)).frr([good, bad], None, HOUR))
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_other_utterances_are_refused():
    with pytest.raises(DataError, match="different utterances"):
        Bootstrap(("a", "b"), 10).frr([run([1.0], [])], None, HOUR)


def test_trials_are_read_from_scores_and_list(tmp_path):
    lines = [("p1", "你好"), ("n1", "他们"), ("p2", "你好"), ("n2", "我们")]
    utterances = [{"key": k, "wav": "x", "txt": t, "duration": 1800.0} for k, t in lines]
    data = tmp_path / "data.list"
    data.write_text("".join(json.dumps(u, ensure_ascii=False) + "\n" for u in utterances))
    (tmp_path / "score.json").write_text(json.dumps({**INFO, "data_list": str(data)}))
    scores = ["p1 detected 你好 0.9", "n1 rejected", "p2 rejected"]
    scores += ["n2 detected 你好 0.3", "n2 detected 你好 0.4"]
    (tmp_path / "score.txt").write_text("\n".join(scores))
    found = read_trials(tmp_path)
    assert found.keys == ("p1", "n1", "p2", "n2")
    word = found.by_keyword["你好"]
    assert word.positives.tolist() == [0.9, -1.0]
    assert word.negatives.tolist() == [0.4, 0.3]
    assert word.places.tolist() == [1, 1]
    assert (word.num_negatives, word.hours) == (2, 1.0)
