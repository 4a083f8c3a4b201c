"""Tokens, label ids, keywords, top-N selection."""

import logging

import pytest

from wekws.dataset.manifest import Utterance
from wekws.dataset.token_selection import select_tokens
from wekws.dataset.vocabulary import (
    Tokenizer,
    Vocabulary,
    contains_keyword,
    has_words,
    keyword_id,
    parse_keywords,
    read_keywords,
    split_language,
    words_of_language,
    write_keywords,
)
from wekws.errors import ConfigError, DataError

SMALL = Vocabulary(("<blk>", "<filler>", "A", "L", "E", "X", "问"))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("嗨小问", "嗨 小 问"),
        (" 嗨　小 问。", "嗨 小 问"),
        ("smart Mirror", "S M A R T M I R R O R"),
        ("don\u2019t, R2D2!", "D O N ' T R 2 D 2"),
        ("'quoted'", "Q U O T E D"),
        ("打开siri吧", "打 开 S I R I 吧"),
        ("Ｈｉ", "H I"),
        ("straße Müller", "S T R A S S E M Ü L L E R"),
        ("<noise>", ""),
        ("<SIL> a <FILLER>b<unk>", "A <filler> B <filler>"),
        ("<cough>", "<cough>"),
        ("", ""),
    ],
)
def test_tokens_without_a_lexicon(text, tokens):
    assert Tokenizer().tokenise(text) == tokens.split()


def test_ignored_characters_are_counted():
    tokenizer = Tokenizer()
    tokenizer.tokenise("a, b, c. 你好！")
    assert tokenizer.ignored == {",": 2, ".": 1, "!": 1}


def test_lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(
        "alexa AH L EH K S AH\nalexa second way\nwi-fi W AY F AY\n"
        "嗨小问 hai4 xiao3 wen4\n小 xiao3\n",
        encoding="utf-8",
    )
    tokenizer = Tokenizer(path)
    assert tokenizer.tokenise("Alexa, no") == "AH L EH K S AH N O".split()
    assert tokenizer.tokenise("Wi-Fi") == "W AY F AY".split()
    # The longest entry wins inside unspaced text; 你 is in no entry.
    assert tokenizer.tokenise("你小嗨小问") == "你 xiao3 hai4 xiao3 wen4".split()
    assert tokenizer.spelt("Alexa, no <filler> wi-fi 你小嗨小问") == ["NO", "你"]
    path.write_text("嗨小问 嗨 小 问\n", encoding="utf-8")  # units that are characters
    assert Tokenizer(path).spelt("嗨小问你好") == ["你", "好"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("JARVIS", True), ("嗨小问", True), ("<noise> Jarvis", True), (("<filler>", "J"), True),
        ((1, 4), True), ("<filler> <noise>", False), ("  ", False), ("...", False),
        (("<filler>",), False), ((1, 1), False), ((), False),
    ],
)  # fmt: skip
def test_transcripts_with_words(text, expected):
    assert has_words(text) == expected


def test_bad_lexicons(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("A a\nB\n")
    with pytest.raises(DataError, match=r"lexicon.txt:2: 'B'"):
        Tokenizer(path)
    path.write_text("")
    with pytest.raises(DataError, match="no words"):
        Tokenizer(path)


def test_outside_tokens_are_one_filler_a_run():
    # A->2, (B C, <filler>, D)->1, L->3, Z->1
    assert SMALL.encode("a bc <filler> d l z", Tokenizer()) == [2, 1, 3, 1]
    assert SMALL.encode("<noise>", Tokenizer()) == []
    assert SMALL.encode("问题问", Tokenizer()) == [6, 1, 6]
    assert SMALL.encode("aa", Tokenizer()) == [2, 2]


def test_labels_of_utterances():
    def labels(**fields):
        utterance = Utterance(key="u", wav="u.wav", duration=1.0, **fields)
        return SMALL.encode_utterance(utterance, Tokenizer())

    assert labels(txt="alexa") == [2, 3, 4, 5, 2]
    assert labels(txt=(2, 6)) == [2, 6]
    assert labels(txt=(9, 9), tok=("L", "好", "学")) == [3, 1]
    for bad in (0, 7, -1):
        with pytest.raises(DataError, match=f"utterance u: label id {bad};"):
            labels(txt=(2, bad))


def test_dictionary_round_trip(tmp_path):
    SMALL.save(tmp_path / "dict.txt")
    assert (tmp_path / "dict.txt").read_text(encoding="utf-8").splitlines()[-1] == "问 6"
    assert Vocabulary.load(tmp_path / "dict.txt") == SMALL


def test_public_list_counts_from_one_with_its_own_names(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text("问 3\nsil 1\n& 2\n", encoding="utf-8")
    assert Vocabulary.load(path).tokens == ("<blk>", "<filler>", "问")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<blk> 0\n<filler> 1\nA 3\n", r"not contiguous from 0 \(or 1\); missing \[2\]"),
        ("A 2\nB 3\n", "not contiguous"),
        ("", "not contiguous"),
        ("<blk> 0\n<filler> 1\nA 1\n", "dict.txt:3: id 1 is already in line 2"),
        ("<blk> 0\nA\n", "dict.txt:2: id ''; expected `token id`"),
        ("<blk> 0\n<filler> 1\nA 2\nA 3\n", "dict.txt: token 'A' has two ids"),
        ("<blk> 0\nA 1\n", "tokens 0 and 1 are '<blk> A'; expected <blk> <filler>"),
    ],
)
def test_bad_dictionaries(tmp_path, content, message):
    path = tmp_path / "dict.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        Vocabulary.load(path)


def test_too_few_outputs():
    SMALL.check_output_dim(7)
    with pytest.raises(ConfigError, match="output_dim 6 .* 7 tokens .*'问'"):
        SMALL.check_output_dim(6)


def test_fingerprint_depends_on_tokens_and_order():
    moved = Vocabulary(("<blk>", "<filler>", "L", "A"))
    kept = Vocabulary(("<blk>", "<filler>", "A", "L"))
    assert kept.fingerprint == Vocabulary(kept.tokens).fingerprint != moved.fingerprint
    assert len(kept.fingerprint) == 16


def test_keywords(tmp_path):
    assert parse_keywords(" smart   mirror,jarvis，嗨小问 ") == ["SMART MIRROR", "JARVIS", "嗨小问"]
    for bad in ("", " , ", "a,A", "!", "<filler>"):
        with pytest.raises(ConfigError):
            parse_keywords(bad)
    write_keywords(tmp_path / "keywords.txt", ["SMART MIRROR", "嗨小问"])
    assert read_keywords(tmp_path / "keywords.txt") == ["SMART MIRROR", "嗨小问"]
    assert keyword_id("SMART MIRROR") == "SMART_MIRROR"


@pytest.mark.parametrize(
    ("text", "keyword", "is_there"),
    [
        ("hey ALEXA, stop", "ALEXA", True),
        ("say alexa", "ALEXA", True),
        ("alexandra", "ALEXA", False),
        ("alexa's", "ALEXA", False),
        ("a smart mirror", "SMART MIRROR", True),
        ("smart <noise> mirror", "SMART MIRROR", False),
        ("mirror smart", "SMART MIRROR", False),
        ("ART", "SMART MIRROR", False),
        ("请叫嗨小问吧", "嗨小问", True),
        ("嗨 小 问", "嗨小问", True),
        ("嗨小明问", "嗨小问", False),
        ("打开siri吧", "SIRI", True),
        ("", "ALEXA", False),
    ],
)
def test_contains_keyword(text, keyword, is_there):
    assert contains_keyword(text, keyword) is is_there


TEXTS = ["嗨小问", "问问题", "天天天天", "<noise> <filler>"]  # 问 3, 天 4, 嗨 小 题 1


def test_selection_keeps_keywords_first_then_frequency():
    selection = select_tokens(TEXTS, ["嗨小问"], tokenizer=Tokenizer(), num_tokens=6)
    assert selection.vocabulary.tokens == ("<blk>", "<filler>", "嗨", "小", "问", "天")
    assert selection.unselected == {"题": 1}
    assert selection.coverage == pytest.approx(9 / 10)


def test_selection_of_everything_breaks_ties_by_code_point():
    selection = select_tokens(["ba", "c", "c"], ["C"], tokenizer=Tokenizer())
    assert selection.vocabulary.tokens == ("<blk>", "<filler>", "C", "A", "B")
    assert selection.coverage == 1


def test_selection_grows_for_keywords_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        selection = select_tokens(TEXTS, ["嗨小问", "你好"], tokenizer=Tokenizer(), num_tokens=4)
    assert selection.vocabulary.tokens[2:] == ("嗨", "小", "问", "你", "好")
    assert "7 tokens instead of 4" in caplog.text


def test_keywords_with_the_same_pronunciation_are_refused(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("red R EH D\nread R EH D\n")
    with pytest.raises(ConfigError, match="'RED' and 'READ' have the same tokens"):
        select_tokens([], ["RED", "READ"], tokenizer=Tokenizer(path))


def test_a_keyword_that_is_too_long_for_a_file_name_is_refused():
    assert parse_keywords("嗨" * 66) == ["嗨" * 66]
    with pytest.raises(ConfigError, match="has 201 bytes in UTF-8; at most 200"):
        parse_keywords("嗨" * 67)


def test_a_keyword_that_cannot_name_its_result_file_is_refused():
    with pytest.raises(ConfigError, match="'A/B' cannot name a file"):
        parse_keywords("JARVIS,A/B")


def test_vowel_signs_are_tokens():
    """Hindi namaste and Thai din: no consonant loses its vowel."""
    assert Tokenizer().tokenise("\u0928\u092e\u0938\u094d\u0924\u0947") == list(
        "\u0928\u092e\u0938\u094d\u0924\u0947"
    )
    assert Tokenizer().tokenise("\u0e14\u0e34\u0e19") == list("\u0e14\u0e34\u0e19")
    assert contains_keyword("\u0928\u092e\u0938\u094d\u0924\u0947 A", "A")
    assert not contains_keyword("\u0e14\u0e34\u0e19", "\u0e14")


@pytest.mark.parametrize(
    "text",
    ["", " ", "a bC", "嗨小问", " 嗨 小b问 ", "A1", "don't", "<FILLER> A", "a\tb", "ａb", "café"],
)
def test_plain_text_takes_a_shortcut_to_the_same_tokens(tmp_path, text):
    (tmp_path / "lexicon.txt").write_text("ZZZZ z\n")  # a lexicon takes the long way
    assert Tokenizer().tokenise(text) == Tokenizer(tmp_path / "lexicon.txt").tokenise(text)


@pytest.mark.parametrize(
    ("text", "keyword", "is_there"),
    [
        ("ａlexa", "ALEXA", True),
        ("alexa", "ALEXA", True),
        ("\u2019tis", "'TIS", True),
        ("o\u2019neil here", "O'NEIL", True),
        ("ﬁnd", "FIND", True),
        ("straße", "STRASSE", True),
        ("malexa", "ALEXA", False),
    ],
)
def test_keywords_in_text_that_is_not_normalised(text, keyword, is_there):
    assert contains_keyword(text, keyword) == is_there


def test_words_with_their_language(tmp_path):
    text = words_of_language("Wat is <noise> dit, don\u2019t \u8bbe\u5b9a \u8c03\u9ad8?", "nl")
    assert text == "WAT@NL IS@NL DIT@NL DON'T@NL \u8bbe\u5b9a@NL \u8c03\u9ad8@NL"
    assert [split_language(word) for word in ("IS@NL", "IS", "A@WEB.DE")] == [
        ("IS", "nl"), ("IS", ""), ("A@WEB.DE", ""),
    ]  # fmt: skip
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("IS \u026a z\nIS@NL \u026a s\n\u8bbe\u5b9a@NL <filler>\n", "utf-8")
    tokens = Tokenizer(lexicon).tokenise("is IS@NL \u8bbe\u5b9a@NL")
    assert tokens == ["\u026a", "z", "\u026a", "s", "<filler>"]
    # The language is no word of the transcript.
    assert contains_keyword("WAT@NL IS@NL", "IS") and not contains_keyword("WAT@NL IS@NL", "NL")
