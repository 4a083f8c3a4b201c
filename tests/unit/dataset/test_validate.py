"""A corpus with one problem of every kind, and one without any."""

import json
import logging
import zlib

import numpy as np
import pytest
import soundfile

from wekws.dataset.audio import probe
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.label_set import LabelSet
from wekws.dataset.problems import ValidationReport
from wekws.dataset.token_selection import select_tokens
from wekws.dataset.validate import validate
from wekws.dataset.vocabulary import Tokenizer

RATE = 16000
KEYWORDS = ["JARVIS", "ALEXA"]
VOCABULARY = select_tokens([], KEYWORDS, tokenizer=Tokenizer()).vocabulary


def write_wav(path, duration_s=1.0, seed=None, rate=RATE, **options):
    seed = zlib.crc32(path.name.encode()) if seed is None else seed
    samples = np.random.default_rng(seed).uniform(-0.1, 0.1, int(duration_s * rate))
    soundfile.write(path, samples, rate, **options)
    return path


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def corpus(tmp_path):
    """Three splits, each with both keywords and a noise."""
    for split in ("train", "dev", "test"):
        folder = tmp_path / split
        folder.mkdir()
        texts = {f"{split}_j": "jarvis", f"{split}_a": "ALEXA", f"{split}_n": "<noise>"}
        wavs = {key: write_wav(folder / f"{key}.wav") for key in texts}
        write_lines(folder / "wav.scp", [f"{key} {wav}" for key, wav in wavs.items()])
        write_lines(folder / "text", [f"{key} {text}" for key, text in texts.items()])
        write_lines(folder / "utt2spk", [f"{key} speaker_{split}" for key in texts])
        write_lines(folder / "utt2dur", [f"{key} 1.0" for key in texts])
    return tmp_path


def append(corpus, table, line):
    with open(corpus / table, "a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def add_utterance(corpus, key, wav, text="<noise>", split="train"):
    append(corpus, f"{split}/wav.scp", f"{key} {wav}")
    append(corpus, f"{split}/text", f"{key} {text}")


def check(corpus, keywords=KEYWORDS, **options):
    labels = LabelSet(vocabulary=VOCABULARY, tokenizer=Tokenizer(), keywords=tuple(keywords))
    return validate(corpus, labels, DatasetConfig().front_end, **options)


def found(report):
    return sorted((problem.kind, problem.severity) for problem in report.problems)


def test_sound_corpus(corpus):
    report = check(corpus)
    assert report.problems == []
    train = report.splits["train"]
    assert (train.num_utterances, train.num_speakers, train.negatives) == (3, 1, 1)
    assert train.keywords == {"JARVIS": 1, "ALEXA": 1}
    assert train.durations == [1.0, 1.0, 1.0] and train.hours == pytest.approx(3 / 3600)
    assert train.conversions == {}


def break_audio(corpus):
    folder = corpus / "train"
    (folder / "zero.wav").touch()
    (folder / "text.wav").write_text("no audio")
    cut = write_wav(folder / "cut.wav")
    cut.write_bytes(cut.read_bytes()[:-100])
    write_wav(folder / "short.wav", 0.0249)  # one sample less than a window
    soundfile.write(folder / "silent.wav", np.full(RATE, 3, dtype=np.int16), RATE)
    for name in ("gone", "zero", "text", "cut", "short", "silent"):
        add_utterance(corpus, name, folder / f"{name}.wav")


def test_every_broken_file_is_named(corpus):
    break_audio(corpus)
    report = check(corpus)
    assert found(report) == [
        ("audio_empty", "error"),
        ("audio_missing", "error"),
        ("audio_silent", "warning"),
        ("audio_too_short", "error"),
        ("audio_truncated", "error"),
        ("audio_unreadable", "error"),
    ]
    assert report.count("error") == 5
    assert all(str(corpus / "train") in problem.where for problem in report.problems)


def test_every_fault_of_the_lists_is_named(corpus):
    append(corpus, "train/text", "only_text HELLO")
    append(corpus, "train/wav.scp", f"only_audio {write_wav(corpus / 'only.wav')}")
    append(corpus, "train/text", "train_j JARVIS")
    add_utterance(corpus, "mute", write_wav(corpus / "mute.wav"), text="")
    add_utterance(corpus, "train_n", write_wav(corpus / "copy.wav"), split="test")
    (corpus / "dev" / "utt2spk").write_text("dev_j speaker_train\nelsewhere speaker_test\n")
    (corpus / "dev" / "utt2dur").write_text("dev_j 1.0\ndev_a 7.5\ndev_n one\n")
    report = check(corpus)
    assert found(report) == [
        ("audio_without_text", "error"),
        ("duplicate_id", "error"),
        ("duration_differs", "warning"),
        ("duration_differs", "warning"),
        ("speaker_in_two_splits", "warning"),
        ("text_empty", "warning"),
        ("text_without_audio", "error"),
        ("utterance_in_two_splits", "error"),
    ]
    duplicate = next(p for p in report.problems if p.kind == "duplicate_id")
    assert duplicate.where == f"{corpus / 'train' / 'text'}:5"
    assert str(duplicate) == (
        f"{duplicate.where}: 'train_j' is already in line 1; expected each id once; "
        "rename or remove one of the lines"
    )


def test_scale_of_samples(corpus):
    for name, peak in (("loud", 1.5), ("int16", 20000.0), ("int32", 1e9)):
        wav = corpus / f"{name}.wav"
        soundfile.write(wav, np.linspace(-peak, peak, RATE), RATE, subtype="FLOAT")
        add_utterance(corpus, name, wav)
    problems = [(p.kind, p.severity, p.found) for p in check(corpus).problems]
    assert problems == [
        ("audio_not_scaled", "warning", "peak 2e+04"),
        ("audio_out_of_range", "error", "peak 1e+09"),
    ]


def test_a_split_without_any_sound_is_an_error(corpus):
    for number, key in enumerate(("dev_j", "dev_a", "dev_n")):
        soundfile.write(corpus / "dev" / f"{key}.wav", np.zeros(RATE + number), RATE)
    kinds = [kind for kind, _ in found(check(corpus))]
    assert kinds == ["audio_silent", "audio_silent", "audio_silent", "split_silent"]


def test_speakers_in_two_splits_are_an_error_on_request(corpus):
    (corpus / "dev" / "utt2spk").write_text("dev_j speaker_train\n")
    assert check(corpus).count("error") == 0
    assert found(check(corpus, disjoint_speakers=True)) == [("speaker_in_two_splits", "error")]
    assert check(corpus).count("error") == 0


def test_same_recording_under_two_names(corpus):
    add_utterance(corpus, "twin1", write_wav(corpus / "one.wav", seed=7), split="train")
    add_utterance(corpus, "twin2", write_wav(corpus / "two.wav", seed=7), split="test")
    report = check(corpus)
    assert found(report) == [("audio_in_two_splits", "warning")]
    assert "'twin1' and 'twin2'" in report.problems[0].found


def test_absent_keywords_matter_in_train_and_test(corpus):
    report = check(corpus, keywords=["JARVIS", "LAX"])
    assert [(p.kind, p.where) for p in report.problems] == [
        ("keyword_absent", "train"),
        ("keyword_absent_from_dev", "dev"),
        ("keyword_absent", "test"),
    ]
    assert report.count("error") == 2


def test_keywords_outside_the_vocabulary(corpus):
    report = check(corpus, keywords=["JARVIS", "COMPUTER"])
    problem = next(p for p in report.problems if p.kind == "keyword_not_in_vocabulary")
    assert "tokens C O M P U T are not" in problem.found


@pytest.mark.parametrize(("num_frames", "num_problems"), [(15, 1), (16, 0)])
def test_labels_need_a_frame_each_and_one_between_equals(corpus, num_frames, num_problems):
    # A R R I S: 5 labels and one repeat need 6 outputs; 15 frames give 5, 16 give 6.
    duration_s = (400 + (num_frames - 1) * 160) / RATE
    wav = write_wav(corpus / "short.wav", duration_s)
    add_utterance(corpus, "short", wav, text="arris")
    assert len(check(corpus).problems) == num_problems


def test_front_end_counts_frames_at_its_own_rate(corpus):
    wav = write_wav(corpus / "a.flac", 1.0, rate=8000)
    add_utterance(corpus, "a", wav)
    report = check(corpus)
    assert "- train: 1 files resampled from 8000 Hz" in report.markdown()
    assert report.splits["train"].conversions == {"resampled from 8000 Hz": 1}
    front_end = DatasetConfig().front_end
    assert front_end.num_frames(2 * probe(wav).num_frames) == 98  # 1 + (16000 - 400) // 160
    assert front_end.num_model_frames(98) == 33


def test_a_split_without_lists(corpus):
    (corpus / "dev" / "text").unlink()
    (corpus / "test" / "wav.scp").write_text("")
    (corpus / "train" / "text").write_bytes("train_j 嗨".encode("gb18030"))
    kinds = [kind for kind, _ in found(check(corpus))]
    assert kinds.count("list_empty") == 3  # an unreadable list gives no lines either
    assert kinds.count("list_unreadable") == 1


def test_workers_change_nothing(corpus, monkeypatch):
    break_audio(corpus)
    monkeypatch.setattr("wekws.dataset.validate._MIN_PARALLEL", 1)
    assert check(corpus, num_workers=2) == check(corpus, num_workers=1)


def test_reports_hold_everything_and_logs_are_capped(corpus, caplog):
    for number in range(25):
        add_utterance(corpus, f"gone{number}", f"/nowhere/{number}.wav")
    report = check(corpus)
    with caplog.at_level(logging.WARNING):
        report.log()
    report.write(corpus / "out")
    content = json.loads((corpus / "out" / "validation.json").read_text(encoding="utf-8"))
    assert content["num_errors"] == len(content["problems"]) == 25
    assert content["problems"][0].keys() == {
        *("severity", "kind", "where", "found", "expected", "advice")
    }
    assert content["splits"]["test"] == {
        "num_utterances": 3,
        "num_speakers": 1,
        "hours": pytest.approx(3 / 3600),
        "keywords": {"JARVIS": 1, "ALEXA": 1},
        "negatives": 1,
        "conversions": {},
        "durations": [1.0, 1.0, 1.0],
    }
    assert len(caplog.records) == 11 and "15 more" in caplog.text
    text = (corpus / "out" / "validation.md").read_text(encoding="utf-8")
    assert "## error: audio_missing (25)" in text and "15 more" in text
    assert "| train | 28 | 1 | 0.001 | 1 | 1 | 26 |" in text


def test_problems_beyond_a_thousand_of_a_kind_are_counted(tmp_path):
    report = ValidationReport()
    for i in range(1500):
        report.add("audio_missing", f"train/{i}", "no such file")
    assert len(report.problems) == 1000 and report.count("error") == 1500
    report.write(tmp_path)
    content = json.loads((tmp_path / "validation.json").read_text())
    assert content["num_errors"] == 1500 and content["counts"] == {"audio_missing": 1500}
    markdown = (tmp_path / "validation.md").read_text()
    assert "audio_missing (1500)" in markdown
    assert "... and 1490 more, the first 1000 in validation.json" in markdown
