"""Negatives that join a corpus: layouts, splits, label texts, ids."""

import collections
import dataclasses
import os

import numpy as np
import pytest
import soundfile

from wekws.dataset.manifest import read_kaldi_table
from wekws.dataset.negatives import (
    LabelRule,
    Negative,
    add_negatives,
    language_of,
    read_negatives,
    scripts_of,
)
from wekws.errors import DataError

RULE = LabelRule(keywords=["COMPUTER", "SMART MIRROR"], language="en")


def negative(transcript="", *, language="", category="speech") -> Negative:
    return Negative(
        key="n",
        wav="/n.wav",
        split="train",
        transcript=transcript,
        category=category,
        language=language,
        speaker="",
    )


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} {value}\n" for key, value in rows.items()), "utf-8")


@pytest.fixture
def lists(tmp_path):
    """Lists of a corpus with one keyword and one negative per split."""
    for split in ("train", "dev", "test"):
        wavs = {f"{split}_p": f"/own/{split}_p.wav", f"{split}_n": f"/own/{split}_n.wav"}
        write_table(tmp_path / "lists" / split / "wav.scp", wavs)
        texts = {f"{split}_p": "computer", f"{split}_n": "DE COMPUTERS"}
        write_table(tmp_path / "lists" / split / "text", texts)
    return tmp_path / "lists"


@pytest.mark.parametrize(
    ("found", "text_use", "text"),
    [
        (negative("THE NEWS", language="en"), "auto", "THE NEWS"),
        (negative("the news", language="en-GB"), "auto", "the news"),
        (negative("HET NIEUWS", language="nl"), "auto", "<filler>"),
        (negative("THE NEWS"), "auto", "<filler>"),
        (negative("НОВОСТИ", language="en"), "auto", "<filler>"),
        (negative("THE 新闻", language="en"), "auto", "<filler>"),
        (negative("HET NIEUWS", language="nl"), "use", "HET NIEUWS"),
        (negative("THE NEWS", language="en"), "filler", "<filler>"),
        (negative("<noise>", language="en"), "filler", "<noise>"),
        (negative("<filler> <noise>"), "use", "<filler> <noise>"),
        (negative(category="speech"), "auto", "<filler>"),
        (negative(category="Street_Noise"), "auto", "<noise>"),
        (negative(category="music"), "use", "<noise>"),
    ],
)
def test_label_text(found, text_use, text):
    rule = LabelRule(keywords=RULE.keywords, language="en", text_use=text_use)
    assert rule.text(found) == text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (negative("THE NEWS", language="en"), "THE NEWS"),
        (negative("Het nieuws, <noise> NU", language="nl-BE"), "HET@NL NIEUWS@NL NU@NL"),
        (negative("НОВОСТИ", language="ru"), "НОВОСТИ@RU"),
        (negative("НОВОСТИ", language="en"), "<filler>"),
        (negative("HET NIEUWS"), "<filler>"),
        (negative("HET NIEUWS", language="dutch"), "<filler>"),
        (negative("?!", language="nl"), "<filler>"),
        (dataclasses.replace(negative("NU", language="nl"), split="dev"), "NU@NL"),
    ],
)
def test_phonemes_keep_transcripts_in_other_languages(found, text):
    rule = LabelRule(keywords=RULE.keywords, language="en", has_phonemes=True)
    assert rule.text(found) == text
    never = dataclasses.replace(rule, text_use="filler")
    assert never.text(found) == "<filler>"


def test_keywords_are_found_in_any_language():
    assert RULE.keyword_in(negative("de computer is stuk", language="nl")) == "COMPUTER"
    assert RULE.keyword_in(negative("computers")) is None


def test_scripts_and_languages():
    assert scripts_of("SMART, 12 é") == {"LATIN"}
    assert scripts_of("嗨 Loft") == {"CJK", "LATIN"}
    assert [language_of(words) for words in (["嗨小问"], ["JARVIS"])] == ["zh", "en"]


def test_kaldi_tree(tmp_path):
    root = tmp_path / "pack"
    write_table(root / "train" / "wav.scp", {"own": "wav/own.wav"})
    write_table(root / "train/negatives/wav.scp", {"a": "wav/a.ogg", "b": "/abs/b.ogg"})
    write_table(root / "train/negatives/text", {"a": "HALLO"})
    write_table(root / "train/negatives/utt2lang", {"a": "nl", "b": "-"})
    write_table(root / "test/negatives/wav.scp", {"c": "wav/c.ogg"})
    write_table(root / "utt2category", {"b": "music", "c": "digits"})
    found = {n.key: n for n in read_negatives(root)}
    # "own" is no negative: folders called `negatives` are there.
    assert sorted(found) == ["a", "b", "c"]
    a, b, c = found["a"], found["b"], found["c"]
    assert (a.wav, b.wav) == (str(root / "wav/a.ogg"), "/abs/b.ogg")
    assert (a.split, b.split, c.split) == ("train", "train", "test")
    assert (a.category, b.category, c.category) == ("pack", "music", "digits")
    assert (a.language, b.language, c.language) == ("nl", "", "")
    assert (a.transcript, b.transcript) == ("HALLO", "")


def test_kaldi_folder_without_splits_keeps_speakers_together(tmp_path):
    rows = {f"u{i:03d}": f"{i}.wav" for i in range(200)}
    write_table(tmp_path / "wav.scp", rows)
    write_table(tmp_path / "utt2spk", {key: f"s{int(key[1:]) // 4}" for key in rows})
    found = read_negatives(tmp_path)
    splits = collections.defaultdict(set)
    for n in found:
        splits[n.speaker].add(n.split)
    assert len(splits) == 50 and all(len(names) == 1 for names in splits.values())


def test_plain_folder(tmp_path):
    root = tmp_path / "my audio"
    names = [f"music/{i}.flac" for i in range(300)]
    names += ["train/tv/x y.wav", "dev/z.MP3", "radio/test/a.wav", "notes.txt", "street.wav"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = {n.wav.removeprefix(f"{root}/"): n for n in read_negatives(root)}
    assert len(found) == 304
    places = {name: (found[name].split, found[name].category) for name in names[300:303]}
    assert places == {
        "train/tv/x y.wav": ("train", "tv"),
        "dev/z.MP3": ("dev", "my audio"),
        "radio/test/a.wav": ("test", "radio"),
    }
    assert found["train/tv/x y.wav"].key == "my_audio-train-tv-x_y.wav"
    shares = collections.Counter(found[name].split for name in names[:300])
    # 60, 20, 20 % of 300, within three standard deviations of a binomial draw.
    assert abs(shares["train"] - 180) < 26 and abs(shares["dev"] - 60) < 21
    # The split of a file depends on its path alone.
    (root / "music" / "0.flac").unlink()
    again = {n.wav.removeprefix(f"{root}/"): n.split for n in read_negatives(root)}
    assert all(found[name].split == split for name, split in again.items())


def test_folder_without_audio(tmp_path):
    with pytest.raises(DataError, match="no audio in it; expected wav.scp, or files .wav"):
        read_negatives(tmp_path)


def test_negatives_join_the_lists(lists, tmp_path):
    root = tmp_path / "talk"
    write_table(root / "train/wav.scp", {"a": "a.wav", "b": "b.wav", "c": "link/dev_n.wav"})
    write_table(root / "train/text", {"a": "the computer", "b": "a mirror", "c": "X"})
    write_table(root / "train/utt2lang", {"b": "en"})
    write_table(root / "train/utt2spk", {"b": "anna"})
    root.joinpath("link").symlink_to("/own")
    added = add_negatives(lists, [root], RULE)
    assert added.with_keyword == ["a (COMPUTER)"] and added.without_language == 1
    assert added.counts == {("train", "talk"): {"text": 1, "<filler>": 1}}
    assert read_kaldi_table(lists / "train/text") == {
        "train_p": "computer", "train_n": "DE COMPUTERS", "b": "a mirror", "c": "<filler>",
    }  # fmt: skip
    # The same audio counts once: as the negative, in its split.
    assert sorted(read_kaldi_table(lists / "dev/wav.scp")) == ["dev_p"]
    assert read_kaldi_table(lists / "train/wav.scp")["b"] == str(root / "b.wav")
    assert read_kaldi_table(lists / "train/utt2spk") == {"b": "anna"}
    assert read_kaldi_table(lists / "train/utt2category") == {"b": "talk", "c": "talk"}
    assert "| train | talk | 2 | 1 | 1 | 0 |" in added.table()


def test_training_negatives_may_join_dev(lists, tmp_path):
    root = tmp_path / "talk"
    for split in ("train", "dev", "test"):
        write_table(root / split / "wav.scp", {f"{split}_a": f"{split}.wav"})
    added = add_negatives(lists, [root], RULE, train_as_dev=True)
    assert set(added.counts) == {("dev", "talk"), ("test", "talk")}
    assert sorted(read_kaldi_table(lists / "train/wav.scp")) == ["train_n", "train_p"]
    found = sorted(read_kaldi_table(lists / "dev/wav.scp"))
    assert found == ["dev_a", "dev_n", "dev_p", "train_a"]


def test_what_phonemes_can_learn_from_does_not_join_dev(lists, tmp_path):
    """A Dutch and an English transcript stay in train; no words, or a cut recording, do not."""
    root = tmp_path / "talk"
    names = ["a", "b", "c", "d"]
    write_table(root / "train/wav.scp", {name: f"{name}.wav" for name in names})
    write_table(root / "train/text", {"a": "NU", "b": "a mirror", "c": "X", "d": "LANG"})
    write_table(root / "train/utt2lang", {"a": "nl", "b": "en", "d": "nl"})
    soundfile.write(root / "d.wav", np.zeros(8000 * 21), 8000)
    rule = dataclasses.replace(RULE, has_phonemes=True)
    added = add_negatives(lists, [root], rule, train_as_dev=True)
    texts = read_kaldi_table(lists / "train/text")
    assert {name: texts[name] for name in names[:2]} == {"a": "NU@NL", "b": "a mirror"}
    joined = set(read_kaldi_table(lists / "dev/wav.scp")) - {"dev_n", "dev_p"}
    assert joined == {"c", "d"} and "c" not in texts and "d" not in texts
    assert added.without_language == 1
    # A language that is no code counts as none, and is told.
    write_table(root / "train/utt2lang", {"a": "Dutch", "b": "en", "c": "nl", "d": "nl"})
    other = tmp_path / "other"
    for split in ("train", "dev", "test"):
        write_table(other / split / "wav.scp", {})
        write_table(other / split / "text", {})
    assert add_negatives(other, [root], rule).without_language == 1


def test_long_recordings_are_cut(lists, tmp_path):
    """25 s in train become three pieces of 8.3 s, 25 s in dev stay whole, 70 s become two."""
    root = tmp_path / "talk"
    for split, name, seconds in (("train", "a", 25), ("dev", "b", 25), ("dev", "c", 70)):
        (root / split).mkdir(parents=True, exist_ok=True)
        ramp = np.linspace(0, 0.5, 8000 * seconds)
        soundfile.write(root / split / f"{name}.wav", np.stack([ramp, ramp], 1), 8000)
        with open(root / split / "wav.scp", "a") as wavs, open(root / split / "text", "a") as texts:
            wavs.write(f"{name} {split}/{name}.wav\n")
            texts.write(f"{name} words\n")
    rule = dataclasses.replace(RULE, text_use="use")
    added = add_negatives(lists, [root], rule)
    assert added.counts["train", "talk"] == {"<filler>": 3}
    assert added.counts["dev", "talk"] == {"text": 1, "<filler>": 2}
    wavs = read_kaldi_table(lists / "train/wav.scp")
    pieces = [soundfile.read(wavs[f"a_{i:04d}"])[0] for i in range(3)]
    assert [len(piece) for piece in pieces] == [66667, 66667, 66666]
    whole, _ = soundfile.read(root / "train/a.wav")
    np.testing.assert_allclose(np.concatenate(pieces), whole[:, 0], atol=1e-4)
    written = os.stat(wavs["a_0000"]).st_mtime_ns
    for split in ("train", "dev"):  # as a second run of the recipe finds them
        for table in ("wav.scp", "text"):
            rows = read_kaldi_table(lists / split / table).items()
            write_table(lists / split / table, {k: v for k, v in rows if k.startswith(split)})
    add_negatives(lists, [root], rule)
    assert os.stat(wavs["a_0000"]).st_mtime_ns == written


def test_positives_of_the_corpus_are_no_negatives(lists, tmp_path):
    """Somebody names the folder that also holds the recordings of the keyword."""
    write_table(tmp_path / "all/wav.scp", {"x": "/own/train_p.wav", "y": "y.wav"})
    added = add_negatives(lists, [tmp_path / "all"], RULE)
    assert added.with_keyword == ["x (COMPUTER)"]
    assert "train_p" in read_kaldi_table(lists / "train/wav.scp")


def test_ids_of_other_recordings_are_refused(lists, tmp_path):
    write_table(tmp_path / "other/wav.scp", {"test_n": "z.wav"})
    with pytest.raises(DataError, match="1 ids are taken by other recordings, such as test_n"):
        add_negatives(lists, [tmp_path / "other"], RULE)
    before = (lists / "test/wav.scp").read_text()
    assert "z.wav" not in before
