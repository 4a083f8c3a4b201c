import fake_results as fake
import pytest
from test_distillation_report import MODEL, model

from wekws.report.distillation_report import ReportInputs, build_report
from wekws.report.document import to_markdown
from wekws.report.model_folder import read_model
from wekws.report.savings import savings_blocks

SPEED = {
    "num_threads": 1,
    "teacher": {"forward_ms": 1.5},
    "student": {"forward_ms": 0.6},
    "speed_up": 2.5,
}


@pytest.fixture
def models(tmp_path):
    teacher = model(tmp_path, "teacher", 0.05, params=400_000)
    return teacher, model(tmp_path, "student", 0.145, params=100_000)


def test_the_balance_by_hand(tmp_path, models):
    fake.write_json(tmp_path / "student" / "speed.json", SPEED)
    student = read_model("student", tmp_path / "student", "test")
    heading, table = savings_blocks(models[0], [student], "1/h")
    assert heading.text == "Savings and quality kept"
    assert table.header == ["", "student"]
    # 400,000 / 100,000; 0.855 / 0.95.
    assert dict(table.rows) == {
        "Compression": "4.0 x",
        "Speed-up, measured": "2.5 x (0.60 ms, teacher 1.50 ms)",
        "Quality kept, A": "90.0 % (14.5 %, teacher 5.00 %)",
    }


def test_what_was_not_measured_has_no_line(models):
    rows = savings_blocks(models[0], models[1:], "1/h")[1].rows
    assert [row[0] for row in rows] == ["Compression", "Quality kept, A"]
    assert savings_blocks(None, models, "1/h") == [] == savings_blocks(models[0], [], "1/h")


def test_macs_come_from_the_configurations(tmp_path):
    wide = {**MODEL, "backbone": {**MODEL["backbone"], "linear_dim": 320, "proj_dim": 128}}
    made = []
    for name, sizes in (("teacher", wide), ("student", MODEL)):
        exp_dir = fake.make_run(tmp_path / name, model=sizes)
        fake.make_result(exp_dir / "test_avg_3", ["A"], positives=50, negatives=50)
        made.append(read_model(name, exp_dir, "test"))
    table = savings_blocks(made[0], made[1:], "1/h")[1]
    # Weights a frame: 38,400 + 96 * 320 + 3 * (2 * 320 * 128 + 12 * 128) + 320 * 96 + 1,920 over
    # 38,400 + 96 * 160 + 3 * (2 * 160 * 64 + 12 * 64) + 160 * 96 + 1,920.
    assert dict(table.rows)["Fewer MACs"] == f"{352_128 / 134_784:.1f} x"


def test_a_teacher_that_misses_everything_leaves_nothing_to_keep(tmp_path, models):
    deaf = model(tmp_path, "deaf", 1.0, params=400_000)
    assert [row[0] for row in savings_blocks(deaf, models[1:], "1/h")[1].rows] == ["Compression"]


def test_it_is_in_the_report(tmp_path, models):
    blocks = build_report(ReportInputs(title="T", teacher=models[0], students=models[1:]))
    assert "Savings and quality kept" in to_markdown(blocks, tmp_path)
