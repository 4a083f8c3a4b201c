"""Names of thresholds: what dev supports, and who shares one."""

from pathlib import Path

from wekws.score.results import Result
from wekws.score.threshold_names import by_marker, how_chosen, threshold_name


def result(*points):
    summary = {"keywords": [{"keyword": "A", "operating_points": list(points)}]}
    return Result(name="x", result_dir=Path("x"), summary=summary, stats={"A": None})


def point(budget, threshold, upper, **more):
    found = {"budget": budget, "threshold": threshold, "dev_upper_per_hour": upper}
    return found | {"rule": "upper", "chosen_on": "dev"} | more


def test_a_threshold_is_named_by_its_budget_only_where_dev_supports_it():
    full, small = result(point("1/h", 0.5, 0.9)), result(point("1/h", 0.5, 1.853))
    assert threshold_name([full], ["1/h"]) == "threshold for 1/h"
    assert threshold_name([small, small], ["1/h"]) == "strictest threshold of dev (1.85/h)"
    assert (
        threshold_name([full, small], ["1/h"])
        == "threshold for 1/h, or the strictest of dev (1.85/h)"
    )
    itself = result(point("1/h", 0.5, 1.853, chosen_on="itself"))
    assert threshold_name([itself], ["1/h"]) == "strictest threshold of the set itself (1.85/h)"
    assert threshold_name([small], ["2/h"]) == "threshold for 2/h"


def test_budgets_that_dev_does_not_support_are_one_group_if_their_thresholds_agree():
    first = result(point("0.5/h", 0.5, 1.9), point("1/h", 0.5, 1.9), point("2/h", 0.5, 1.9))
    other = result(point("0.5/h", 0.6, 1.9), point("1/h", 0.4, 1.9), point("2/h", 0.3, 1.9))
    budgets = ["0.5/h", "1/h", "2/h"]
    assert by_marker([first], budgets) == [["0.5/h", "1/h"], ["2/h"]]
    assert by_marker([first, other], budgets) == [["0.5/h"], ["1/h"], ["2/h"]]


def test_how_a_threshold_was_chosen():
    assert how_chosen(point("1/h", 0.5, 0.9, shared_by=1)) == "dev"
    assert how_chosen(point("1/h", 0.5, 1.853)) == "dev, strictest (1.85/h)"
    shared = point("1/h", 0.5, 0.9, shared_by=6)
    assert how_chosen(shared) == "dev, one for all 6 keywords"
    assert how_chosen({"budget": "1/h"}) == "-"
