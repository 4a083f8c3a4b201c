import json

import prepare_mobvoi
import pytest

from wekws.errors import DataError


def _entry(utt_id, keyword_id, speaker_id="s1"):
    return {"utt_id": utt_id, "keyword_id": keyword_id, "speaker_id": speaker_id}


def _corpus(root, **changed):
    lists = {
        "p_train": [_entry("b", 1), _entry("a", 0)],
        "n_train": [_entry("c", -1, None), _entry("d", -1)],
        "p_dev": [_entry("e", 0, "s2")],
        "n_dev": [],
        "p_test": [],
        "n_test": [_entry("f", -1, None)],
        **changed,
    }
    resources, audio = root / "mobvoi_hotword_dataset_resources", root / "mobvoi_hotword_dataset"
    resources.mkdir(parents=True)
    audio.mkdir()
    for name, entries in lists.items():
        (resources / f"{name}.json").write_text(json.dumps(entries), "utf-8")
    for utt_id in "abcdef":
        (audio / f"{utt_id}.wav").touch()
    return root


def _prepare(corpus, out_dir, *more):
    arguments = ["--corpus_dir", str(corpus), "--out_dir", str(out_dir), *more]
    return prepare_mobvoi.main(arguments)


def test_without_transcripts_negatives_are_filler(tmp_path):
    corpus = _corpus(tmp_path / "corpus")
    assert _prepare(corpus, tmp_path / "out") == 0
    train = tmp_path / "out" / "train"
    assert (train / "text").read_text("utf-8") == "a 嗨小问\nb 你好问问\nc <filler>\nd <filler>\n"
    assert (train / "utt2spk").read_text("utf-8") == "a s1\nb s1\nc c\nd s1\n"
    wav = corpus.resolve() / "mobvoi_hotword_dataset" / "a.wav"
    assert (train / "wav.scp").read_text("utf-8").splitlines()[0] == f"a {wav}"


def test_transcripts_with_and_without_spaces(tmp_path):
    corpus = _corpus(tmp_path / "corpus")
    transcripts = tmp_path / "transcripts"
    transcripts.mkdir()
    (transcripts / "train.text").write_text("c 今 天 play  some 音 乐\nd\n", "utf-8")
    (transcripts / "test.text").write_text("f 现在几点\n", "utf-8")
    _prepare(corpus, tmp_path / "out", "--transcripts_dir", str(transcripts))
    lines = (tmp_path / "out" / "train" / "text").read_text("utf-8").splitlines()
    assert lines[2:] == ["c 今天play some音乐", "d <noise>"]
    assert (tmp_path / "out" / "test" / "text").read_text("utf-8") == "f 现在几点\n"


def test_other_keywords(tmp_path):
    corpus = _corpus(tmp_path / "corpus")
    path = corpus / "mobvoi_hotword_dataset_resources" / "keywords.txt"
    path.write_text("COMPUTER\nSMART MIRROR\n", "utf-8")
    _prepare(corpus, tmp_path / "out")
    text = (tmp_path / "out" / "train" / "text").read_text("utf-8")
    assert text.startswith("a COMPUTER\nb SMART MIRROR\n")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"p_train": [_entry("a", 2)]}, r"'a' has keyword_id 2; expected 0 to 1"),
        ({"p_train": [_entry("a", -1)]}, r"'a' has keyword_id -1; expected 0 to 1"),
        ({"n_dev": [_entry("c", 0)]}, r"'c' has keyword_id 0; expected -1"),
        ({"n_dev": [_entry("x", -1), _entry("y", -1)]}, r"2 recordings of dev are missing: x, y"),
        ({"n_dev": [_entry("e", -1)]}, r"'e' occurs a second time in split dev"),
        ({"n_dev": [{"utt_id": "c"}]}, r"entry 0 lacks utt_id or keyword_id"),
        ({"n_dev": {"utt_id": "c"}}, r"found dict; expected a list"),
    ],
)
def test_faults_are_named(tmp_path, changed, message):
    corpus = _corpus(tmp_path / "corpus", **changed)
    with pytest.raises(DataError, match=message):
        _prepare(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing half done"


def test_tiny_corpus_goes_through(tiny_corpus, tmp_path):
    _prepare(tiny_corpus, tmp_path)
    lines = (tmp_path / "dev" / "text").read_text("utf-8").splitlines()
    assert len(lines) == 20 and lines == sorted(lines)
    assert sum(line.endswith(" 嗨小问") for line in lines) == 5
    assert sum(line.endswith(" <noise>") for line in lines) == 1
