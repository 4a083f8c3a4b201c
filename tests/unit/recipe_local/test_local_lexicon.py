"""Lexicons of espeak-ng's phonemes."""

import make_lexicon
import pytest

from wekws.dataset.vocabulary import Tokenizer
from wekws.errors import ConfigError


@pytest.fixture
def text(tmp_path):
    """A training text in two scripts."""
    path = tmp_path / "text"
    path.write_text(
        "a Hello <filler> don\u2019t\nb <noise>\nc 你好 COMPUTER, 4\nd café ДА\n", "utf-8"
    )
    return path


def test_every_english_word_of_text_and_keywords(text, tmp_path, capsys):
    pytest.importorskip("espeakng_loader")
    path = tmp_path / "dict" / "lexicon.txt"
    argv = ["--text", str(text), "--keywords", "HEY ORCHARD", "--lexicon", str(path)]
    assert make_lexicon.main(argv) == 0
    words = dict(line.split(" ", 1) for line in path.read_text("utf-8").splitlines())
    assert list(words) == ["4", "CAFÉ", "COMPUTER", "DON'T", "HELLO", "HEY", "ORCHARD"]
    assert words["COMPUTER"] == "k ə m p j u ɾ ɚ"
    assert words["ORCHARD"] == "ɔ ɹ ʧ ɚ d"
    assert capsys.readouterr().out == f"{path}: 7 words\n"
    # Other scripts and markup stay as they are, words that are not in the lexicon are spelt.
    tokens = Tokenizer(path).tokenise("<filler> 你好 hey you")
    assert tokens == ["<filler>", "你", "好", "h", "e", "ɪ", *"YOU"]


def test_words_of_other_languages(tmp_path, caplog):
    pytest.importorskip("espeakng_loader")
    text, path = tmp_path / "text", tmp_path / "lexicon.txt"
    text.write_text("a is THE@NL IS@NL\nb 调高@ZH ДА@RU bla@XX\nc ...@NL\n", "utf-8")
    argv = ["--text", str(text), "--keywords", "HEY", "--lexicon", str(path)]
    assert make_lexicon.main(argv) == 0
    words = dict(line.split(" ", 1) for line in path.read_text("utf-8").splitlines())
    assert words["IS"] == "ɪ z" and words["IS@NL"] == "ɪ s" and words["ДА@RU"] == "d ɑ"
    assert words["调高@ZH"].startswith("t j ɑ u")
    assert words["BLA@XX"] == words["...@NL"] == "<filler>" and "THE" not in words
    assert "words of language xx are filler (1): espeak-ng has no voice 'xx'" in caplog.text
    assert Tokenizer(path).tokenise("is IS@NL bla@xx") == ["ɪ", "z", "ɪ", "s", "<filler>"]


def test_initials_and_finals_of_chinese_keywords(text, tmp_path):
    path = tmp_path / "lexicon.txt"
    keywords = "嗨小问,饭店,语音"
    argv = ["--text", str(text), "--keywords", keywords, "--lexicon", str(path)]
    assert make_lexicon.main(argv) == 0
    units = dict(line.split(" ", 1) for line in path.read_text("utf-8").splitlines())
    assert units["店"] == "d ian" and units["小"] == "x iao" and units["问"] == "uen"
    assert units["语"] == "v" and units["音"] == "in" and "你" in units
    assert "COMPUTER" not in units
    tokens = Tokenizer(path).tokenise("饭店 hey")
    assert tokens == ["f", "an", "d", "ian", *"HEY"]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ("ПРИВЕТ", "keyword ПРИВЕТ: espeak-ng has no English"),
        ("嗨小问,HEY", "keyword HEY: no initials and finals for it; expected Chinese characters"),
    ],
)
def test_keywords_that_cannot_be_pronounced(text, tmp_path, keywords, message):
    pytest.importorskip("espeakng_loader")
    path = tmp_path / "lexicon.txt"
    argv = ["--text", str(text), "--keywords", keywords, "--lexicon", str(path)]
    with pytest.raises(ConfigError, match=message):
        make_lexicon.main(argv)
    assert not path.exists()
