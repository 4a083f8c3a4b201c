import json

import pytest
from fake_results import make_run

from wekws.bin import compare_runs
from wekws.errors import ConfigError

TEXTS = {"p1": "嗨小问", "p2": "嗨小问", "p3": "嗨小问", "p4": "嗨小问", "n1": "我们", "n2": "他们"}


@pytest.fixture
def runs(tmp_path):
    """Two runs of one group and one of another, scored on six utterances."""
    data = tmp_path / "data.list"
    lines = [{"key": k, "wav": "x", "txt": t, "duration": 1800.0} for k, t in TEXTS.items()]
    data.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for number, loss in ((1, 4.0), (2, 6.0), (3, 5.0)):
        folder = tmp_path / f"run{number}"
        make_run(folder, epochs=3, seed=number)
        rows = [{"kind": "cv", "epoch": e, "cv_loss": loss * 10 ** (1 - e)} for e in (-1, 0, 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        # One event an hour of negatives is allowed: the second highest, 0.5, must not fire.
        scores = {"p1": 0.9, "p2": 0.9, "p3": 0.4 if number == 2 else 0.8, "p4": 0.3}
        write_result(folder / "test_avg_2", data, {**scores, "n1": 0.6, "n2": 0.5})
    return tmp_path


def write_result(folder, data, scores):
    folder.mkdir()
    info = {"data_list": str(data), "keywords": ["嗨小问"]}
    (folder / "score.json").write_text(json.dumps(info, ensure_ascii=False), encoding="utf-8")
    lines = [f"{key} detected 嗨小问 {score}\n" for key, score in scores.items()]
    (folder / "score.txt").write_text("".join(lines), encoding="utf-8")
    point = {
        "budget": "1/h",
        "chosen_on": "dev",
        "misses": {"rate": 0.5},
        "false_alarms": {"per_hour": 2.0},
    }
    summary = {"params": 1234, "keywords": [{"keyword": "嗨小问", "operating_points": [point]}]}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "stats.嗨小问.txt").write_text("0 9 0\n0.4 2 0.1\n", encoding="utf-8")


def cells_of(text, first):
    lines = [[c.strip() for c in x.split("|")[1:-1]] for x in text.splitlines() if "|" in x]
    header = lines[0]
    return dict(zip(header, next(row for row in lines if row[0] == first), strict=True))


def keyword_cell(text, first):
    rows = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return rows[-1].split("|")[2].strip()


def test_mean_and_deviation_over_the_runs_of_a_group(runs, capsys):
    groups = [f"a={runs}/run1,{runs}/run2", f"b={runs}/run3"]
    flags = ["--groups", *groups, "--result", "test_avg_2", "--budgets", "1"]
    assert compare_runs.main([*flags, "--compare_to", "b"]) == 0
    out = capsys.readouterr().out
    cells = cells_of(out, "a")
    # Losses 400 and 600, 4 and 6: means 500 and 5, deviations 141.42 and 1.41.
    assert (cells["n"], cells["parameters"]) == ("2", "1,234")
    assert cells["cv loss before step 1"] == "500.00 ± 141.42"
    assert cells["cv loss at the end"] == "5.00 ± 1.41"
    # Run 1 misses p4, run 2 p3 and p4: 25 and 50 %; b, like run 1, 25 %.
    assert cells["FRR % at 1/h"].startswith("37.50 ± 17.68 (")
    assert cells["minus that of b"].startswith("+12.50 (")
    # One of four: Wilson's interval at the least, 4.56 to 69.94.
    low, high = (float(x) for x in keyword_cell(out, "b").split("(")[1].rstrip(")").split(" to "))
    assert low <= 4.57 and high >= 69.93
    assert cells["FRR % (false alarms/h) at the dev threshold for 1/h"] == "50.00 (2.00)"


def test_thresholds_for_which_dev_is_too_small_are_said_to_be_strictest(runs, capsys):
    summary = runs / "run3" / "test_avg_2" / "summary.json"
    content = json.loads(summary.read_text())
    content["keywords"][0]["operating_points"][0] |= {"rule": "upper", "dev_upper_per_hour": 1.85}
    summary.write_text(json.dumps(content))
    groups = [f"a={runs}/run1", f"b={runs}/run3"]
    assert compare_runs.main(["--groups", *groups, "--result", "test_avg_2", "--budgets", "1"]) == 0
    out = capsys.readouterr().out
    column = (
        "FRR % (false alarms/h) at the dev threshold for 1/h; strictest: dev is too small for 1/h"
    )
    assert cells_of(out, "a")[column] == "50.00 (2.00)"
    assert cells_of(out, "b")[column] == "50.00 (2.00), strictest"


def test_an_unknown_group_to_compare_with_is_named(runs):
    flags = ["--groups", f"a={runs}/run1", "--result", "test_avg_2", "--compare_to", "c"]
    with pytest.raises(ConfigError, match="c: no such group; expected one of a"):
        compare_runs.main(flags)


def test_a_group_without_folders_is_refused():
    with pytest.raises(ConfigError, match="expected NAME=DIR,DIR"):
        compare_runs.main(["--groups", "a", "--result", "test_avg_2"])


def test_two_groups_of_one_name_are_refused(runs):
    flags = ["--groups", f"t={runs}/run1", f"t={runs}/run2", "--result", "test_avg_2"]
    with pytest.raises(ConfigError, match="t: two groups have this name"):
        compare_runs.main(flags)
