"""The next step: one action, in the right order, on figures of equal false alarms."""

import json
from pathlib import Path

import fake_results as fake
import pytest
from test_diagnosis import run_of, write_run
from test_distillation_report import model

from wekws.report.diagnosis import advice, build_diagnosis
from wekws.report.distillation_report import ReportInputs, build_report
from wekws.report.document import to_markdown
from wekws.report.model_folder import read_model
from wekws.report.next_step import compare, next_step

NO_TEACHER = {"teachers": [], "command": "train --model_dir exp/word/teacher"}

ACTIONS = (
    "finish the epochs", "train it longer", "improve the teacher first", "mid student", "**done**",
    "initialise the student", "test on more", "add negatives", "lasted to the end",
    "check labels and dictionary", "train longer or on more", "choose them on more negatives",
)  # fmt: skip


def the_action(texts):
    """The one action of an advice; two would contradict each other."""
    (found,) = [action for action in ACTIONS if action in " ".join(texts)]
    return found


def with_curve(exp_dir, rows, *, positives=400, hours=3.2, point=None):
    """Results of keyword A with this curve: threshold, false alarms per hour, FRR."""
    folder = fake.make_result(exp_dir / "test_avg_3", ["A"], positives=positives, hours=hours)
    text = "".join(f"{t} {rate} {frr}\n" for t, rate, frr in rows)
    (folder / "stats.A.txt").write_text(text)
    summary = json.loads((folder / "summary.json").read_text())
    for found in summary["keywords"][0]["operating_points"]:
        found |= point or {}
    fake.write_json(folder / "summary.json", summary)
    return folder


def test_a_run_of_6_of_80_epochs_is_to_be_finished(tmp_path):
    """The loss fell from 21.68 to 18.94; the teacher ended at 1.9."""
    student = tmp_path / "student"
    write_run(student, [21.68, 20.9, 20.3, 19.8, 19.3, 18.94], max_epoch=80)
    with_curve(student, [(0, 900, 0), (0.4, 0.9, 0.6), (1, 0, 1)])
    teacher = tmp_path / "teacher"
    write_run(teacher, [4.0, 2.5, 2.0, 1.91, 1.9, 1.9, 1.9])
    with_curve(teacher, [(0, 900, 0), (0.4, 0.9, 0.01), (1, 0, 1)])
    runs = [run_of(student), run_of(teacher)]
    (text,) = advice(runs, runs[1], "1/h")
    assert the_action([text]) == "finish the epochs"
    assert "6 of 80 epochs (cv loss 21.68 to 18.94 so far)" in text


def test_a_demo_that_beats_its_teacher_and_still_falls_is_trained_longer(tmp_path):
    """12.75 against 13.00 % at 1/h on the set's own curve; both runs had 12 epochs."""
    student, teacher = tmp_path / "student", tmp_path / "teacher"
    write_run(teacher, [9, 5, 4, 3.5, 3.2, 3.05, 3.0, 2.99, 2.99, 2.98, 2.98, 2.98])
    with_curve(teacher, [(0, 900, 0), (0.5, 0.9, 0.13), (1, 0, 1)])
    losses = [8, 6, 5, 4.5, 4.2, 4.0, 3.8, 3.7, 3.6, 3.5, 3.4, 3.3]
    write_run(student, losses, run={"start": "teacher"})
    with_curve(student, [(0, 900, 0), (0.5, 0.9, 0.1275), (1, 0, 1)])
    models = [read_model(folder.name, folder, "test") for folder in (student, teacher)]
    texts = next_step(*models, "1/h")
    assert the_action(texts) == "train it longer" and "--student_epochs 24" in texts[0]
    # Once it has converged, its teacher is the limit, not its size.
    (student / "metrics.jsonl").write_text((teacher / "metrics.jsonl").read_text())
    texts = next_step(read_model("student", student, "test"), models[1], "1/h")
    assert the_action(texts) == "improve the teacher first"
    # Newcombe: difference -0.25 points, half widths from two Wilson intervals of 400.
    assert "12.8 % (9.83-16.38) at 1/h on this set's own curve, its teacher 13.0 %" in texts[0]
    assert "difference -0.25 points (-4.92 to +4.42)" in texts[0]


def test_kd_that_falls_while_ctc_falls_by_a_thousandth_per_epoch(tmp_path):
    kd = [1000 * 0.1 ** (epoch / 29) for epoch in range(30)]
    losses = [40 * 0.999**epoch for epoch in range(30)]
    rows = [
        {"kind": "step", "epoch": epoch, "step": epoch, "weighted_kd": kd[epoch] / 2}
        for epoch in range(30)
    ]
    teacher = [{"kind": "teacher", "epoch": -1, "cv_loss": 2.0, "cv_accuracy": 0.9}]
    run = write_run(
        tmp_path / "student", losses, more=[*teacher, *rows], cv_kd=kd, cv_accuracy=[0.6] * 30,
        train_ctc=losses, train_loss=kd,
    )  # fmt: skip
    (problem,) = run_of(run).model.problems
    assert problem.name == "task_left_behind" and problem.end_epoch is None
    (text,) = advice([run_of(run)], None, "1/h")
    assert the_action([text]) == "lasted to the end" and "kd on dev fell from" in text
    page = to_markdown(build_diagnosis([run_of(run)], None, {}), tmp_path)
    assert "**KD still falls but CTC does not**, or less than a tenth as fast" in page


def test_a_loss_flat_at_40_has_not_converged(tmp_path):
    run = run_of(write_run(tmp_path / "student", [40.2, 40.1, 40.0, 40.1, 40.0, 40.0]))
    (text,) = advice([run], None, "1/h")
    assert "cv loss 40.00, flat since epoch 0: it does not learn" in text
    page = to_markdown(build_diagnosis([run], None, {}), tmp_path)
    assert "it has been flat since the first epoch and learns nothing" in page
    assert "has converged" not in page


def test_a_flat_loss_at_the_teachers_level_is_fine(tmp_path):
    teacher = [{"kind": "teacher", "epoch": -1, "cv_loss": 2.0, "cv_accuracy": 0.9}]
    run = write_run(tmp_path / "s", [2.1, 2.1, 2.1, 2.1, 2.1, 2.1], more=teacher)
    assert run_of(run).model.problems == []


def test_keyword_tokens_of_which_half_are_wrong_are_no_success(tmp_path):
    run = write_run(tmp_path / "s", [9.0, 5.0, 5.0, 5.0, 5.0], cv_keyword_accuracy=[0.43] * 5)
    (text,) = advice([run_of(run)], None, "1/h")
    assert the_action([text]) == "check labels and dictionary" and "43.0 % of the tokens" in text


def test_a_threshold_that_gives_166_an_hour_is_named_before_any_figure(tmp_path):
    exp_dir = fake.make_run(tmp_path / "student", epochs=30, start_from="teacher")
    alarms = {"count": 531, "per_hour": 166.0, "low": 152.0, "high": 181.0}
    misses = {"count": 2, "rate": 0.005, "low": 0.001, "high": 0.018}
    rows = [(0, 900, 0), (0.1, 166, 0.005), (0.6, 0.9, 0.2), (1, 0, 1)]
    point = {"false_alarms": alarms, "misses": misses, "chosen_on": "dev"}
    with_curve(exp_dir, rows, point=point)
    student = read_model("student", exp_dir, "test")
    text = to_markdown(
        build_report(ReportInputs(title="T", teacher=None, students=[student])), tmp_path
    )
    assert text.index("gives 166.00 false alarms per hour on this set") < text.index("| Model |")
    row = next(line for line in text.splitlines() if line.startswith("| student |"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2].startswith("20.0 %") and cells[3].startswith("0.50 %")
    assert cells[4].startswith("166.00 (152.00-181.00)")
    texts = next_step(student, None, "1/h")
    assert the_action(texts) == "add negatives" and "FRR of 20.0 %" in texts[0]
    assert texts[0].index("false alarms per hour here (A 166.00)") < texts[0].index("FRR of 20.0 %")
    # A student that is done on its own curve does not hide a threshold that misses its budget.
    with_curve(exp_dir, [(0, 900, 0), (0.6, 0.9, 0.02), (1, 0, 1)], point=point)
    texts = next_step(read_model("student", exp_dir, "test"), None, "1/h")
    assert the_action(texts) == "choose them on more negatives" and "(A 166.00)" in texts[0]


@pytest.mark.parametrize(
    ("positives", "hours", "action"),
    [(40, 3.2, "test on more"), (400, 0.5, "test on more"), (400, 3.2, "initialise the student")],
)
def test_a_set_that_is_too_small_comes_before_the_rule(tmp_path, positives, hours, action):
    exp_dir = fake.make_run(tmp_path / "s", epochs=30)
    rows = [(0, 900, 0), (0.5, 0.3, 0.1), (1, 0, 1)]
    with_curve(exp_dir, rows, positives=positives, hours=hours)
    assert the_action(next_step(read_model("s", exp_dir, "test"), None, "1/h")) == action


def test_a_student_far_behind_a_good_teacher_follows_the_rule(tmp_path):
    student = model(tmp_path, "student", 0.10)
    for name, frr, action in (
        ("good", 0.01, "initialise the student"),
        ("fair", 0.06, "initialise the student"),  # 4 points better, beyond chance
        ("equal", 0.09, "improve the teacher first"),
    ):
        assert the_action(next_step(student, model(tmp_path, name, frr), "1/h")) == action
    bad = model(tmp_path, "bad", 0.2), model(tmp_path, "worse", 0.4)
    assert the_action(next_step(bad[1], bad[0], "1/h")) == "improve the teacher first"


def test_too_few_positives_to_tell_teacher_from_student_ask_for_more(tmp_path):
    """18 against 10 % of 100: Newcombe's interval of the difference, -1.7 to +17.8, contains 0."""
    for name, frr in (("student", 0.18), ("teacher", 0.10)):
        exp_dir = fake.make_run(tmp_path / name, epochs=30, start_from="teacher")
        with_curve(exp_dir, [(0, 900, 0), (0.5, 0.3, frr), (1, 0, 1)], positives=100)
    models = [read_model(name, tmp_path / name, "test") for name in ("student", "teacher")]
    texts = next_step(*models, "1/h")
    assert the_action(texts) == "test on more" and "whether the teacher is better" in texts[0]


def test_a_short_schedule_comes_before_a_larger_student(tmp_path):
    losses = [18.11, 17.84, 19.27, 16.08, 16.23, 16.06, 15.17, 15.38, 14.44, 14.17, 14.00, 14.01]
    for name, frr in (("student", 0.25), ("teacher", 0.06)):
        run = {"start": "teacher"} if name == "student" else NO_TEACHER
        write_run(tmp_path / name, losses, run=run)
        with_curve(tmp_path / name, [(0, 900, 0), (0.5, 0.3, frr), (1, 0, 1)])
    models = [read_model(name, tmp_path / name, "test") for name in ("student", "teacher")]
    texts = next_step(*models, "1/h")
    assert the_action(texts) == "train it longer" and "--student_epochs 24" in texts[0]


@pytest.mark.parametrize(
    ("frr", "words"),
    [
        (0.2, "above 15 %: **train it longer or on more, more varied data** before a student is"),
        (0.09, "5 and 15 %: **train it longer or on more, more varied data** before a student is"),
        (0.01, "**done**; a student can be distilled from it"),
    ],
)
def test_a_teacher_is_advised_as_a_teacher(tmp_path, frr, words):
    write_run(tmp_path / "t", [9, 5, 4, 3, 3, 3, 3, 3, 3], run=NO_TEACHER)
    with_curve(tmp_path / "t", [(0, 900, 0), (0.5, 0.3, frr), (1, 0, 1)])
    text = " ".join(advice([run_of(tmp_path / "t")], None, "1/h"))
    assert words in text and "init_from_teacher" not in text


def test_a_longer_training_is_a_command_that_trains_nothing_else_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    falling = [12, 11, 10, 9, 8, 7]
    write_run(Path("exp/word/teacher"), falling, run=NO_TEACHER)
    write_run(Path("exp/word/base"), falling, run={"teachers": [], "command": "--model_dir base"})
    Path("exp/word/base/final.pt").touch()
    student = {"teachers": ["exp/word/teacher/avg_3.pt"]}
    write_run(Path("exp/word/student"), falling, run=student)
    expected = {
        "base": "--name word_12_epochs --base_epochs 12",
        "teacher": "--name word_12_epochs --base_checkpoint exp/word/base/final.pt "
        "--teacher_epochs 12",
        "student": "--student_name student_12_epochs --student_epochs 12",
    }
    for name, flags in expected.items():
        (text,) = advice([run_of(Path("exp/word") / name)], None, "1/h")
        assert f"**train it longer**, such as with `{flags}` added to the command" in text
        assert "Keep it if `wekws.bin.compare_runs` finds fewer misses" in text


def test_an_unfinished_teacher_needs_another_student(tmp_path):
    """Its student cannot go on: it was distilled from another average."""
    teacher = run_of(write_run(tmp_path / "t", [9, 8, 7], max_epoch=9, run=NO_TEACHER))
    student = run_of(write_run(tmp_path / "student", [5, 4, 3], run={"teachers": ["t/avg_3.pt"]}))
    (text,) = advice([teacher, student], teacher, "1/h")
    assert "its teacher has finished 3 of 9 epochs" in text
    assert "continues after the last one; add `--student_name student_2`" in text
    (text,) = advice([teacher], None, "1/h")
    assert "with a new `--student_name`, if a student was distilled from it before" in text


def test_an_interval_across_a_limit_is_a_caution(tmp_path):
    texts = next_step(model(tmp_path, "s", 0.045), None, "1/h")
    assert "**done**" in texts[0] and "contains 5 %" in texts[1]


def test_a_paired_interval_is_used_where_both_were_scored_on_one_list(tmp_path):
    rows = [{"key": f"p{i}", "wav": "x.wav", "txt": "A", "duration": 1.0} for i in range(200)] + [
        {"key": f"n{i}", "wav": "x.wav", "txt": "B", "duration": 36.0} for i in range(200)
    ]
    data_list = tmp_path / "data.list"
    data_list.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = []
    for name, missed in (("student", 30), ("teacher", 20)):
        exp_dir = fake.make_run(tmp_path / name, epochs=30)
        curve = [(0, 100, 0), (0.5, 0.5, missed / 200), (1, 0, 1)]
        folder = with_curve(exp_dir, curve, positives=200, hours=2.0)
        fake.write_json(folder / "score.json", {"data_list": str(data_list), "keywords": ["A"]})
        lines = [f"p{i} detected A {0.2 if i < missed else 0.9}\n" for i in range(200)]
        lines += [f"n{i} detected A {0.5 if i < 3 else 0.3}\n" for i in range(200)]
        (folder / "score.txt").write_text("".join(lines))
        made.append(read_model(name, exp_dir, "test"))
    found = compare(*made, "1/h").difference
    # The student misses the teacher's 20 and 10 more: better than two independent intervals.
    assert found.value == pytest.approx(0.05) and found.low > 0
