"""Sets, operating points and the summary against numbers counted by hand."""

import copy
import json

import numpy as np
import pytest

from wekws.dataset.manifest import Utterance
from wekws.errors import ConfigError, DataError
from wekws.score.det import Budget
from wekws.score.intervals import poisson_exact, poisson_upper, wilson
from wekws.score.scores import KeywordEvents, ScoreTable
from wekws.score.sets import split_by_keyword
from wekws.score.summary import DEFAULT_BUDGETS, ScoredFolder, build_summary, is_unsupported
from wekws.score.summary_file import summary_to_markdown, validate_summary, write_summary
from wekws.score.thresholds import ThresholdOptions

INFO = {
    "checkpoint": "exp/a/1.pt",
    "params": 10,
    "decoder": "keyword",
    "data_list": "data/test/data.list",
    "refractory_s": 1.0,
}


def utterance(key, txt, duration=1800.0, tok=None):
    return Utterance(key=key, wav="x.wav", txt=txt, duration=duration, tok=tok)


def table_of(scores):
    """From {utt: {KEYWORD: [confidences]}}."""
    keys = tuple(scores)
    events = {}
    for keyword in {name for row in scores.values() for name in row}:
        pairs = [(i, c) for i, key in enumerate(keys) for c in scores[key].get(keyword, [])]
        positions, confidences = zip(*pairs, strict=True)
        events[keyword] = KeywordEvents(np.array(positions), np.array(confidences))
    return ScoreTable(keys, events)


UTTERANCES = [
    utterance("p1", "please COMPUTER"),
    utterance("p2", "COMPUTER"),
    utterance("j1", "JARVIS", 3600.0),
    utterance("n1", "computers are fine", 3600.0),
    utterance("n2", "<noise>", 3600.0),
    utterance("lost", "COMPUTER"),
]
TABLE = table_of(
    {
        "p1": {"COMPUTER": [0.9, 0.3], "JARVIS": [0.2]},
        "p2": {"COMPUTER": [0.4], "JARVIS": [0.1]},
        "j1": {"COMPUTER": [0.8, 0.7], "JARVIS": [0.9]},
        "n1": {"COMPUTER": [0.6, 0.5, 0.2], "JARVIS": [0.05]},
        "n2": {"COMPUTER": [0.45], "JARVIS": [0.01]},
    }
)


def scored(utterances=UTTERANCES, table=TABLE, keywords=("COMPUTER", "JARVIS")):
    return split_by_keyword(table, utterances, keywords)


def summary_of(test, dev=None, **options):
    return build_summary(ScoredFolder(INFO, test), dev, DEFAULT_BUDGETS, **options)


def test_split_by_keyword():
    result = scored()
    computer, jarvis = result.keywords
    assert (result.num_utterances, result.hours, result.not_scored) == (5, 4.0, 1)
    assert computer.positives.tolist() == [0.9, 0.4]
    assert sorted(computer.negatives) == [0.2, 0.45, 0.5, 0.6]  # COMPUTERS is another word
    assert (computer.num_negatives, computer.negative_hours) == (2, 2.0)
    assert sorted(computer.confusions) == [0.7, 0.8]
    assert (computer.num_confusions, computer.confusion_hours) == (1, 1.0)
    assert sorted(jarvis.confusions) == [0.1, 0.2]


def test_transcripts_of_older_lists():
    table = table_of({"a": {"嗨小问": [0.5]}, "b": {"嗨小问": [0.1]}})
    old = [utterance("a", (2, 3, 4), tok=("嗨", "小", "问")), utterance("b", (1,), tok=("x",))]
    (only,) = split_by_keyword(table, old, ["嗨小问"]).keywords
    assert only.positives.tolist() == [0.5] and only.negatives.tolist() == [0.1]
    with pytest.raises(DataError, match="utterance b"):
        split_by_keyword(table, [old[0], utterance("b", (1,))], ["嗨小问"])


def test_scores_of_another_list():
    with pytest.raises(DataError, match="not in the data list"):
        split_by_keyword(TABLE, UTTERANCES[1:], ["COMPUTER"])


def test_summary_chosen_on_test():
    summary = summary_of(scored())
    validate_summary(summary)
    computer = summary["keywords"][0]
    half, one, in_all = computer["operating_points"]
    # 2 h of negatives: 0.5/h allows 1 (0.6), so 0.5 must not fire; the positive at 0.4 is missed
    assert (half["threshold"], half["chosen_on"], half["budget_false_alarms"]) == (
        pytest.approx(0.500001),
        "itself",
        1,
    )
    low, high = poisson_exact(1, 2.0)
    assert half["false_alarms"] == {"count": 1, "per_hour": 0.5, "low": low, "high": high}
    low, high = wilson(1, 2)
    assert half["misses"] == {"count": 1, "rate": 0.5, "low": low, "high": high}
    assert half["confusions"] == {"count": 2, "per_hour": 2.0}
    assert one["false_alarms"]["count"] == 2 and one["threshold"] == pytest.approx(0.450001)
    assert in_all["threshold"] == half["threshold"]


def test_summary_chosen_on_dev_is_frozen():
    dev_table = table_of({"d1": {"COMPUTER": [0.9]}, "d2": {"COMPUTER": [0.85, 0.3]}})
    dev_list = [utterance("d1", "COMPUTER"), utterance("d2", "no", 3600.0)]
    dev = split_by_keyword(dev_table, dev_list, ["COMPUTER", "JARVIS"])
    folder = ScoredFolder({**INFO, "data_list": "dev.list"}, dev)
    summary = summary_of(scored(), folder, options=ThresholdOptions(rule="count"))
    validate_summary(summary)
    half, one, _ = summary["keywords"][0]["operating_points"]
    # one hour of dev: 0.5/h allows none, which is above 0.85; 1/h allows one, above 0.3
    assert (half["chosen_on"], half["budget_false_alarms"]) == ("dev", 0)
    assert half["threshold"] == pytest.approx(0.850001) and half["misses"]["count"] == 1
    assert half["false_alarms"]["count"] == 0 and half["false_alarms"]["per_hour"] == 0
    assert one["threshold"] == pytest.approx(0.300001) and one["false_alarms"]["count"] == 3
    # dev never scored JARVIS events on negatives: nothing to exceed the budget
    assert summary["keywords"][1]["operating_points"][0]["threshold"] == 0
    assert "budget is not used up" in " ".join(summary["keywords"][1]["notes"])


def test_a_budget_that_dev_cannot_support_is_said_so():
    """One hour without a false alarm: the upper limit is -ln 0.05 = 3.00 per hour."""
    dev = split_by_keyword(
        table_of({"d1": {"COMPUTER": [0.9]}, "d2": {"COMPUTER": [0.55, 0.3]}}),
        [utterance("d1", "COMPUTER"), utterance("d2", "no", 3600.0)],
        ["COMPUTER"],
    )
    summary = summary_of(scored(keywords=("COMPUTER",)), ScoredFolder(INFO, dev))
    validate_summary(summary)
    assert summary["threshold_rule"] == "upper"
    (computer,) = summary["keywords"]
    half, one, in_all = computer["operating_points"]
    assert half["threshold"] == one["threshold"] == pytest.approx(0.550001)
    assert (half["rule"], half["dev_false_alarms"], half["budget_false_alarms"]) == ("upper", 0, 0)
    assert half["dev_upper_per_hour"] == pytest.approx(2.9957, abs=1e-4)
    assert (in_all["rule"], in_all["threshold"]) == ("count", pytest.approx(0.300001))
    assert [is_unsupported(point) for point in (half, one, in_all)] == [True, True, False]
    assert computer["notes"][0].startswith(
        "0.5/h: dev has 1.00 h of negatives and supports 3.00/h at best; the threshold is the "
    )


def test_keywords_share_a_threshold_where_dev_is_small():
    """2 h of dev: alone, 2/h allows no false alarm; both keywords together, one of 0.8 and 0.6."""
    table = table_of(
        {
            "d1": {"COMPUTER": [0.9]},
            "d2": {"COMPUTER": [0.8, 0.3]},
            "d3": {"JARVIS": [0.6, 0.5]},
        }
    )
    listed = [utterance("d1", "COMPUTER"), *(utterance(u, "no", 3600.0) for u in ("d2", "d3"))]
    dev = ScoredFolder(INFO, split_by_keyword(table, listed, ["COMPUTER", "JARVIS"]))
    found = {}
    for shared in ("auto", "true", "false"):
        options = ThresholdOptions(shared=shared)
        summary = build_summary(ScoredFolder(INFO, scored()), dev, [Budget(1.5)], options)
        validate_summary(summary)
        assert summary["shared_threshold"] == shared
        found[shared] = [entry["operating_points"] for entry in summary["keywords"]]
    (computer, in_all), (jarvis, _) = found["auto"]
    assert computer["threshold"] == jarvis["threshold"] == pytest.approx(0.600001)
    assert (computer["shared_by"], computer["dev_false_alarms"]) == (2, 1)
    assert computer["dev_upper_per_hour"] == pytest.approx(poisson_upper(1, 4.0))
    assert not is_unsupported(computer) and in_all["shared_by"] == 1
    assert [points[0]["threshold"] for points in found["false"]] == [
        pytest.approx(0.800001), pytest.approx(0.600001)
    ]  # fmt: skip
    assert [points[0]["threshold"] for points in found["true"]] == [computer["threshold"]] * 2
    # One false alarm in all of both together: the second highest event of both.
    assert found["true"][0][1]["threshold"] == pytest.approx(0.600001)


def with_categories():
    """COMPUTER in 2 h of music with two events and in 4 h of speech with one; 1 h without."""
    table = table_of(
        {
            "p": {"COMPUTER": [0.5]},
            "m": {"COMPUTER": [0.9, 0.4]},
            "s": {"COMPUTER": [0.7]},
            "o": {"COMPUTER": [0.1]},
        }
    )
    listed = [
        utterance("p", "COMPUTER"),
        utterance("m", "<noise>", 7200.0)._replace(category="music"),
        utterance("s", "<filler>", 14400.0)._replace(category="speech"),
        utterance("o", "no", 3600.0),
    ]
    return split_by_keyword(table, listed, ["COMPUTER"])


def test_the_table_says_which_model_was_scored():
    summary = summary_of(scored())
    for params, text in ((1234567, "(1,234,567 parameters)"), (None, "(? parameters)")):
        assert text in summary_to_markdown({**summary, "params": params})
    assert "decoder keyword." in summary_to_markdown(summary)
    soft = summary_to_markdown({**summary, "score_temperature": 2.0})
    assert "decoder keyword, posteriors at temperature 2." in soft


def test_false_alarms_per_category():
    summary = summary_of(with_categories())
    validate_summary(summary)
    (computer,) = summary["keywords"]
    assert computer["categories"] == [
        {"category": "music", "utterances": 1, "hours": 2.0},
        {"category": "other", "utterances": 1, "hours": 1.0},
        {"category": "speech", "utterances": 1, "hours": 4.0},
    ]
    half = computer["operating_points"][0]  # 0.5/h of 7 h: 3 false alarms
    rows = [
        (row["category"], row["count"], row["per_hour"], (row["low"], row["high"]))
        for row in half["by_category"]
    ]
    assert rows == [
        ("music", 2, 1.0, poisson_exact(2, 2.0)),
        ("other", 0, 0.0, poisson_exact(0, 1.0)),
        ("speech", 1, 0.25, poisson_exact(1, 4.0)),
    ]
    assert "| COMPUTER | 0.5/h | music | 2 | 2.00 | 1.00 (0.12 to 3.61) |" in summary_to_markdown(
        summary
    )
    # Summaries of earlier versions have none of these.
    assert "by_category" not in summary_of(scored())["keywords"][0]["operating_points"][0]


def test_categories_weigh_as_they_are_used():
    """Used 3 hours in 4 with music: an event there is 3/4 / 2 h, one on speech 1/4 / 4 h."""
    folder, use = ScoredFolder(INFO, with_categories()), {"music": 3.0, "speech": 1.0}
    options = ThresholdOptions(rule="count", category_hours=use)
    summary = build_summary(folder, folder, [Budget(0.4)], options)
    validate_summary(summary)
    point = summary["keywords"][0]["operating_points"][0]
    # 0.375 at 0.9, 0.4375 at 0.7; the event of 1 h without a category does not count
    assert (point["threshold"], point["dev_false_alarms"]) == (pytest.approx(0.700001), 1)
    assert point["in_use"]["per_hour"] == 0.375 and point["in_use"]["upper"] > 1
    assert summary["category_hours"][0] == {"category": "music", "hours": 3.0}
    with pytest.raises(
        ConfigError,
        match="--category_hours tv: no negatives of this category in dev; there are music, other",
    ):
        build_summary(folder, folder, [], ThresholdOptions(category_hours={"tv": 1.0}))
    (computer,) = build_summary(
        ScoredFolder(INFO, scored(keywords=("COMPUTER",))), folder, [], options
    )["keywords"]
    assert computer["operating_points"][0]["in_use"] is None


def test_dev_without_negatives_falls_back_to_test():
    dev = split_by_keyword(
        table_of({"d1": {"COMPUTER": [0.9]}}), [utterance("d1", "COMPUTER")], ["COMPUTER"]
    )
    summary = summary_of(scored(keywords=("COMPUTER",)), ScoredFolder(INFO, dev))
    (computer,) = summary["keywords"]
    assert computer["operating_points"][0]["chosen_on"] == "itself"
    assert "dev has no negatives" in computer["notes"][0]


def test_a_keyword_that_is_absent_does_not_stop_the_others():
    summary = summary_of(scored(keywords=("COMPUTER", "ALEXA")))
    validate_summary(summary)
    assert [entry["keyword"] for entry in summary["keywords"]] == ["COMPUTER"]
    (absent,) = summary["not_evaluated"]
    assert absent["keyword"] == "ALEXA" and "no positives" in absent["problem"]


@pytest.mark.parametrize(
    ("txt", "problem"), [("COMPUTER", "no negatives"), ("something else", "no positives")]
)
def test_one_utterance(txt, problem):
    only = split_by_keyword(
        table_of({"a": {"COMPUTER": [0.5]}}), [utterance("a", txt)], ["COMPUTER"]
    )
    with pytest.raises(DataError, match=problem):
        summary_of(only)


def test_all_scores_equal_are_noted():
    table = table_of({"a": {"COMPUTER": [0.5]}, "b": {"COMPUTER": [0.5]}})
    both = [utterance("a", "COMPUTER"), utterance("b", "no")]
    summary = summary_of(split_by_keyword(table, both, ["COMPUTER"]))
    (computer,) = summary["keywords"]
    assert "all scores are equal" in computer["notes"][0]
    assert computer["operating_points"][0]["misses"]["rate"] == 1.0


def test_written_files(tmp_path):
    write_summary(tmp_path, summary_of(scored()))
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text)["keywords"][0]["positives"] == 2
    table = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| COMPUTER | 0.5/h | 0.500001 | itself | 50.00 % (9.45 to 90.55) | 1 of 2 |" in table


def test_schema_names_every_problem():
    summary = summary_of(scored())
    broken = copy.deepcopy(summary)
    broken["params"] = "many"
    broken["extra"] = 1
    del broken["keywords"][1]["positives"]
    broken["keywords"][0]["operating_points"][2]["misses"]["rate"] = float("nan")
    with pytest.raises(DataError) as error:
        validate_summary(broken)
    places = [line.split(": ")[0] for line in str(error.value).splitlines()]
    assert places == [
        "summary.params",
        "summary.keywords[0].operating_points[2].misses.rate",
        "summary.keywords[1].positives",
        "summary.extra",
    ]
