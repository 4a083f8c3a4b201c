from pathlib import Path

import pytest
import yaml

from wekws.errors import ConfigError
from wekws.sweep.plan import Axis, plan_variants, read_plan

ROOT = Path(__file__).parents[3]
STUDENT = str(ROOT / "conf/fsmn_ctc_student_mini.yaml")


def write_plan(folder, **changes):
    content = {
        "question": "which",
        "student_config": STUDENT,
        "epochs": 4,
        "axes": {
            "start": {"options": {"random": {"init_from_teacher": False}, "teacher": {}}},
            "alpha": {"key": "distill_conf.alpha", "values": [0.2, 0.8]},
        },
        **changes,
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def variants_of(folder, **changes):
    return {v.name: v for v in plan_variants(read_plan(write_plan(folder, **changes)))}


def test_a_grid_is_every_combination_and_ctc_alone_for_every_start(tmp_path):
    variants = variants_of(tmp_path)
    assert list(variants) == [
        "random, 0.2",
        "random, 0.8",
        "teacher, 0.2",
        "teacher, 0.8",
        "random, CTC alone",
        "teacher, CTC alone",
    ]
    assert variants["teacher, 0.8"].content["distill_conf"] == {"alpha": 0.8}
    assert variants["teacher, 0.8"].content["training_config"]["max_epoch"] == 4
    assert [v.init_from_teacher for v in variants.values()] == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    assert variants["random, CTC alone"].content["distill_conf"] == {"alpha": 1.0}


def test_a_baseline_that_the_grid_has_already_is_not_added(tmp_path):
    axes = {"alpha": {"key": "distill_conf.alpha", "values": [0.2, 1.0]}}
    assert list(variants_of(tmp_path, axes=axes)) == ["0.2", "1.0"]


def test_the_same_run_twice_is_refused(tmp_path):
    # 0.5 is the default of alpha: written out or not, it is one run.
    axes = {"a": {"options": {"said": {"settings": {"distill_conf": {"alpha": 0.5}}}, "not": {}}}}
    with pytest.raises(ConfigError, match="not: the same run as said"):
        variants_of(tmp_path, axes=axes)


def test_what_a_run_is_called_depends_on_settings_seed_and_teacher_alone(tmp_path):
    first, other = variants_of(tmp_path), variants_of(tmp_path, question="another", seeds=[5])
    name = "teacher, 0.2"
    assert first[name].identity(1, "t") == other[name].identity(1, "t")
    assert first[name].identity(1, "t") != first[name].identity(1, "u")
    assert first[name].identity(1, "t") != first["teacher, 0.8"].identity(1, "t")
    longer = variants_of(tmp_path, epochs=5)
    assert first[name].identity(1, "t") != longer[name].identity(1, "t")


def test_the_transplant_does_not_count_where_nothing_is_transplanted(tmp_path):
    options = {"x": {"init_from_teacher": False}}
    rules = {"transplant": {"channels": "uniform"}}
    plain = variants_of(tmp_path, axes={"start": {"options": options}})
    ruled = variants_of(tmp_path, axes={"start": {"options": options}}, settings=rules)
    assert plain["x"].identity() == ruled["x"].identity()


def test_a_plan_without_epochs_takes_each_configurations_own(tmp_path):
    settings = {"training_config": {"max_epoch": 30}}
    axes = {"epochs": {"options": {"80": {}, "30": {"settings": settings}}}}
    variants = variants_of(tmp_path, axes=axes, epochs=0)
    lengths = [v.content["training_config"]["max_epoch"] for v in variants.values()]
    assert lengths == [80, 30, 80, 30]  # each with CTC alone beside it


def test_later_options_and_settings_win(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("optim_conf: {lr: 0.5}\n")
    axes = {
        "lr": {"options": {"file": {"overlays": [str(overlay)]}}},
        "more": {"options": {"x": {"settings": {"optim_conf": {"lr": 0.25}}}}},
    }
    assert variants_of(tmp_path, axes=axes)["file, x"].content["optim_conf"]["lr"] == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {}}, "at least one axis"),
        ({"seeds": [1, 1]}, "distinct seeds"),
        ({"axes": {"a": {"key": "x"}}}, "either options, or a key with values"),
        ({"axes": {"a": {"options": {"b": {"setings": {}}}}}}, "did you mean 'settings'"),
        ({"compare_to": "nothing"}, "compare_to: nothing: no variant"),
        ({"settings": {"optim_conf": {"lrr": 1}}}, "random, 0.2: optim_conf.lrr: unknown key"),
        ({"epochs": -1}, "expected epochs >= 0"),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        variants_of(tmp_path, **changes)


def test_numbers_have_an_order_and_names_have_none():
    assert Axis(key="distill_conf.temperature", values=(1, 2.5)).is_numeric
    assert not Axis(key="distill_conf.alpha", values=("cosine_growth", 0.5)).is_numeric


@pytest.mark.parametrize("path", sorted(ROOT.glob("conf/ablation/*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_plan_can_be_resolved(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = read_plan(path)
    assert len(plan_variants(plan, ("conf/overlays/speed.yaml",), num_teachers=2)) >= 2


def test_numbers_of_teachers_are_held_against_those_given(tmp_path):
    options = {"all": {}, "one": {"num_teachers": 1}}
    plan = read_plan(write_plan(tmp_path, axes={"teachers": {"options": options}}))
    found = plan_variants(plan, num_teachers=2)
    assert [v.teachers for v in found] == [(0, 1), (0,), (0,)]  # the last: CTC alone
    with pytest.raises(ConfigError, match="one: the same run as all"):
        plan_variants(plan, num_teachers=1)
    with pytest.raises(ConfigError, match="num_teachers: found -1"):
        options["one"]["num_teachers"] = -1
        read_plan(write_plan(tmp_path, axes={"teachers": {"options": options}}))


def test_a_variant_may_start_from_a_model_that_does_not_teach_it(tmp_path):
    options = {"base": {"teacher": 1, "start": 2}, "teacher": {"teacher": 1}}
    plan = read_plan(write_plan(tmp_path, axes={"start": {"options": options}}))
    found = {v.name: v for v in plan_variants(plan, num_teachers=2)}
    assert {name: (v.teachers, v.start) for name, v in found.items()} == {
        "base": ((0,), 1),
        "teacher": ((0,), 0),
        "base, CTC alone": ((0,), 1),
        "teacher, CTC alone": ((0,), 0),
    }
    assert found["base"].has_own_start and not found["teacher"].has_own_start


def test_a_variant_may_have_one_of_the_teachers_alone(tmp_path):
    options = {"first": {"teacher": 1}, "larger": {"teacher": 2}}
    plan = read_plan(write_plan(tmp_path, axes={"teacher": {"options": options}}))
    found = plan_variants(plan, num_teachers=2)
    # Each teacher is a start of its own, with CTC alone beside it.
    assert {v.name: v.teachers for v in found} == {
        "first": (0,),
        "larger": (1,),
        "first, CTC alone": (0,),
        "larger, CTC alone": (1,),
    }
    with pytest.raises(ConfigError, match="larger: teacher 2; --teacher_checkpoint gives 1"):
        plan_variants(plan, num_teachers=1)
    with pytest.raises(ConfigError, match="first: start 3; --teacher_checkpoint gives 2"):
        options["first"]["start"] = 3
        read = read_plan(write_plan(tmp_path, axes={"teacher": {"options": options}}))
        plan_variants(read, num_teachers=2)
    options["larger"]["num_teachers"] = 2
    with pytest.raises(ConfigError, match="teacher: given beside num_teachers"):
        read_plan(write_plan(tmp_path, axes={"teacher": {"options": options}}))
