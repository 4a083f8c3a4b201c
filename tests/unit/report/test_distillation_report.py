import json
import re
import subprocess
import sys
from pathlib import Path

import fake_results as fake
import numpy as np
import pytest
import yaml

from wekws.bin.named_dirs import parse_named_dirs
from wekws.bin.report import main
from wekws.config import load_yaml_with_base
from wekws.errors import ConfigError, DataError
from wekws.report.distillation_report import ReportInputs, build_report
from wekws.report.document import (
    Bullets,
    Code,
    Figure,
    Heading,
    Paragraph,
    Table,
    to_html,
    to_markdown,
)
from wekws.report.format import duration
from wekws.report.model_folder import read_model
from wekws.report.next_step import MID_CONFIG, MID_SIZES, next_step
from wekws.runlog.metrics_reader import read_cv_rows, read_metrics, series
from wekws.score.pinyin import pinyin, with_pinyin
from wekws.score.results import headline_budget, read_result, read_stats

KEYWORDS = ["嗨小问", "你好问问"]
FSMN = {
    "type": "fsmn", "input_affine_dim": 96, "num_layers": 3, "linear_dim": 160, "proj_dim": 64,
    "left_order": 10, "right_order": 2, "output_affine_dim": 96,
}  # fmt: skip
MODEL = {"input_dim": 400, "output_dim": 20, "backbone": FSMN}


def stats_file(tmp_path, text):
    path = tmp_path / "stats.A.txt"
    path.write_text(text)
    return path


def test_markdown_has_no_tags_and_a_page_breaks_cells_before_their_interval():
    text = "runs of `<x>` and <filler>"
    table = Table(["Model", "FRR", "Words"], [["a", "1.0 % (0.5-2)", "of <b> (c)"]], "", (2,))
    blocks = [Paragraph(text), table]
    shown = to_markdown(blocks, ".")
    assert "runs of `<x>` and \\<filler>" in shown and "| of \\<b> (c) |" in shown
    page = to_html(blocks)
    assert "<td><span>1.0&nbsp;%</span> <span>(0.5-2)</span></td>" in page
    assert '<td class="text">of &lt;b&gt; (c)</td>' in page


def test_pinyin_keeps_what_is_not_chinese():
    assert pinyin("嗨小问") == "hāi xiǎo wèn"
    assert pinyin("model 嗨v2") == "model hāi v2"
    assert with_pinyin("JARVIS") == "JARVIS"


def test_stats_give_back_scores_and_curve(tmp_path):
    # Positives 0.2, 0.6, 0.8, 0.8; events 0.1, 0.2, 0.6 in 2 hours.
    stats = read_stats(
        stats_file(tmp_path, "0 1.5 0\n0.1 1.5 0\n0.2 1 0\n0.6 0.5 0.25\n0.8 0 0.5\n1 0 1\n")
    )
    assert stats.positive_shares().tolist() == [0, 0, 0.25, 0.25, 0.5, 0]
    assert stats.negative_rates().tolist() == [0, 0.5, 0.5, 0.5, 0, 0]
    assert [stats.positive_quantile(q) for q in (0.25, 0.5, 0.51)] == [0.2, 0.6, 0.8]
    assert [stats.negative_quantile(q) for q in (0.3, 0.5, 0.99)] == [0.1, 0.2, 0.6]
    rates, frr = stats.det_curve()
    assert rates.tolist() == [0, 0.5, 1, 1.5]
    assert frr.tolist() == [0.5, 0.25, 0, 0]


def test_a_positive_without_confidence_is_missing_from_the_shares(tmp_path):
    stats = read_stats(stats_file(tmp_path, "0 0 0.5\n0.9 0 0.5\n1 0 1\n"))
    assert stats.positive_shares().sum() == 0.5
    assert stats.positive_quantile(0.5) == 0.0
    assert stats.negative_quantile(0.99) is None


@pytest.mark.parametrize("text", ["", "0 1\n", "0.5 1 0\n0.1 0 1\n", "0 nan 0\n"])
def test_broken_stats_name_the_file(tmp_path, text):
    with pytest.raises(DataError, match=r"stats\.A\.txt"):
        read_stats(stats_file(tmp_path, text))


def test_missing_results_say_what_to_run(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_result("x", tmp_path / "none")
    with pytest.raises(DataError, match="compute_det_ctc"):
        read_result("x", tmp_path)
    fake.write_json(tmp_path / "summary.json", {"keywords": [{"keyword": "A B"}]})
    with pytest.raises(DataError, match=r"stats\.A_B\.txt"):
        read_result("x", tmp_path)
    nothing = {"keywords": [], "not_evaluated": [{"keyword": "A", "problem": "no positives"}]}
    fake.write_json(tmp_path / "summary.json", nothing)
    with pytest.raises(DataError, match="no positives"):
        read_result("x", tmp_path)


def test_named_dirs():
    named = parse_named_dirs(["a=x/y", "exp/student"])
    assert {name: str(path) for name, path in named.items()} == {
        "a": "x/y",
        "student": "exp/student",
    }
    with pytest.raises(ConfigError, match="two folders"):
        parse_named_dirs(["a/x", "b/x"])


def test_metrics_of_a_run_that_has_not_begun(tmp_path):
    assert read_metrics(tmp_path) == []
    with pytest.raises(DataError, match="metrics.jsonl: no such file"):
        read_cv_rows(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "epoch": 0}\n')
    assert read_metrics(tmp_path) == [{"kind": "step", "epoch": 0}]
    with pytest.raises(DataError, match="no cv row yet"):
        read_cv_rows(tmp_path)


def test_metrics_keep_the_last_row_of_an_epoch_and_drop_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [("cv", -1, 9.0), ("teacher", -1, 1.0), ("cv", 0, 5.0), ("cv", 0, 4.0), ("cv", 1, None)]
    lines = [json.dumps({"kind": k, "epoch": e, "cv_loss": v}) for k, e, v in rows]
    path.write_text("\n".join([*lines, '{"kind": "cv", "ep']))
    assert series(read_cv_rows(tmp_path), "cv_loss") == ([-1, 0], [9.0, 4.0])
    path.write_text("\n".join(["{", *lines]))
    with pytest.raises(DataError, match="metrics.jsonl:1"):
        read_cv_rows(tmp_path)


MID = {
    **FSMN, "input_affine_dim": 112, "num_layers": 4, "linear_dim": 192, "proj_dim": 96,
    "output_affine_dim": 112,
}  # fmt: skip


def model(tmp_path, name, frr, *, init=False, params=135636, positives=1000, sizes=None):
    """A converged model of one keyword whose FRR at 1/h is exactly ``frr``."""
    start = "teacher" if init else "random"
    exp_dir = fake.make_run(
        tmp_path / name, epochs=30, params=params, start_from=start, model=sizes
    )
    folder = fake.make_result(exp_dir / "test_avg_3", ["A"], positives=positives, params=params)
    summary = json.loads((folder / "summary.json").read_text())
    misses = round(frr * positives)
    low, high = fake.wilson(misses, positives)
    found = {"count": misses, "rate": misses / positives, "low": low, "high": high}
    for point in summary["keywords"][0]["operating_points"]:
        point["misses"] = found
    fake.write_json(folder / "summary.json", summary)
    (folder / "stats.A.txt").write_text(f"0 1000 0\n0.5 0.3 {frr}\n1 0 1\n")
    return read_model(name, exp_dir, "test")


@pytest.mark.parametrize(
    ("frr", "init", "backbone", "expected"),
    [
        (0.02, False, FSMN, "**done**"),
        (0.049, True, FSMN, "**done**"),
        (0.05, False, FSMN, "initialise the student from the teacher and retrain"),
        (0.10, True, FSMN, "train longer"),
        (0.30, False, FSMN, "above 15 %: **initialise the student from the teacher and retrain"),
        (0.30, True, FSMN, "**train the mid student**"),
        (0.30, True, MID, "check the data"),
    ],
)
def test_next_step_follows_the_rule(tmp_path, frr, init, backbone, expected):
    sizes = {**MODEL, "backbone": backbone}
    student = model(tmp_path, "student", frr, init=init, sizes=sizes)
    assert expected in next_step(student, None, "1/h")[0]


def test_a_mini_student_with_many_outputs_is_not_of_the_mid_size(tmp_path):
    # 385,799 parameters, more than the mid student's 243,316, by its 2,599 outputs alone.
    sizes = {**MODEL, "output_dim": 2599}
    student = model(tmp_path, "student", 0.30, init=True, params=385_799, sizes=sizes)
    assert "**train the mid student**" in next_step(student, None, "1/h")[0]


def test_the_mid_sizes_are_those_of_the_shipped_configuration():
    shipped = load_yaml_with_base(Path(__file__).parents[3] / MID_CONFIG)["model"]["backbone"]
    assert {name: shipped[name] for name in MID_SIZES} == MID_SIZES


@pytest.mark.parametrize(("teacher_frr", "overlaps"), [(0.03, True), (0.005, False)])
def test_report_says_whether_intervals_overlap(tmp_path, teacher_frr, overlaps):
    models = model(tmp_path, "teacher", teacher_frr), model(tmp_path, "student", 0.04)
    blocks = build_report(ReportInputs(title="T", teacher=models[0], students=models[1:]))
    text = to_markdown(blocks, tmp_path)
    assert ("intervals **overlap**" in text) is overlaps
    assert ("**do not overlap**; teacher is better" in text) is not overlaps


def test_results_are_ordered_averages_first(tmp_path):
    exp_dir = fake.make_run(tmp_path / "student", epochs=20)
    for name in ("9", "19", "avg_10"):
        folder = exp_dir / f"test_{name}"
        fake.make_result(folder, ["A"], positives=20, negatives=20, checkpoint=f"x/{name}.pt")
    found = read_model("student", exp_dir, "test")
    assert [result.result_dir.name for result in found.results] == [
        "test_avg_10",
        "test_19",
        "test_9",
    ]
    assert found.train_seconds == 20 * 21.5 and found.num_epochs == 20
    with pytest.raises(DataError, match="evaluate the model first"):
        read_model("student", exp_dir, "dev")


def test_duration():
    assert [duration(s) for s in (41.6, 425, 11520)] == ["42 s", "7 min 05 s", "3 h 12 min"]


def test_document_renders_the_same_content_twice(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"\x89PNG")
    blocks = [
        Heading("A <title>", 1),
        Paragraph("1 < 2 & `code` **bold**", "warning"),
        Bullets(["one", "two"]),
        Table(["x", "y"], [["a|b", "1"]], "caption"),
        Figure(tmp_path / "a b.png", 'say "x"'),
        Code("a < b"),
    ]
    markdown = to_markdown(blocks, tmp_path)
    assert "# A \\<title>" in markdown and "> 1 < 2" in markdown
    assert "a\\|b" in markdown and "](a%20b.png)" in markdown
    page = to_html(blocks)
    assert "<title>A &lt;title&gt;</title>" in page
    assert "1 &lt; 2 &amp; <code>code</code> <strong>bold</strong>" in page
    assert "data:image/png;base64,iVBORw==" in page
    assert "<pre><code>a &lt; b</code></pre>" in page


@pytest.fixture
def project(tmp_path):
    for name, seed in (("teacher", 1), ("student", 2)):
        exp_dir = tmp_path / name
        fake.make_run(
            exp_dir, epochs=5, max_epoch=8, seed=seed, model=MODEL, has_kd=name == "student",
            start_from="teacher" if name == "student" else "random",
        )  # fmt: skip
        for checkpoint in ("avg_3", "4"):
            fake.make_result(
                exp_dir / f"test_{checkpoint}", KEYWORDS, seed=seed, positives=60, negatives=300,
                checkpoint=f"exp/{name}/{checkpoint}.pt",
            )  # fmt: skip
    fake.make_validation(tmp_path / "validation.json")
    return tmp_path


def test_report_command_writes_one_page_that_needs_nothing_else(project, capsys):
    arguments = ["--teacher_dir", f"{project}/teacher", "--student_dir", f"{project}/student"]
    arguments += ["--validation", f"{project}/validation.json", "--out_dir", f"{project}/out"]
    arguments += ["--note", "Only a trial.", "--command", "bash run_distill.sh"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert said.split()[-2:] == [f"{project}/out/report.{end}" for end in ("md", "html")]
    assert "Quality kept" in said
    page = (project / "out/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:)', page) and "http" not in page
    markdown = (project / "out/report.md").read_text(encoding="utf-8")
    for text in (
        "Only a trial.", "5 of the 8 epochs", "嗨小问 (hāi xiǎo wèn)", "average of 3", "epoch 4",
        "135,636", "188.00", "was initialised from the teacher", "1 min 48 s",
        "bash run_distill.sh",
    ):  # fmt: skip
        assert text in markdown
        assert text in page
    assert np.all([(project / f"out/{n}.png").exists() for n in ("det", "curves", "durations")])


def test_report_of_named_results_alone(project):
    arguments = ["--student_dir", f"s={project}/student", "--out_dir", f"{project}/out"]
    assert main([*arguments, "--result_dirs", f"s={project}/student/test_4"]) == 0
    markdown = (project / "out/report.md").read_text(encoding="utf-8")
    assert "epoch 4" in markdown and "average of" not in markdown
    assert "No averaged checkpoint was evaluated" in markdown
    with pytest.raises(ConfigError, match="NAME=DIR"):
        main([*arguments, "--result_dirs", f"x={project}/student/test_4"])


def test_the_report_tells_of_problems_and_says_nothing_when_all_is_well(tmp_path):
    for name in ("ill", "well"):
        fake.make_run(tmp_path / name, epochs=9)
        fake.make_result(tmp_path / name / "test_avg_5", KEYWORDS)
    rows = [
        {"kind": "health", "epoch": 3, "problem": "stuck_gate", "state": "began", "text": "shut"},
        {"kind": "health", "epoch": 6, "problem": "stuck_gate", "state": "ended"},
        {"kind": "health", "epoch": 8, "problem": "loss_rising", "state": "began", "text": "up"},
    ]
    with open(tmp_path / "ill" / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    ill, well = (read_model(name, tmp_path / name, "test") for name in ("ill", "well"))
    blocks = build_report(ReportInputs(title="x", teacher=None, students=[ill, well]))
    (told,) = [
        after
        for block, after in zip(blocks, blocks[1:], strict=False)
        if block == Heading("Health")
    ]
    first, second = told.items
    assert first.startswith(
        "**ill**: In epochs 3 to 5, not at the end: shut. Change `distill_conf."
    )
    assert second.startswith("**ill**: From epoch 8 on: up. Average checkpoints")
    blocks = build_report(ReportInputs(title="x", teacher=None, students=[well]))
    assert Heading("Health") not in blocks


def with_budgets(folder, renamed):
    """Rename the budgets of a summary as ``--budgets`` of another choice would."""
    summary = json.loads((folder / "summary.json").read_text())
    for entry in summary["keywords"]:
        points = [p for p in entry["operating_points"] if p["budget"] in renamed]
        entry["operating_points"] = [{**p, "budget": renamed[p["budget"]]} for p in points]
    fake.write_json(folder / "summary.json", summary)


def test_a_report_of_other_budgets_has_a_headline_and_a_next_step(tmp_path):
    for name in ("teacher", "student"):
        exp_dir = fake.make_run(tmp_path / name)
        folder = fake.make_result(exp_dir / "test_avg_3", ["A"], quality=1.5)
        with_budgets(folder, {"0.5/h": "0.1/h", "1/h": "0.2/h"})
    arguments = ["--teacher_dir", f"{tmp_path}/teacher", "--student_dir", f"{tmp_path}/student"]
    assert main([*arguments, "--out_dir", f"{tmp_path}/out"]) == 0
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| student |"))
    assert "FRR at 0.2/h, own curve (95 %)" in text and row.split("|")[2].strip() != "-"
    assert "**student**: " in text and " at 1/h" not in text
    assert "Quality kept, A" in text


def test_the_headline_budget_is_the_one_closest_to_one_an_hour(tmp_path):
    folder = fake.make_result(tmp_path / "a", ["A"])
    assert headline_budget([read_result("a", folder)]) == "1/h"
    with_budgets(folder, {"0.5/h": "5/h", "1/h": "2/h"})
    assert headline_budget([read_result("a", folder)]) == "2/h"
    with_budgets(folder, {})
    assert headline_budget([read_result("a", folder)]) == "1/h"
    assert headline_budget([]) == "1/h"


def test_too_few_negatives_on_dev_and_the_kinds_of_false_alarms(tmp_path):
    """Dev without a false alarm in 3.05 h supports 0.98/h; budgets were 0.5/h and 1/h."""
    exp_dir = fake.make_run(tmp_path / "student")
    folder = fake.make_result(exp_dir / "test_avg_3", ["A"])
    summary = json.loads((folder / "summary.json").read_text())
    for entry in summary["keywords"]:
        entry["categories"] = [{"category": "music", "utterances": 9, "hours": 3.2}]
        for point in entry["operating_points"]:
            row = {"category": "music", "count": 3, "per_hour": 0.94, "low": 0.19, "high": 2.74}
            point |= {"rule": "upper", "dev_upper_per_hour": 0.9822, "by_category": [row]}
    fake.write_json(folder / "summary.json", summary)
    arguments = ["--student_dir", f"{tmp_path}/student", "--out_dir", f"{tmp_path}/out"]
    assert main(arguments) == 0
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "too few hours of negatives for 0.5/h: it supports 0.98/h at best" in text
    assert "music, 3.20 h" in text and "0.94 (0.19-2.74)" in text


def test_the_page_of_a_healthy_run_needs_no_torch(tmp_path):
    exp_dir = fake.make_run(tmp_path / "student", model=MODEL)
    fake.make_result(exp_dir / "test_avg_3", ["A"])
    arguments = ["--student_dir", str(exp_dir), "--out_dir", str(tmp_path / "out")]
    code = f"import sys; from wekws.bin.report import main; main({arguments})\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "135,636" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


def test_macs_and_look_ahead_follow_the_frame_skip_of_the_run(tmp_path):
    exp_dir = fake.make_run(tmp_path / "student", model=MODEL)
    fake.make_result(exp_dir / "test_avg_3", ["A"])
    config = yaml.safe_load((exp_dir / "config.yaml").read_text())
    config["dataset_conf"] = {"frame_skip": 1}
    (exp_dir / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["--student_dir", str(exp_dir), "--out_dir", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if "| 105 ms |" in line]
    # 134,784 weights a frame, 100 frames a second; 3 blocks x 2 frames x 10 ms + 20 + 25.
    assert row.split("|")[6].strip() == "13.48 M"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "config.yaml: expected a mapping of sections, found nothing"),
        ("model: 3\n", "config.yaml: model: expected a mapping, found 3"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, content, message):
    exp_dir = fake.make_run(tmp_path / "student", model=MODEL)
    fake.make_result(exp_dir / "test_avg_3", ["A"])
    (exp_dir / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        main(["--student_dir", str(exp_dir), "--out_dir", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_avg_3/summary.json", '{"keywords": 3}', "summary.keywords: found 3; expected a"),
        ("test_avg_3/summary.json", '{"keywords": [3]}', r"summary.keywords\[0\]: found 3"),
        ("test_avg_3/stats.A.txt", "\udc80", r"stats\.A\.txt: not text in UTF-8"),
        ("run.json", '{"command": 3}', "run.json: not the record of a training run"),
        ("run.json", '{"teachers": 3}', "run.json: not the record of a training run"),
    ],
)
def test_a_damaged_result_is_named(tmp_path, name, content, message):
    exp_dir = fake.make_run(tmp_path / "student", model=MODEL)
    fake.make_result(exp_dir / "test_avg_3", ["A"])
    (exp_dir / name).write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        main(["--student_dir", str(exp_dir), "--out_dir", str(tmp_path / "out")])
