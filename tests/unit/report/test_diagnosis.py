"""The diagnosis on constructed runs; the numbers it says are worked out here."""

import json

import fake_results as fake
import pytest
import yaml

from wekws.bin.diagnose import main
from wekws.errors import ConfigError
from wekws.files import file_sha256
from wekws.report.diagnosis import advice, build_diagnosis, find_teacher, read_run
from wekws.report.diagnosis_detection import confidences
from wekws.report.diagnosis_run import epochs_to, slope, tail_slope
from wekws.report.diagnosis_terms import ctc_and_kd, stages
from wekws.report.diagnosis_training import accuracy, convergence, start_gap
from wekws.report.document import Bullets, Heading, Table, to_markdown

KEYWORDS = ["嗨小问", "你好问问"]


def write_run(
    exp_dir, losses, *, start=50.0, more=(), run=None, max_epoch=None, outputs=20, cv_data="dev",
    **columns,
):  # fmt: skip
    """A run of these cv losses; columns: name -> a value an epoch."""
    exp_dir.mkdir(parents=True)
    rows = [{"kind": "cv", "epoch": -1, "cv_loss": start}, *more]
    for epoch, loss in enumerate(losses):
        own = {name: values[epoch] for name, values in columns.items()}
        rows.append({"kind": "cv", "epoch": epoch, "cv_loss": loss, **own})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (exp_dir / "metrics.jsonl").write_text(text, encoding="utf-8")
    config = {"model": {"output_dim": outputs}, "training_config": {}}
    config["training_config"]["max_epoch"] = max_epoch or len(losses)
    (exp_dir / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    record = {"command": "x", "num_parameters": 1000, "cv_data": cv_data, **(run or {})}
    fake.write_json(exp_dir / "run.json", record)
    return exp_dir


def run_of(exp_dir):
    return read_run(exp_dir.name, exp_dir, "test")


def table_of(blocks):
    return next(block for block in blocks if isinstance(block, Table))


def said(blocks):
    return "\n".join(item for block in blocks if isinstance(block, Bullets) for item in block.items)


def test_slopes_are_least_squares():
    # Of 1, 2, 4: mean place 1, ((-1) 1 + 0 2 + 1 4) / 2 = 1.5.
    assert slope([1.0, 2.0, 4.0]) == 1.5
    # Of the last five, 10 9 8 7 6: -1 an epoch, an eighth of their mean.
    assert tail_slope([30.0, 10.0, 9.0, 8.0, 7.0, 6.0]) == (-1.0, -0.125)
    assert tail_slope([3.0, 2.0]) is None


def test_epochs_are_counted_from_one():
    assert [epochs_to([9.0, 7.0, 5.0], goal) for goal in (9.5, 7.0, 5.5, 4.0)] == [1, 2, 3, None]


def test_convergence_says_who_still_moves_and_who_was_where_sooner(tmp_path):
    fast = write_run(tmp_path / "fast", [10.0, 8.0, 6.0, 6.0, 6.0, 6.0, 6.0])
    slow = write_run(
        tmp_path / "slow", [20.0, 12.0, 11.0, 10.0, 9.0, 8.0],
        max_epoch=9, lr=[1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 5e-4],
    )  # fmt: skip
    blocks = convergence([run_of(fast), run_of(slow)])
    first, second = (block for block in blocks if isinstance(block, Table))
    assert first.rows[0][:6] == ["fast", "7 of 7", "50.00", "10.00", "6.00 (2)", "6.00"]
    # 12 11 10 9 8: -1 an epoch, a tenth of their mean, 10.
    assert first.rows[1][1] == "6 of 9" and first.rows[1][6] == "-1.000 (-10.00 %)"
    assert first.rows[1][7:] == ["0.001", "0.0005"]
    assert second.rows == [["fast", "-", "2 of 7"], ["slow", "not reached", "-"]]
    text = said(blocks)
    assert "fast: over the last 5 epochs the cv loss changed by +0.000 per epoch" in text
    assert "less than 1 %, so it has converged" in text
    assert "**it still falls**: train more epochs" in text
    assert (
        "fast reached the final loss of slow, 8.00, after 2 epochs instead of 6: 3.0 times" in text
    )


def test_a_spent_learning_rate_asks_for_a_longer_schedule_and_a_rise_for_an_earlier_epoch(tmp_path):
    spent = write_run(tmp_path / "a", [9.0, 8.0, 7.0], lr=[1e-3, 1e-4, 1e-5])
    rising = write_run(tmp_path / "b", [7.0, 8.0, 9.0])
    text = said(convergence([run_of(spent), run_of(rising)]))
    assert (
        "the learning rate is close to 0: use a longer schedule" in text and "**it rises**" in text
    )


def test_a_loss_that_stands_still_at_the_end_of_a_short_schedule_does_not_fall(tmp_path):
    """A teacher of 12 epochs: the fit over 5 falls by 2.2 %, the last two epochs do not."""
    losses = [18.11, 17.84, 19.27, 16.08, 16.23, 16.06, 15.17, 15.38, 14.44, 14.17, 14.00, 14.01]
    rates = [1e-3] * 6 + [4e-4, 3e-4, 2e-4, 9e-5, 3e-5, 1e-5]
    run = run_of(write_run(tmp_path / "t", losses, lr=rates, run={"teachers": []}))
    assert tail_slope(losses)[1] == pytest.approx(-0.022, abs=0.001)
    text = said(convergence([run]))
    assert "no longer falls in the last 3 of them, but the schedule of 12 epochs was short" in text
    fake.make_result(tmp_path / "t" / "test_avg_3", ["A"], quality=2.0)
    texts = advice([run_of(tmp_path / "t")], None, "1/h")
    assert "still fell" not in texts[0]
    assert "Its schedule of 12 epochs was short" in texts[0] and "epochs 24`" in texts[0]
    long = run_of(write_run(tmp_path / "long", [20.0] * 10 + losses))
    assert "no longer falls in the last 3 of them, so it has converged" in said(convergence([long]))


def test_runs_of_two_dev_lists_are_not_compared(tmp_path):
    one = run_of(write_run(tmp_path / "one", [9.0, 8.0], cv_data="a"))
    two = run_of(write_run(tmp_path / "two", [5.0, 4.0], cv_data="b"))
    tables = [block for block in convergence([one, two]) if isinstance(block, Table)]
    other = "another dev set or other tokens"
    assert tables[1].rows == [["one", "-", other], ["two", other, "-"]]
    blocks = build_diagnosis([one, two], None, {})
    assert "measured on 2 dev lists (a, b)" in to_markdown(blocks, tmp_path)


TEACHER = {"kind": "teacher", "epoch": -1, "cv_loss": 10.0, "cv_accuracy": 0.8}
START = {"kind": "start", "epoch": -1, "random": 100.0, "gap_closed": 0.75}


def test_the_start_is_held_against_the_teacher(tmp_path):
    run = write_run(tmp_path / "s", [20.0, 12.0], start=50.0, more=[TEACHER, START])
    blocks = start_gap([run_of(run)])
    row = ["s", "10.00", "100.00", "50.00", "75.0 %", "12.00", "+2.00 (+20.0 %)"]
    assert table_of(blocks).rows == [row]
    # From 50 to 12 of the way from 50 to 10: 38 of 40.
    assert said(blocks) == (
        "s began at 5.0 times its teacher's cv loss, with 75.0 % of the gap from random weights "
        "closed, and ended 20.0 % above it; training closed 95.0 % of the distance."
    )
    better = write_run(tmp_path / "t", [20.0, 9.0], more=[TEACHER])
    assert "and ended 10.0 % below it" in said(start_gap([run_of(better)]))
    assert start_gap([run_of(write_run(tmp_path / "u", [3.0]))]) == []


def test_accuracy_is_held_against_the_teacher(tmp_path):
    values = [0.1, 0.3, 0.5, 0.7, 0.6]
    run = write_run(tmp_path / "s", [5, 4, 3, 2, 1], more=[TEACHER], cv_accuracy=values)
    blocks = accuracy([run_of(run)])
    # Slope of 10 30 50 70 60: (-2 10 - 30 + 70 + 2 60) / 10 = 14.
    expected = ["s", "all", "10.0 %", "30.0 %", "60.0 %", "70.0 % (3)", "+14.00", "80.0 %"]
    assert table_of(blocks).rows == [expected]
    assert said(blocks) == "s, all utterances: 60.0 % at the end, 20.0 points below its teacher."


def kd_run(folder, kd, losses=(20.0, 12.0, *[10.0] * 6), weighed=True, cosines=(), teacher=()):
    rows = [
        {"kind": "gradient", "epoch": i, "grad_cos_kd": c, "grad_share_kd": 0.5}
        for i, c in enumerate(cosines)
    ]
    trained = {"train_ctc": list(losses), "train_loss": [x + weighed for x in losses]}
    return run_of(write_run(folder, list(losses), more=[*teacher, *rows], cv_kd=kd, **trained))


def test_kd_that_falls_alone_shows_with_the_angle(tmp_path):
    run = kd_run(tmp_path / "s", [40, 30, 24, 20, 18, 16, 15, 14], cosines=[0.5, 0.3, -0.1, -0.2])
    blocks = ctc_and_kd([run])
    # Last epochs: the mean of 24, 20, 18 to that of 16, 15, 14 is -27.4 %, 10 to 10 none.
    assert table_of(blocks).rows == [
        ["s", "20.00 to 10.00", "40.00 to 14.00", "-50.0 %", "-65.0 %", "+0.0 %", "-27.4 %",
         "+0.12", "50 %"]
    ]  # fmt: skip
    text = said(blocks)
    assert "KD changed by -27.4 %, CTC by +0.0 %: **KD still falls but CTC does not**" in text
    assert "went from +0.50 in the first third to -0.20 in the last" in text
    assert "opposed in 50 % of the probes" in text


def test_kd_that_falls_alone_is_fine_at_the_teachers_level(tmp_path):
    """CTC ends at 10, the level of its teacher: the health rule exempts it too."""
    run = kd_run(tmp_path / "s", [40, 30, 24, 20, 18, 16, 15, 14], teacher=[TEACHER])
    text = said(ctc_and_kd([run]))
    assert "CTC by +0.0 %: KD still falls, and CTC is at the teacher's level already" in text
    assert "**" not in text and run.model.problems == []


@pytest.mark.parametrize(
    ("kd", "losses", "sentence"),
    [
        ([40, 30, *[20] * 6], [20.0, 12.0, *[10.0] * 6], "neither changes any more. Gradients"),
        ([40, 30, *[20] * 6], [20.0, 12.0, *[10.0] * 3, *[11.0] * 3], "CTC by +10.0 %: CTC rises"),
        ([20, 20, 20, 30, 30, 30], [11.0] * 3 + [10.0] * 3, "CTC falls while KD rises"),
        ([40, 40, 40, 30, 30, 30], [12.0] * 3 + [10.0] * 3, "they change together"),
        (
            [40, 30, 20, 10, 10],
            [5.0, 4.0, 3.0, 2.0, 2.0],
            "fewer than 6 epochs (of the last",
        ),
    ],
)
def test_how_ctc_and_kd_change_in_the_last_epochs(tmp_path, kd, losses, sentence):
    assert sentence in said(ctc_and_kd([kd_run(tmp_path / "s", kd, losses)]))


def test_epochs_before_the_last_stage_do_not_tell_how_ctc_and_kd_change(tmp_path):
    stage = ["task"] * 3 + ["kd"] * 5
    run = run_of(write_run(tmp_path / "s", [10.0] * 8, cv_kd=[20.0] * 8, stage=stage))
    assert table_of(ctc_and_kd([run])).rows[0][5:7] == ["-", "-"]


def test_speeds_leave_out_the_teacher_and_runs_with_problems(tmp_path):
    teacher = run_of(write_run(tmp_path / "teacher", [18.0, 17.0, 16.0, 15.0]))
    student = run_of(write_run(tmp_path / "student", [15.0, 14.5, 14.0, 13.5]))
    flat = run_of(write_run(tmp_path / "flat", [40.0] * 40))
    zero = run_of(write_run(tmp_path / "zero", [0.0] * 12))
    assert [p.name for p in flat.model.problems] == ["loss_flat"]
    assert "flat since epoch 0" in flat.model.problems[0].text
    text = said(convergence([teacher, student, flat, zero], teacher))
    assert "times as fast" not in text
    # Two students are compared.
    assert "student reached the final loss of teacher, 15.00, after 1 epoch instead of 4" in said(
        convergence([teacher, student])
    )


def test_kd_that_only_was_measured_is_said_so(tmp_path):
    run = kd_run(tmp_path / "s", [40, 30, 24, 20, 18, 16, 15, 60], weighed=False)
    assert "had no weight in the loss; it changed by +50.0 %" in said(ctc_and_kd([run]))
    assert ctc_and_kd([run_of(write_run(tmp_path / "u", [3.0, 2.0]))]) == []


def test_stages_are_held_against_what_they_began_with(tmp_path):
    run = write_run(
        tmp_path / "s", [25.0, 20.0, 10.0, 11.0], start=50.0,
        stage=["task", "task", "kd", "tail"], cv_accuracy=[0.1, 0.2, 0.5, 0.4],
    )  # fmt: skip
    blocks = stages([run_of(run)])
    assert table_of(blocks).rows == [
        ["s", "task", "0 to 1", "50.00", "20.00", "-60.0 %", "-"],
        ["s", "kd", "2 to 2", "20.00", "10.00", "-50.0 %", "+30.0"],
        ["s", "tail", "3 to 3", "10.00", "11.00", "+10.0 %", "-10.0"],
    ]
    assert "stage tail improved the cv loss least, +10.0 %; **it made it worse**" in said(blocks)
    assert stages([run_of(write_run(tmp_path / "plain", [3.0]))]) == []


def test_the_teacher_is_the_run_that_the_others_name(tmp_path):
    teacher = write_run(tmp_path / "exp" / "teacher", [3.0])
    run = {"teachers": ["/moved/since/exp/teacher/avg_5.pt"], "start": "teacher"}
    student = write_run(tmp_path / "exp" / "student", [4.0], run=run)
    runs = [run_of(student), run_of(teacher)]
    assert find_teacher(runs).name == "teacher"
    assert find_teacher(runs[:1]) is None and find_teacher(runs[1:]) is None
    other = write_run(tmp_path / "other" / "teacher", [3.0])
    assert find_teacher([run_of(student), run_of(other)]) is None
    assert runs[0].model.was_initialised


def test_a_teacher_is_found_by_its_checkpoint_in_a_renamed_folder(tmp_path):
    teacher = write_run(tmp_path / "orig" / "large", [3.0], run={"teachers": []})
    (teacher / "avg_5.pt").write_bytes(b"weights")
    content = file_sha256(teacher / "avg_5.pt")[:16]
    run = {"teachers": ["exp/word/teacher/avg_5.pt"], "teacher_fingerprints": [content]}
    student = run_of(write_run(tmp_path / "orig" / "small", [4.0], run=run))
    assert find_teacher([student, run_of(teacher)]).name == "large"
    # The folder of the same name has another checkpoint.
    other = write_run(tmp_path / "word" / "teacher", [3.0], run={"teachers": []})
    (other / "avg_5.pt").write_bytes(b"others")
    assert find_teacher([run_of(other), student]) is None
    page = to_markdown(build_diagnosis([run_of(teacher)], None, {}), tmp_path)
    assert "| large | teacher |" in page


def test_a_run_that_did_not_watch_itself_is_watched_now(tmp_path):
    rows = [9.0, 6.0, 5.0, 5.3, 5.5, 5.8, 6.1]
    ill = run_of(write_run(tmp_path / "ill", rows))
    (problem,) = ill.model.problems
    assert (problem.name, problem.first_epoch) == ("loss_rising", 6)
    assert "Average checkpoints around the best epoch" in "\n".join(advice([ill], None, "1/h"))
    blocks = build_diagnosis([ill], None, {})
    (told,) = [b for a, b in zip(blocks, blocks[1:], strict=False) if a == Heading("Health")]
    assert told.items[0].startswith("**ill**: From epoch 6 on: cv loss 6.10, above its best, 5.00")


@pytest.mark.parametrize("has_results", [True, False])
def test_the_command_writes_a_page_for_whatever_there_is(tmp_path, capsys, has_results):
    fake.make_run(tmp_path / "teacher", epochs=8, has_kd=False)
    fake.make_run(tmp_path / "student", epochs=5, max_epoch=9)
    if has_results:
        for name, quality in (("teacher", 3.5), ("student", 2.0)):
            fake.make_result(tmp_path / name / "test_avg_5", KEYWORDS, quality=quality)
    out = tmp_path / "out"
    flags = [f"--teacher_dir={tmp_path / 'teacher'}", f"--out_dir={out}"]
    assert main([str(tmp_path / "student"), *flags]) == 0
    markdown, page = (out / f"diagnosis.{kind}" for kind in ("md", "html"))
    assert capsys.readouterr().out.split() == [str(markdown), str(page)]
    text = markdown.read_text(encoding="utf-8")
    assert "student has finished 5 of 9 epochs" in text and "(curves.png)" in text
    assert ("## FRR at the budgets" in text) == has_results
    assert ("it separates them **less** clearly" in text) == has_results
    assert ("evaluate it" in text) is False
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")


def test_a_single_run_that_has_not_trained_yet_and_a_folder_of_none(tmp_path):
    one = write_run(tmp_path / "new", [], max_epoch=3)
    assert main([str(one), "--out_dir", str(tmp_path / "out")]) == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="expected the folder of a run"):
        main([str(tmp_path / "empty"), "--out_dir", str(tmp_path / "out")])


def test_what_the_check_said_of_one_teacher_is_said_once(tmp_path):
    heard = {"positives": 9, "negatives": 5, "median": 0.8, "negative_median": 0.01}
    row = {**TEACHER, "confidences": {"A": {**heard, "separation": 0.975}}}
    run = {"teachers": ["exp/t/avg_5.pt"]}
    runs = [run_of(write_run(tmp_path / name, [5.0], more=[row], run=run)) for name in "ab"]
    assert said(confidences(runs, None, "1/h")) == (
        "The teacher, exp/t/avg_5.pt, on dev, A: median confidence 0.8 on 9 positives and 0.01 on "
        "5 negatives; a positive scores above a negative in 97.5 % of the pairs."
    )


def test_an_accuracy_that_stays_0_is_diagnosed(tmp_path):
    run = write_run(tmp_path / "s", [30.0, 29.0, 28.0, 27.0], cv_accuracy=[0.0] * 4)
    assert main([str(run), "--out_dir", str(tmp_path / "out")]) == 0
    assert "| s | all | 0.0 % | 0.0 % | 0.0 % |" in (tmp_path / "out/diagnosis.md").read_text()


def test_a_health_problem_of_another_version_is_reported_without_a_remedy(tmp_path):
    rows = [
        {"kind": "layers", "epoch": 0, "gradient": {}},
        {"kind": "health", "epoch": 1, "problem": "too_quiet", "state": "began", "text": "hush"},
    ]
    run = write_run(tmp_path / "s", [9.0, 8.0], more=rows)
    assert main([str(run), "--out_dir", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/diagnosis.md").read_text()
    assert (
        "a problem lasted to the end of training: hush." in text
        and "**s**: From epoch 1 on: hush." in text
    )
