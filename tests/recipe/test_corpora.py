"""The data stages of run_distill.sh on other corpora: negatives, synthesised speech, both."""

import importlib.util
import json
import re

import pytest
from recipe_copy import CONFIGS, SMALL, new_recipe
from tones import write_split

from wekws.dataset.manifest import read_data_list, read_kaldi_table
from wekws.dataset.vocabulary import Vocabulary
from wekws.files import read_json
from wekws.yaml_files import read_yaml


def test_negatives_join_training_thresholds_and_test(recipe, tmp_path):
    """A Kaldi tree and a plain folder, both given; nothing else is known of the plain one."""
    for split, texts in (("train", ["AB", "C"]), ("dev", ["AB", "C"]), ("test", ["AB", "C"])):
        write_split(tmp_path / "mine", split, texts, seed=1)
    for split in ("train", "dev", "test"):
        write_split(tmp_path / "talk", f"{split}/negatives", ["C A", "A C", "AB C"], seed=2)
    (tmp_path / "talk/train/negatives/utt2lang").write_text(
        "train_negatives_00 en\ntrain_negatives_01 nl\n"
    )
    write_split(tmp_path / "room tone", "dev/noise", ["ABC"], seed=3)
    for table in ("wav.scp", "text", "utt2spk"):
        (tmp_path / "room tone/dev/noise" / table).unlink()
    options = (
        *("--data_dir", "mine", "--negatives", "talk", "--negatives", "room tone"),
        *("--keywords", "AB", *CONFIGS, "--overlay", "none", *SMALL, "--stop_stage", 1),
    )
    said = recipe.run("run_distill.sh", *options, cwd=tmp_path)
    assert "3 negatives contain a keyword, left out: dev_negatives_02 (AB), " in said
    lists = recipe.folder / "data" / "mine"
    found = {s: read_data_list(lists / s / "data.list") for s in ("train", "dev", "test")}
    assert {split: [u.txt for u in rows] for split, rows in found.items()} == {
        "train": ["AB", "C", "C A", "<filler>"],
        "dev": ["AB", "C", "<filler>", "<filler>", "<noise>"],
        "test": ["AB", "C", "<filler>", "<filler>"],
    }
    assert [u.category for u in found["dev"]] == ["", "", "talk", "talk", "noise"]
    hours = {row[0]: row[1:] for row in re.findall(r"^\| (\w+) " + 4 * r"\| ([\d.]+) " + r"\|$",
                                                   said, re.MULTILINE)}  # fmt: skip
    assert set(hours) == {"train", "dev", "test"} and hours["train"][0] == "0.000"
    assert "1/h: dev has 0.00 h of negatives, so no threshold for this budget can be chosen" in said
    before = recipe.times("data/mine")
    said = recipe.run("run_distill.sh", *options, cwd=tmp_path)
    assert said.count("done already") == 3 and recipe.times("data/mine") == before
    # Without the negatives, the lists are those of the corpus again.
    recipe.run("run_distill.sh", *options[:2], *options[6:], cwd=tmp_path)
    assert len(read_data_list(lists / "dev" / "data.list")) == 2


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="espeakng_loader is not installed: pip install -e .[synth]",
)
def test_synthesised_speech_goes_the_same_way(tmp_path, python_dir):
    recipe = new_recipe(tmp_path / "synth", python_dir)
    options = ("--corpus", "synth", "--size", "tiny", "--num_tokens", 8, *CONFIGS, *SMALL)
    recipe.run("run_distill.sh", *options, "--stop_stage", 1)
    lists = recipe.folder / "data" / "synth_tiny"
    texts = {s: read_kaldi_table(lists / s / "text") for s in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in texts.items()} == {
        "train": 60, "dev": 20, "test": 30,
    }  # fmt: skip
    assert sum(text == "嗨小问" for text in texts["test"].values()) == 8
    tokens = Vocabulary.load(lists / "dict" / "dict.txt").tokens
    assert set("嗨小问你好") < set(tokens) and len(tokens) == 8
    report = read_json(lists / "validation" / "validation.json")
    assert report["splits"]["train"]["keywords"] == {"嗨小问": 15, "你好问问": 15}
    assert json.loads((lists / "global_cmvn").read_text())["frame_num"] > 5000
    before = recipe.times("data")
    said = recipe.run("run_distill.sh", *options, "--stop_stage", 1)
    assert said.count("done already") == 3 and "complete, nothing to do" in said
    assert recipe.times("data") == before


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="espeakng_loader is not installed: pip install -e .[synth]",
)
def test_a_wake_word_from_its_text_alone(tmp_path, python_dir):
    recipe = new_recipe(tmp_path / "text", python_dir)
    for split in ("train", "dev", "test"):
        write_split(tmp_path / "talk", f"{split}/negatives", ["C A", "A C"], seed=2)
    languages = "".join(f"{split}_negatives_00 nl\n" for split in ("train", "dev"))
    (tmp_path / "talk" / "utt2lang").write_text(languages)
    options = ("--keywords", "hey orchard", "--from_text", "--size", "tiny", *CONFIGS, *SMALL)
    options = (*options, "--units", "auto")
    said = recipe.run("run_distill.sh", *options, "--dry_run")
    assert "all positives, size tiny; negatives of dev and test: synthesised (--neg" in said
    # With negatives, dev and test hold their recordings and the keyword alone; train, what is
    # transcribed in a known language.
    options = (*options, "--negatives", tmp_path / "talk", "--stop_stage", 1)
    said = recipe.run("run_distill.sh", *options)
    assert re.search(r"espeak: \d+ voices, 0\.\d\d hours of speech", said)
    lists = recipe.folder / "data" / "hey_orchard_tiny"
    assert "HEY ORCHARD: h e ɪ ɔ ɹ ʧ ɚ d" in said
    lexicon = (lists / "dict" / "lexicon.txt").read_text(encoding="utf-8")
    assert "\nORCHARD ɔ ɹ ʧ ɚ d\n" in lexicon and "\nA@NL a\n" in lexicon
    found = {s: read_data_list(lists / s / "data.list") for s in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 61,
        "dev": 11,
        "test": 10,
    }
    assert [u.txt for u in found["train"] if u.category == "talk"] == ["C@NL A@NL"]
    assert [u.txt for u in found["dev"] if u.category == "talk"] == [
        "C@NL A@NL", "<filler>", "<filler>",
    ]  # fmt: skip
    positives = [u.txt for u in found["train"] if "HEY ORCHARD" in u.txt]
    assert len(positives) == 12 and "HEY ORCHARD" in positives
    assert any(len(text.split()) > 2 for text in positives), "some with words around them"
    assert [sum(u.category == "talk" for u in found[s]) for s in found] == [1, 3, 2]
    report = read_json(lists / "validation" / "validation.json")
    assert report["splits"]["train"]["keywords"] == {"HEY ORCHARD": 12}
    before = recipe.times("data")
    said = recipe.run("run_distill.sh", *options)
    assert said.count("done already") == 3 and "complete, nothing to do" in said
    assert recipe.times("data") == before


@pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="espeakng_loader is not installed: pip install -e .[synth]",
)
def test_synthesised_positives_beside_recordings(recipe, tmp_path):
    for split, more in (("train", ["A", "B"]), ("dev", []), ("test", [])):
        write_split(tmp_path / "few", split, ["AB", "C", *more], seed=1)
    text = tmp_path / "few" / "train" / "text"  # the last two become background
    text.write_text(text.read_text().replace(" A\n", " <filler>\n").replace(" B\n", " <filler>\n"))
    options = ("--data_dir", tmp_path / "few", "--keywords", "AB", *CONFIGS, "--overlay", "none")
    options = (*options, *SMALL, "--stop_stage", 1)
    recipe.run("run_distill.sh", *options, "--synth_positives", 5, "--synth_for", "all")
    lists = recipe.folder / "data" / "few"
    train = read_data_list(lists / "train" / "data.list")
    recorded = ["AB", "C", "<filler>", "<filler>"]
    assert [u.txt for u in train if not u.key.startswith("synth")] == recorded
    # Five with the keyword, four near misses, fifteen sentences or words, one noise.
    assert sum(u.key.startswith("synth_train_p") and "AB" in u.txt for u in train) == 5
    assert len(train) == 4 + 5 + 4 + 15 + 1
    assert len(read_data_list(lists / "dev" / "data.list")) == 2
    # For the base alone: it has nothing else.
    epochs = ("--base_epochs", 1, "--teacher_epochs", 1, "--num_average", 1)
    phonemes = ("--units", "phonemes", "--synth_positives", 5)
    noise = tmp_path / "noise.yaml"
    noise.write_text("dataset_conf: {augment_conf: {copies: 1, noise_prob: 0.5}}\n")
    phonemes += ("--overlay", noise, "--overlay", "conf/overlays/background.yaml")
    recipe.run("run_distill.sh", *options, *phonemes, *epochs, "--stop_stage", 2)
    folders = [recipe.folder / "exp" / "few" / name for name in ("base", "teacher")]
    of_base, of_teacher = (
        read_yaml(folder / "config.yaml")["dataset_conf"]["augment_conf"] for folder in folders
    )
    assert of_base["noise_kinds"] == ["white", "pink", "brown", "babble"]
    assert of_teacher["noise_kinds"]["background"] == 4
    trained_on = [read_json(folder / "run.json")["train_data"] for folder in folders]
    assert trained_on == [str(lists / name / "data.list") for name in ("base_train", "train")]
    words = (lists / "dict" / "lexicon.txt").read_text(encoding="utf-8").splitlines()
    assert len({word.split()[0] for word in words} & {"AB", "C"}) == 2
    base = read_data_list(lists / "base_train" / "data.list")
    assert len(base) == 5 + 4 + 15 + 1 and all(u.key.startswith("synth") for u in base)
    assert len(read_data_list(lists / "train" / "data.list")) == 4
    # Without them, the lists are those of the recordings again.
    recipe.run("run_distill.sh", *options)
    assert len(read_data_list(lists / "train" / "data.list")) == 4
