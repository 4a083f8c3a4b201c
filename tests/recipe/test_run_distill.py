"""run_distill.sh and evaluate.sh: every stage, on tones."""

import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import soundfile
from recipe_copy import CONFIGS, SMALL, Recipe
from tones import write_split

from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import Vocabulary, read_keywords
from wekws.files import read_json
from wekws.model.checkpoint import load_weights
from wekws.runlog.metrics_reader import read_cv_rows
from wekws.score.summary_file import validate_summary
from wekws.yaml_files import read_yaml

KEYWORDS = ("--keywords", "ab, ba a")
EPOCHS = ("--base_epochs", 1, "--teacher_epochs", 2, "--num_average", 2, "--num_tokens", 4)
LISTS, EXP = "data/my tones", "exp/my tones"

RESULTS = {
    "score.txt", "score.json", "events.tsv", "stats.AB.txt", "stats.BA_A.txt", "summary.json",
    "summary.md", "det.png", "confidence.png",
}  # fmt: skip
DEV_SCORES = {"score.txt", "score.json", "events.tsv"}
RUN = {
    *("config.yaml", "dict.txt", "keywords.txt", "metrics.jsonl", "run.json", "train_state.pt"),
    "global_cmvn.kaldi",
}


@dataclass(frozen=True)
class Finished:
    """A copy of the recipe in which all stages have run once, and what they left and said."""

    recipe: Recipe
    options: tuple
    files: frozenset[str]
    said: str


@pytest.fixture(scope="module")
def finished(recipe, tone_folder) -> Finished:
    options = ("--data_dir", tone_folder, *KEYWORDS, *CONFIGS, "--overlay", "none", *EPOCHS, *SMALL)
    as_users_start_it = replace(recipe, python_dir=Path(sys.executable).parent)
    said = as_users_start_it.run("run_distill.sh", *options, "--student_epochs", 2)
    return Finished(recipe, options, frozenset(recipe.files("data", "exp")), said)


def stages(said):
    return [int(number) for number in re.findall(r"^== stage (-?\d+) ", said, re.MULTILINE)]


def below(files, folder):
    """Names below a folder; what differs from run to run is made plain."""
    names = {name.removeprefix(f"{folder}/") for name in files if name.startswith(f"{folder}/")}
    return {re.sub(r"tfevents\..*", "tfevents", name) for name in names}


def cv_epochs(recipe, model_dir):
    return [row["epoch"] for row in read_cv_rows(recipe.folder / EXP / model_dir)]


def test_data_stages_write_these_files(finished):
    lists = below(finished.files, LISTS)
    tables = {"wav.scp", "text", "utt2spk", "utt2dur", "utt2category", "data.list"}
    caches = {name for name in lists if name.startswith("cache/")}
    expected = {f"{split}/{table}" for split in ("train", "dev", "test") for table in tables}
    expected |= {"dict/dict.txt", "dict/dict_all.txt", "dict/keywords.txt", "dict/.done"}
    expected |= {f"validation/{name}" for name in ("validation.json", "validation.md")}
    expected |= {"validation/durations.png", "global_cmvn", ".prepared", ".listed"}
    assert lists - caches == expected
    # One cache a split: teacher and student, training and scoring share it.
    kept = sorted(re.sub("_[0-9a-f]{10}/", "/", name) for name in caches if "lock" not in name)
    arrays = ("feats.npy", "meta.json", "offsets.npy")
    assert kept == [f"cache/{s}_data/{name}" for s in ("dev", "test", "train") for name in arrays]


def test_data_stages_hold_what_was_asked_for(finished, tone_folder):
    lists = finished.recipe.folder / LISTS
    assert read_keywords(lists / "dict" / "keywords.txt") == ["AB", "BA A"]
    assert Vocabulary.load(lists / "dict" / "dict.txt").tokens == ("<blk>", "<filler>", "A", "B")
    assert Vocabulary.load(lists / "dict" / "dict_all.txt").tokens[4:] == ("C",)
    test = {utterance.key: utterance for utterance in read_data_list(lists / "test" / "data.list")}
    assert len(test) == 11 and test["test_01"].txt == "BA A"
    assert test["test_long_00"].wav == str(tone_folder / "test" / "long" / "test_long_00.wav")
    assert test["test_long_00"].duration == pytest.approx(6.2)
    report = read_json(lists / "validation" / "validation.json")
    assert report["splits"]["test"]["keywords"] == {"AB": 2, "BA A": 4}


def test_training_stages_write_these_files(finished):
    events = {"tensorboard/events.out.tfevents"}
    epoch, final = {"0.pt", "0.yaml"}, {"final.pt", "final.yaml", "best.pt", "best.yaml"}
    base = RUN | epoch | final | events | {"global_cmvn"}
    assert below(finished.files, f"{EXP}/base") == base
    assert below(finished.files, f"{EXP}/teacher_init") == {"init.pt", "config.yaml", "dict.txt"}
    trained = RUN | epoch | final | events | {"1.pt", "1.yaml", "avg_2.pt", "avg_2.yaml"}
    results = {f"dev_{tag}/{name}" for tag in ("final", "avg_2") for name in DEV_SCORES}
    results |= {f"test_{tag}/{name}" for tag in ("final", "avg_2") for name in RESULTS}
    assert below(finished.files, f"{EXP}/teacher") == trained | results
    student = {f"dev_avg_2.int8/{name}" for name in DEV_SCORES}
    student |= {f"test_avg_2.int8/{name}" for name in RESULTS}
    student |= {"speed.json", "avg_2.thresholds.json", "avg_2.onnx", "avg_2.int8.onnx"}
    student |= {"detector_cost.json"}
    assert below(finished.files, f"{EXP}/student") == trained | results | student
    plots = {f"{name}.png" for name in ("det", "confidence", "curves", "durations")}
    diagnosis = {"diagnosis.md", "diagnosis.html", "curves.png", "confidence.png"}
    pages = {"report.md", "report.html", "errors.html"}
    report = {n for n in below(finished.files, f"{EXP}/report") if not n.startswith("errors/")}
    assert report == plots | pages | {f"diagnosis/{name}" for name in diagnosis}
    page = (finished.recipe.folder / EXP / "report" / "report.html").read_text(encoding="utf-8")
    assert 'href="errors.html"' in page and 'href="diagnosis/diagnosis.html"' in page
    assert {name.split("/")[2] for name in finished.files if name.startswith("exp/")} == {
        "base", "teacher_init", "teacher", "student", "report", "stage_times.txt",
    }  # fmt: skip
    times = (finished.recipe.folder / EXP / "stage_times.txt").read_text().splitlines()
    assert [line.split()[0] for line in times[:9]] == [str(stage) for stage in range(-2, 7)]


def test_models_are_of_the_sizes_asked_for(finished):
    exp = finished.recipe.folder / EXP
    configs = {name: read_yaml(exp / name / "config.yaml") for name in ("base", "teacher")}
    configs["student"] = read_yaml(exp / "student" / "config.yaml")
    outputs = {name: config["model"]["output_dim"] for name, config in configs.items()}
    assert outputs == {"base": 5, "teacher": 4, "student": 4}
    assert configs["student"]["model"]["backbone"]["num_layers"] == 1
    assert configs["student"]["dataset_conf"]["batch_conf"]["batch_size"] == 8
    assert read_yaml(exp / "student" / "avg_2.yaml")["averaged_epochs"] == [0, 1]
    # The student begins where slices of the teacher put it, and the log accounts for each tensor.
    named = re.findall(r"(\S+) +from .+ \(.*\) to \(.*\): (?:copied|sliced)", finished.said)
    assert sorted(named) == sorted(load_weights(exp / "student" / "final.pt"))
    for name in ("teacher", "student"):
        rows = read_cv_rows(exp / name)
        assert [row["epoch"] for row in rows] == [-1, 0, 1]
        assert rows[-1]["cv_loss"] < rows[0]["cv_loss"]


@pytest.mark.parametrize("result", ["teacher/test_final", "student/test_avg_2"])
def test_summaries_keep_to_the_schema(finished, result):
    summary = read_json(finished.recipe.folder / EXP / result / "summary.json")
    validate_summary(summary)
    assert summary["checkpoint"].endswith(f"{result.replace('test_', '')}.pt")
    assert [entry["keyword"] for entry in summary["keywords"]] == ["AB", "BA A"]
    for entry in summary["keywords"]:
        assert [point["budget"] for point in entry["operating_points"]] == [
            "0.5/h", "1/h", "1 in all",
        ]  # fmt: skip
        assert {point["chosen_on"] for point in entry["operating_points"]} == {"dev"}
    assert [entry["positives"] for entry in summary["keywords"]] == [2, 4]
    assert summary["utterances"] == 11 and summary["not_scored"] == 0


def test_report_compares_both_models_and_says_what_next(finished):
    folder = finished.recipe.folder / EXP / "report"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(re.findall('src="data:image/png;base64,', page)) == 4
    links = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page))
    assert links == {"errors.html", "diagnosis/diagnosis.html"}
    assert all((folder / link).is_file() for link in links)
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "teacher" in report and "student" in report and "BA A" in report
    assert finished.said.endswith(f"report: {folder / 'report.html'}\n")
    assert stages(finished.said) == [-2, -1, 0, 1, 2, 3, 4, 5, 6]
    assert "average of 2, ONNX int8" in report and "avg_2.int8.onnx" in report
    assert "| student, ONNX int8 | " in report


def test_finished_data_stages_are_skipped(finished):
    recipe = finished.recipe
    before = recipe.times(LISTS)
    said = recipe.run("run_distill.sh", *finished.options, "--stop_stage", 1)
    assert stages(said) == [-2, -1, 0, 1]
    assert said.count("done already") == 3
    assert recipe.times(LISTS).items() >= before.items()


def test_training_goes_on_after_its_last_epoch(finished):
    recipe, student = finished.recipe, f"{EXP}/going_on"
    options = ("--student_name", "going_on", "--stage", 3, "--stop_stage", 3)
    recipe.run("run_distill.sh", *finished.options, *options, "--student_epochs", 2)
    first = recipe.times(*(f"{student}/{name}" for name in ("0.pt", "0.yaml", "1.pt", "1.yaml")))
    assert cv_epochs(recipe, "going_on") == [-1, 0, 1] and len(first) == 4
    said = recipe.run("run_distill.sh", *finished.options, *options, "--student_epochs", 3)
    assert stages(said) == [3]
    assert "continuing with epoch 2" in said
    assert recipe.times(*first) == first
    assert {"2.pt", "2.yaml", "avg_2.pt"} <= below(recipe.files(student), student)
    assert cv_epochs(recipe, "going_on") == [-1, 0, 1, 2]


def test_of_several_teachers_dev_chooses_those_of_the_student(finished):
    recipe = finished.recipe
    options = ("--num_teachers", 2, "--stage", 2, "--stop_stage", 3, "--student_name", "of_two")
    said = recipe.run("run_distill.sh", *finished.options, *options, "--student_epochs", 2)
    assert "and 1 of other seeds; dev chooses" in said
    chosen = (recipe.folder / EXP / "teachers.txt").read_text().splitlines()
    names = {f"{EXP}/{folder}/avg_2.pt" for folder in ("teacher", "teacher_2")}
    assert chosen and set(chosen) <= names
    seeds = [
        read_json(recipe.folder / EXP / f / "run.json")["seed"] for f in ("teacher", "teacher_2")
    ]
    assert seeds[1] == seeds[0] + 1
    record = read_json(recipe.folder / EXP / "of_two" / "run.json")
    assert [path.split("/")[-2:] for path in record["teachers"]] == [
        c.split("/")[-2:] for c in chosen
    ]


def test_a_preset_shapes_the_student_and_names_its_folder(finished):
    recipe = finished.recipe
    options = ("--preset", "quick", "--stage", 3, "--init_from_teacher", "false")
    options += ("--student_overlay", "conf/overlays/hidden.yaml")
    options += ("--more_teachers", f"{EXP}/teacher/final.pt")
    said = recipe.run("run_distill.sh", *finished.options, *options, "--stop_stage", 5)
    folder = recipe.folder / EXP / "student_quick"
    config = read_yaml(folder / "config.yaml")
    assert config["training_config"]["max_epoch"] == 3
    assert config["model"]["backbone"]["linear_dim"] == 152
    assert config["distill_conf"]["hidden"]["weight"] == 1.5
    assert config["dataset_conf"]["filter_conf"]["data_share"] == 0.1
    # 20 utterances, 12 of them with a keyword: a tenth, rounded up, of each kind.
    assert "10 left out" not in said and "left out: not in the share of 10 %" in said
    record = read_json(folder / "run.json")
    assert record["num_train"] == 3
    assert [path.split("/")[-1] for path in record["teachers"]] == ["avg_2.pt", "final.pt"]
    assert (folder / "avg_2.pt").exists() and cv_epochs(recipe, "student_quick") == [-1, 0, 1, 2]
    reports = [recipe.folder / EXP / name / "report.html" for name in ("report", "report_quick")]
    assert ["student_quick" in report.read_text() for report in reports] == [False, True]
    options += ("--stop_stage", 3)
    again = recipe.run("run_distill.sh", *finished.options, *options, "--student_epochs", 4)
    assert "continuing with epoch 3" in again
    assert cv_epochs(recipe, "student_quick") == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("cwd", "path"), [(".", f"{EXP}/teacher/avg_2.pt"), (f"{EXP}/teacher", "avg_2.pt")]
)
def test_teacher_given_by_a_relative_path_is_not_overwritten(finished, cwd, path):
    """The README's command: the path is that which stage 2 would write."""
    recipe, written = finished.recipe, (f"{EXP}/base", f"{EXP}/teacher", f"{EXP}/teacher_init")
    before = recipe.times(*written)
    said = recipe.run(
        *("run_distill.sh", *finished.options, "--teacher_checkpoint", path),
        *("--base_epochs", 3, "--teacher_epochs", 3, "--stage", 2, "--stop_stage", 2),
        cwd=recipe.folder / cwd,
    )
    assert "given, not trained" in said and "teacher given: " in said
    assert recipe.times(*written) == before


def test_stages_that_are_wrong_are_found_before_the_first(finished):
    recipe, before = finished.recipe, finished.recipe.times("data", "exp")
    options = (*finished.options, "--student_overlay", "nowhere.yaml")
    said = recipe.run("run_distill.sh", *options, status=2)
    assert stages(said) == [] and "--student_overlay nowhere.yaml: no such file" in said
    assert recipe.times("data", "exp") == before


def test_dry_run_prints_the_plan_alone(finished):
    recipe, before = finished.recipe, finished.recipe.times("data", "exp")
    (recipe.folder / "short.yaml").write_text("training_config:\n  max_epoch: 5  # for a look\n")
    options = (*finished.options, "--student_overlay", "short.yaml", "--num_average", 2)
    said = recipe.run("run_distill.sh", *options, "--dry_run")
    assert "student   5 epochs (short.yaml), mean of 2" in said
    assert "base      1 epochs (--base_epochs)" in said and stages(said) == []
    assert recipe.times("data", "exp") == before


def test_all_models_have_a_feature_teacher(finished, feature_teacher):
    recipe = finished.recipe
    taught = ["--name", "taught", "--feature_teacher", feature_teacher, "--overlay", "none"]
    said = recipe.run(
        "run_distill.sh", *finished.options, "--student_epochs", 2, *taught, "--stop_stage", 5
    )
    assert f"features  towards {feature_teacher}" in said
    for name in ("base", "teacher", "student"):
        folder = recipe.folder / "exp/taught" / name
        rows = read_cv_rows(folder)
        assert rows[-1]["cv_embedding"] > 0
        plain = load_weights(recipe.folder / EXP / name / "final.pt")
        assert load_weights(folder / "final.pt").keys() == plain.keys()


def test_an_overlays_own_epochs_count(finished):
    """conf/overlays/stages_three.yaml says 35; here 3, so that training is short."""
    recipe = finished.recipe
    (recipe.folder / "three.yaml").write_text("training_config: {max_epoch: 3}\n")
    options = ("--student_overlay", "three.yaml", "--student_name", "three", "--stage", 3)
    recipe.run("run_distill.sh", *finished.options, *options, "--stop_stage", 3)
    assert cv_epochs(recipe, "three") == [-1, 0, 1, 2]
    assert read_yaml(recipe.folder / EXP / "three/config.yaml")["training_config"]["max_epoch"] == 3
    assert (recipe.folder / EXP / "three/avg_2.pt").is_file()


def test_what_is_scored_is_not_scored_again(finished):
    recipe = finished.recipe
    (recipe.folder / EXP / "student/avg_2.pt").touch()  # averaged again, to the same weights
    before = recipe.times(EXP)
    said = recipe.run("run_distill.sh", *finished.options, "--student_epochs", 2, *("--stage", 4),
                      "--stop_stage", 4)  # fmt: skip
    assert said.count("scored already") == 8
    assert said.count("error rates and plots done already") == 4
    changed = {name for name, time in recipe.times(EXP).items() if before.get(name) != time}
    assert changed == {f"{EXP}/stage_times.txt"}
    model = recipe.folder / EXP / "a copy"
    shutil.copytree(recipe.folder / EXP / "student", model)
    evaluate = ("evaluate.sh", "--checkpoint", model / "final.pt", "--num_workers", 1)
    said = recipe.run(*evaluate, "--budgets", "3")
    assert said.count("scored already") == 2 and "3/h" in said
    said = recipe.run(*evaluate, "--max_duration_s", "0")
    assert "scored already" not in said
    assert read_json(model / "test_final" / "score.json")["keyword_durations_s"] is None
    (model / "final.pt").write_bytes((model / "0.pt").read_bytes())
    said = recipe.run("evaluate.sh", "--checkpoint", f"{EXP}/a copy/final.pt", "--num_workers", 1)
    assert "scored already" not in said and "0.5/h" in said


def test_teacher_that_is_given_is_not_trained(finished):
    recipe, teacher = finished.recipe, f"{EXP}/teacher"
    before = recipe.times(teacher)
    said = recipe.run(
        *("run_distill.sh", *finished.options, "--student_epochs", 1, "--num_average", 1),
        *("--stage", 2, "--stop_stage", 3, "--student_name", "apart"),
        *("--teacher_checkpoint", recipe.folder / teacher / "1.pt", "--init_from_teacher", "false"),
    )
    assert stages(said) == [2, 3] and "teacher given" in said and "sliced" not in said
    assert recipe.times(teacher) == before
    record = read_json(recipe.folder / EXP / "apart" / "run.json")
    assert record["start"] == "random" and record["teachers"][0].endswith("teacher/1.pt")


@pytest.mark.parametrize(
    ("checkpoint", "options", "folder", "chosen_on"),
    [
        ("0.pt", ("--budgets", "2"), "test_0", "dev"),
        ("avg_2.pt", ("--dataset", "dev"), "dev_avg_2", "itself"),
        ("avg_2.pt", ("--decoder", "prefix_beam"), "test_avg_2_prefix_beam", "dev"),
    ],
)
def test_evaluate_takes_epochs_and_averages(finished, checkpoint, options, folder, chosen_on):
    recipe, student = finished.recipe, f"{EXP}/student"
    path = recipe.folder / student / checkpoint
    recipe.run("evaluate.sh", "--checkpoint", path, "--num_workers", 1, *options)
    assert below(recipe.files(f"{student}/{folder}"), f"{student}/{folder}") == RESULTS
    summary = read_json(recipe.folder / student / folder / "summary.json")
    validate_summary(summary)
    points = summary["keywords"][0]["operating_points"]
    assert {point["chosen_on"] for point in points} == {chosen_on}
    budgets = ["2/h", "1 in all"] if "--budgets" in options else ["0.5/h", "1/h", "1 in all"]
    assert [point["budget"] for point in points] == budgets


@pytest.mark.parametrize("script", ["run_distill.sh", "evaluate.sh"])
@pytest.mark.parametrize(
    "words", [("--no_such_option", 1), ("final.pt",), ("--budgets",), ("--decoder", "x", 3)]
)
def test_wrong_words_are_refused_before_anything_runs(recipe, script, words):
    said = recipe.run(script, *words, status=2)
    assert said.count("\n") == 1 and script in said
    assert not recipe.files("data/synth_small", "exp/synth_small")


def test_wrong_values_are_refused(recipe):
    assert "--corpus: found 'libri'; expected synth | mobvoi | kaldi" in recipe.run(
        "run_distill.sh", "--corpus", "libri", status=2
    )
    assert "no such file" in recipe.run("evaluate.sh", "--checkpoint", "9.pt", status=2)
    for model in ("student", "teacher"):
        options = (f"--{model}_epochs", 4, "--num_average", 5)
        said = recipe.run("run_distill.sh", *options, status=2)
        assert f"--num_average 5: more than the {model}'s 4 epochs (--{model}_epochs)" in said
    said = recipe.run("run_distill.sh", "--preset", "balance", status=2)
    assert "did you mean 'balanced'?" in said
    # Standard input is no terminal here.
    assert "name one of" in recipe.run("run_distill.sh", "--preset", "ask", status=2)


def test_failing_stage_is_named_and_nothing_follows(finished, tmp_path):
    """Validation names every problem at once, and training does not begin."""
    corpus = tmp_path / "flawed"
    write_split(corpus, "train", ["AB", "BA A"], seed=1)
    write_split(corpus, "dev", ["AB", "C"], seed=2)
    shutil.copytree(corpus / "train", corpus / "test")
    soundfile.write(corpus / "dev" / "dev_01.wav", [0.0] * 16000, 16000)
    (corpus / "train" / "train_01.wav").unlink()
    with open(corpus / "dev" / "text", "a") as stream:
        stream.write("ghost AB\ndev_00 C\n")
    recipe = finished.recipe
    options = ("--data_dir", corpus, *KEYWORDS, *CONFIGS, *SMALL)
    said = recipe.run("run_distill.sh", *options, status=2)
    assert stages(said) == [-2, -1, 0, 1]
    assert said.endswith("stage 1 (lists, validation, CMVN) failed (status 2)\n")
    report = read_json(recipe.folder / "data/flawed/validation/validation.json")
    assert {problem["kind"] for problem in report["problems"]} >= {
        "audio_silent", "audio_missing", "text_without_audio", "duplicate_id",
        "utterance_in_two_splits", "keyword_absent_from_dev",
    }  # fmt: skip
    assert recipe.files("exp/flawed") == {"exp/flawed/stage_times.txt"}
    again = recipe.run("run_distill.sh", *options, "--stage", 1, "--stop_stage", 1, status=2)
    assert "done already" not in again


def test_another_corpus_joins_the_bases_training_set(finished, tmp_path):
    for split, texts in (("train", ["AB", "CB A"]), ("dev", ["AB"]), ("test", ["BA A"])):
        write_split(tmp_path / "joined", split, texts, seed=1)
    recipe = finished.recipe
    recipe.run(
        *("run_distill.sh", "--data_dir", tmp_path / "joined", "--keywords", "AB", *SMALL),
        *("--num_tokens", 4, "--extra_lists", LISTS, "--stop_stage", 0),
    )
    lists = recipe.folder / "data" / "joined"
    assert len((lists / "base_train" / "all_text").read_text().splitlines()) == 2 + 20
    assert Vocabulary.load(lists / "dict" / "dict.txt").tokens[2:] == ("A", "B")
    assert Vocabulary.load(lists / "dict" / "dict_all.txt").tokens[2:] == ("A", "B", "C")
