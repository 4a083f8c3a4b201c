import json

import pytest
from fake_results import make_run

from wekws.bin import compare_runs
from wekws.errors import DataError


@pytest.fixture
def runs(tmp_path):
    for seed, loss in ((1, 4.0), (2, 6.0)):
        folder = tmp_path / f"run{seed}"
        make_run(folder, epochs=3, seed=seed)
        rows = [{"kind": "cv", "epoch": e, "cv_loss": loss * 10 ** (1 - e)} for e in (-1, 0, 1)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
        write_result(folder / "test_avg_2", misses=0.01 * loss)
    return tmp_path


def write_result(folder, misses):
    folder.mkdir()
    point = {
        "budget": "1/h",
        "misses": {"rate": misses},
        "false_alarms": {"per_hour": 2.0},
    }
    summary = {"keywords": [{"keyword": "嗨小问", "operating_points": [point]}]}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    # Within one false alarm an hour the least FRR is 0.25.
    (folder / "stats.嗨小问.txt").write_text("0 9 0\n0.4 2 0.1\n0.5 1 0.25\n0.6 0 0.5\n")


def test_mean_and_deviation_over_the_runs_of_a_group(runs, capsys):
    group = f"a={runs}/run1,{runs}/run2"
    assert compare_runs.main(["--groups", group, "--result", "test_avg_2"]) == 0
    head, _, row = capsys.readouterr().out.strip().splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    # Losses 400 and 600, 40 and 60, 4 and 6: means 500, 50, 5, deviations 141.42, 14.14, 1.41.
    assert cells["cv loss before step 1"] == "500.00 ± 141.42"
    assert cells["after epoch 0"] == "50.00 ± 14.14"
    assert cells["at the end"] == "5.00 ± 1.41"
    assert cells["嗨小问: FRR % at the threshold for 1/h"] == "5.00 ± 1.41 (2.00/h)"
    assert cells["嗨小问: FRR % at 1/h of its own curve |"] == "25.00 ± 0.00 |"


def test_a_budget_that_was_not_evaluated_is_named(runs):
    flags = ["--groups", f"a={runs}/run1", "--result", "test_avg_2", "--budget", "0.5/h"]
    with pytest.raises(DataError, match="嗨小问 has no operating point at 0.5/h"):
        compare_runs.main(flags)


def test_a_group_without_folders_is_refused():
    with pytest.raises(DataError, match="expected NAME=DIR,DIR"):
        compare_runs.main(["--groups", "a"])
