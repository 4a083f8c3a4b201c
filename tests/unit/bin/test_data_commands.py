"""From a Kaldi folder to lists, dictionary and validation, through the commands."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile

from wekws.bin import compute_cmvn, make_dict, make_list, prepare_kaldi, validate_data
from wekws.dataset import cmvn_stats, token_selection
from wekws.dataset import prepare as preparing
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.label_set import LabelSet
from wekws.dataset.manifest import read_data_list, read_kaldi_table
from wekws.dataset.validate import validate
from wekws.dataset.vocabulary import Vocabulary
from wekws.errors import ConfigError, DataError

RATE = 16000


@pytest.fixture
def corpus(tmp_path):
    """A folder with relative paths and long recordings in test/long."""
    root = tmp_path / "corpus"
    rng = np.random.default_rng(0)
    folders = {
        "train": "JARVIS",
        "train/long": "<noise>",
        "dev": "jarvis",
        "dev/long": "<noise>",
        "test": "Jarvis",
        "test/long": "<noise>",
    }
    for folder, text in folders.items():
        key = folder.replace("/", "_")
        (root / folder).mkdir(parents=True)
        soundfile.write(root / f"{key}.wav", rng.uniform(-0.1, 0.1, RATE), RATE)
        (root / folder / "wav.scp").write_text(f"{key} {key}.wav\n")
        (root / folder / "text").write_text(f"{key} {text}\n")
    (root / "test" / "utt2spk").write_text("test someone\n")
    return root


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("dataset_conf:\n  frame_skip: 3\n")
    return path


def run(command, **options):
    return command.main([part for k, v in options.items() for part in (f"--{k}", str(v))])


def prepare(corpus, out_dir):
    assert run(prepare_kaldi, data_dir=corpus, out_dir=out_dir) == 0
    return out_dir


def test_the_whole_way(corpus, config, tmp_path, capsys):
    data = prepare(corpus, tmp_path / "data")
    dictionary, keywords = tmp_path / "dict.txt", tmp_path / "keywords.txt"
    options = {"text": data / "train" / "text", "keywords": "jarvis", "num_tokens": 20}
    assert run(make_dict, **options, dict=dictionary, keywords_file=keywords) == 0
    lists = {name: data / "test" / name for name in ("wav.scp", "text", "data.list")}
    wav_scp, text, data_list = lists.values()
    assert run(make_list, wav_scp=wav_scp, text=text, data_list=data_list) == 0
    options = {"data_dir": data, "keywords_file": keywords, "dict": dictionary, "config": config}
    assert run(validate_data, **options, out_dir=tmp_path / "out", num_workers=1) == 0

    assert read_kaldi_table(wav_scp) == {
        "test": str(corpus / "test.wav"),
        "test_long": str(corpus / "test_long.wav"),
    }
    assert read_kaldi_table(data / "test" / "utt2spk") == {"test": "someone"}
    assert Vocabulary.load(dictionary).tokens[2:] == tuple("JARVIS")
    utterances = read_data_list(data_list)
    assert [(u.key, u.txt, u.duration) for u in utterances] == [
        ("test", "Jarvis", 1.0),
        ("test_long", "<noise>", 1.0),
    ]
    assert json.loads((tmp_path / "out" / "validation.json").read_text())["num_errors"] == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_validation_fails_with_status_2_and_still_reports(corpus, config, tmp_path):
    (corpus / "dev.wav").write_bytes(b"")
    data = prepare(corpus, tmp_path / "data")
    (tmp_path / "dict.txt").write_text("<blk> 0\n<filler> 1\n")
    (tmp_path / "keywords.txt").write_text("JARVIS\n")
    options = {"data_dir": data, "dict": tmp_path / "dict.txt", "config": config}
    options |= {"keywords_file": tmp_path / "keywords.txt", "out_dir": tmp_path / "out"}
    assert run(validate_data, **options) == 2
    report = json.loads((tmp_path / "out" / "validation.json").read_text())
    kinds = {problem["kind"] for problem in report["problems"]}
    assert kinds == {"audio_empty", "keyword_not_in_vocabulary"}
    with pytest.raises(DataError, match="none of train, dev, test"):
        run(validate_data, **(options | {"data_dir": corpus / "train"}))


def test_validation_takes_the_overlays_of_training(corpus, config, tmp_path):
    data = prepare(corpus, tmp_path / "data")
    tokens = ["<blk>", "<filler>", *"JARVIS"]
    (tmp_path / "dict.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)))
    (tmp_path / "keywords.txt").write_text("JARVIS\n")
    # 98 frames of 1 s: every 30th makes 4, which cannot hold 6 labels.
    (tmp_path / "slow.yaml").write_text("dataset_conf:\n  frame_skip: 30\n")
    options = {"data_dir": data, "dict": tmp_path / "dict.txt", "config": config}
    options |= {"keywords_file": tmp_path / "keywords.txt", "out_dir": tmp_path / "out"}
    assert run(validate_data, **options, num_workers=1) == 0
    run(validate_data, **options, num_workers=1, overlay=tmp_path / "slow.yaml")
    report = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert {problem["kind"] for problem in report["problems"]} == {"labels_too_long"}


def test_statistics_of_audio_with_every_augmentation(corpus, config, tmp_path):
    data = prepare(corpus, tmp_path / "data")
    tables = {"wav_scp": data / "train" / "wav.scp", "text": data / "train" / "text"}
    assert run(make_list, **tables, data_list=data / "train" / "data.list") == 0
    for name in ("rooms", "noise", "music"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.linspace(0.9, -0.9, 400), RATE)
    (tmp_path / "rooms.yaml").write_text(
        "dataset_conf:\n"
        "  augment_conf:\n"
        "    copies: 2\n"
        "    reverb_prob: 1.0\n"
        "    room_kinds: [diffuse, shoebox]\n"
        f"    rir_dir: {tmp_path}/rooms\n"
        "    noise_prob: 1.0\n"
        f"    noise_dir: {{{tmp_path}/noise: 2, {tmp_path}/music: 0.5}}\n"
        "    level_prob: 1.0\n"
        "    telephone_prob: 0.5\n"
        "    opus_prob: 0.5\n"
    )
    options = {"config": config, "overlay": tmp_path / "rooms.yaml", "num_workers": 0}
    options |= {"data_list": data / "train" / "data.list", "cache_dir": tmp_path / "cache"}
    assert run(compute_cmvn, **options, cmvn_file=tmp_path / "cmvn") == 0
    stats = json.loads((tmp_path / "cmvn").read_text())
    # Two copies of two clips of 1 s: 98 frames each.
    assert stats["frame_num"] == 4 * 98 and np.isfinite(stats["var_stat"]).all()


def test_prepare_names_every_missing_list(corpus, tmp_path):
    (corpus / "dev" / "text").unlink()
    (corpus / "test" / "wav.scp").unlink()
    with pytest.raises(DataError, match="dev/text, .*test/wav.scp: no such file"):
        run(prepare_kaldi, data_dir=corpus, out_dir=tmp_path / "data")
    with pytest.raises(DataError, match="is --data_dir itself"):
        run(prepare_kaldi, data_dir=corpus, out_dir=corpus)


def test_prepare_keeps_duplicates_for_validation(corpus, tmp_path):
    (corpus / "train" / "text").write_text("train JARVIS\ntrain other\n")
    data = prepare(corpus, tmp_path / "data")
    text = (data / "train" / "text").read_text()
    assert text == "train JARVIS\ntrain other\ntrain_long <noise>\n"


@pytest.mark.parametrize("listed", ["3600", "-1", "long"])
def test_list_takes_the_durations_of_the_audio(corpus, tmp_path, caplog, listed):
    # A duration of an hour would give a thousandth of the false alarms per hour.
    data = prepare(corpus, tmp_path / "data")
    (data / "test" / "utt2dur").write_text(f"test 1.04\ntest_long {listed}\n")
    tables = {
        "wav_scp": data / "test" / "wav.scp",
        "text": data / "test" / "text",
        "data_list": data / "data.list",
    }
    run(make_list, **tables, utt2dur=data / "test" / "utt2dur")
    assert [u.duration for u in read_data_list(data / "data.list")] == [1.0, 1.0]
    assert f"the duration of test_long is '{listed}', but its audio has 1.000 s" in caplog.text
    assert len(caplog.records) == 1  # 0.04 s are rounding


def validation_options(corpus, config, tmp_path):
    (tmp_path / "dict.txt").write_text("<blk> 0\n<filler> 1\nJ 2\nA 3\nR 4\nV 5\nI 6\nS 7\n")
    (tmp_path / "keywords.txt").write_text("JARVIS\n")
    return {
        "data_dir": prepare(corpus, tmp_path / "data"),
        "dict": tmp_path / "dict.txt",
        "keywords_file": tmp_path / "keywords.txt",
        "config": config,
        "out_dir": tmp_path / "out",
        "num_workers": 1,
    }


def test_an_odd_sample_rate_is_an_error_before_anything_is_resampled(corpus, config, tmp_path):
    soundfile.write(corpus / "train.wav", np.full(22050, 0.1), 44101)
    soundfile.write(corpus / "dev.wav", np.full(22050, 0.1), 1)
    assert run(validate_data, **validation_options(corpus, config, tmp_path)) == 2
    report = json.loads((tmp_path / "out" / "validation.json").read_text())
    found = {p["where"]: p["found"] for p in report["problems"] if p["severity"] == "error"}
    assert found == {
        f"train/train ({corpus}/train.wav)": "sample rate 44101 Hz has no simple ratio to 16000 Hz",
        f"dev/dev ({corpus}/dev.wav)": "sample rate 1 Hz is not between 4000 and 384000 Hz",
    }


def test_one_huge_sample_is_an_error_and_statistics_name_it(corpus, config, tmp_path):
    options = validation_options(corpus, config, tmp_path)
    samples = np.full(RATE, 0.1)
    samples[5000] = 1e30
    soundfile.write(corpus / "train.wav", samples, RATE, subtype="FLOAT")
    assert run(validate_data, **options) == 2
    report = json.loads((tmp_path / "out" / "validation.json").read_text())
    kinds = {problem["kind"]: problem["found"] for problem in report["problems"]}
    assert kinds == {"audio_out_of_range": "peak 1e+30"}

    train = options["data_dir"] / "train"
    data_list, cmvn_file = train / "data.list", tmp_path / "global_cmvn"
    run(make_list, wav_scp=train / "wav.scp", text=train / "text", data_list=data_list)
    statistics = {"config": config, "data_list": data_list, "cache_dir": tmp_path / "cache"}
    statistics |= {"cmvn_file": cmvn_file, "num_workers": 0}
    with pytest.raises(DataError, match="first train: .*train.wav: features are not finite"):
        run(compute_cmvn, **statistics)
    assert not cmvn_file.exists()
    soundfile.write(corpus / "train.wav", np.full(RATE, 0.1), RATE)
    assert run(compute_cmvn, **statistics) == 0 and cmvn_file.exists()


def test_a_test_set_without_negatives_is_an_error(corpus, config, tmp_path):
    shutil.rmtree(corpus / "test" / "long")
    shutil.rmtree(corpus / "dev" / "long")
    assert run(validate_data, **validation_options(corpus, config, tmp_path)) == 2
    report = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert [(problem["kind"], problem["severity"]) for problem in report["problems"]] == [
        ("negatives_absent_from_dev", "warning"),
        ("negatives_absent_from_test", "error"),
    ]


def test_the_same_from_python(corpus, tmp_path):
    sizes = preparing.prepare_kaldi(corpus, tmp_path / "data")
    assert sizes["test"] == {"wav.scp": 2, "text": 2, "utt2spk": 1, "utt2dur": 0, "utt2category": 0}
    train = tmp_path / "data" / "train"
    selection = token_selection.make_dict(
        train / "text", ["jarvis"], dict_path=tmp_path / "dict.txt", num_tokens=20
    )
    assert selection.keyword_tokens == {"JARVIS": tuple("JARVIS")}
    utterances = preparing.make_data_list(
        train / "wav.scp", train / "text", data_list=train / "data.list"
    )
    assert [utterance.duration for utterance in utterances] == [1.0, 1.0]
    labels = dataclasses.replace(LabelSet.load(tmp_path / "dict.txt"), keywords=("JARVIS",))
    report = validate(tmp_path / "data", labels, DatasetConfig().front_end)
    assert report.summary() == "0 errors, 0 warnings"
    stats = cmvn_stats.compute_cmvn(
        train / "data.list", DatasetConfig(), cache_dir=tmp_path / "cache"
    )
    assert stats.frame_num == 2 * 98


def test_list_refuses_unmatched_ids_and_bad_audio(corpus, tmp_path):
    tables = {"wav_scp": tmp_path / "wav.scp", "text": tmp_path / "text"}
    tables["data_list"] = tmp_path / "data.list"
    tables["wav_scp"].write_text(f"a {corpus / 'train.wav'}\nb {tmp_path / 'gone.wav'}\n")
    tables["text"].write_text("a A\nc C\n")
    with pytest.raises(DataError, match="1 ids are in no other list, such as b\n.*such as c"):
        run(make_list, **tables)
    tables["text"].write_text("a A\nb B\n")
    with pytest.raises(DataError, match="gone.wav: no such file"):
        run(make_list, **tables)
    assert not tables["data_list"].exists()


@pytest.mark.parametrize("num_tokens", ["0", "-3", "many", "2"])
def test_dictionary_size_is_checked(corpus, tmp_path, num_tokens):
    options = {"text": corpus / "train" / "text", "keywords": "JARVIS", "dict": tmp_path / "d"}
    with pytest.raises(ConfigError, match="expected `all` or a number from 3"):
        run(make_dict, **options, num_tokens=num_tokens)


def test_a_dictionary_needs_transcripts(tmp_path):
    (tmp_path / "text").touch()
    with pytest.raises(DataError, match="text: has no transcript"):
        run(make_dict, text=tmp_path / "text", keywords="JARVIS", dict=tmp_path / "d")
