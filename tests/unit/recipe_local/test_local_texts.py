import re

import numpy as np
import pytest
from compose import load_words
from corpus_plan import SPLITS, plan_corpus, read_voices
from english import English, closest_edits
from mandarin import Mandarin, differences, syllables

KEYWORDS = ["嗨小问", "你好问问"]


@pytest.mark.parametrize(
    ("text", "keyword", "expected"),
    [
        ("嗨小问", "嗨小问", 0),
        ("海小文", "嗨小问", 0),  # hai3 xiao3 wen2: the tones alone differ
        ("请你好温文一点", "你好问问", 0),  # inside a longer sentence
        ("嗨小明", "嗨小问", 2),  # m-in(g) against w-en
        ("你好小问", "嗨小问", 1),  # h-ao against h-ai
        ("小问", "嗨小问", 2),  # a syllable short
        ("嗨小翁", "嗨小问", 0),  # -eng and -en are merged by many speakers
    ],
)
def test_differences_counts_initials_and_finals(text, keyword, expected):
    assert differences(text, keyword) == expected


def test_confusables_never_sound_like_a_keyword():
    language = Mandarin(KEYWORDS)
    for keyword in KEYWORDS:
        made = language.confusables(keyword, 120, 1, None)
        assert len(made) == len(set(made)) == 120
        assert all(language.is_clean(text) for text in made)
    listed = language.confusables("嗨小问", 120, 1, None)
    assert {"嗨小明", "你好小问", "小问题"} <= set(listed)


def test_sentences_are_varied_and_clean():
    language = Mandarin(KEYWORDS)
    rng = np.random.default_rng(0)
    sentences = {language.sentence(rng, 5.0) for _ in range(1000)}
    assert len(sentences) > 990
    assert len(set("".join(sentences))) > 700
    spoken = [" ".join(syllables(text)) for text in sentences]
    assert not any(re.search(r"\bhai xiao wen\b|\bni hao wen wen\b", line) for line in spoken)


def test_transcript_leaves_pauses_out():
    assert Mandarin(KEYWORDS).transcript("现在几点了，然后记得浇花") == "现在几点了然后记得浇花"
    assert English(["ALEXA"]).transcript("when it's late, call me") == "WHEN IT'S LATE CALL ME"


def test_closest_edits_searches_inside():
    assert closest_edits("xxabcxx", "abc") == 0
    assert closest_edits("xxadcxx", "abc") == 1
    assert closest_edits("", "abc") == 3


def test_english_keeps_keywords_out_even_inside_words():
    language = English(["COMPUTER", "ALEX"])
    assert not language.is_clean("two computers")
    assert not language.is_clean("Alexander was reading")
    rng = np.random.default_rng(0)
    assert all(language.is_clean(language.sentence(rng, 4.0)) for _ in range(300))
    assert all(language.is_clean(language.word(rng)) for _ in range(300))


def test_english_confusables_drop_what_sounds_like_the_keyword():
    language = English(["SMART MIRROR"])

    def spelt_as_spoken(texts):  # a stand-in for espeak-ng
        return [text.replace("ow", "o").replace("a", "o") for text in texts]

    made = language.confusables("SMART MIRROR", 40, 1, spelt_as_spoken)
    assert len(made) == 40
    target = spelt_as_spoken(["smart mirror"])[0].replace(" ", "")
    spoken = [text.replace(" ", "") for text in spelt_as_spoken(made)]
    assert all(closest_edits(text, target) >= 2 for text in spoken)


def test_every_yaml_entry_is_text():
    for language in ("zh", "en"):
        words = load_words(language)
        lists = [*words["slots"].values(), words["templates"], words["joiners"]]
        assert all(isinstance(entry, str) for entries in lists for entry in entries)
        names = set(re.findall(r"\{(\w+)\}", " ".join(words["templates"])))
        assert names == set(words["slots"])
    assert all(isinstance(entry, str) for entry in load_words("en")["words"])


def test_voices_never_cross_splits():
    voices = read_voices()
    assert [len(voices[split]) for split in SPLITS] == [52, 12, 16]
    assert len(set(sum(voices.values(), []))) == 80


def test_plan_holds_what_it_promises():
    planned = plan_corpus("small", Mandarin(KEYWORDS), 1, None)
    assert len({u.utt_id for u in planned}) == len(planned)
    speakers = {s: {u.speaker for u in planned if u.split == s and u.speaker} for s in SPLITS}
    assert speakers == {split: set(voices) for split, voices in read_voices().items()}
    said = {
        (s, kind): {u.text for u in planned if (u.split, u.kind) == (s, kind)}
        for s in SPLITS
        for kind in ("sentence", "confusable")
    }
    assert not said["train", "sentence"] & said["test", "sentence"]
    assert not said["dev", "sentence"] & said["test", "sentence"]
    assert said["test", "confusable"] - said["train", "confusable"], "some are new in test"
    language = Mandarin(KEYWORDS)
    assert all(language.is_clean(u.text) for u in planned if u.keyword_id < 0)
    for keyword in KEYWORDS:
        assert sum(u.text == keyword for u in planned if u.split == "train") == 900


def test_more_keywords_share_the_positives():
    language = English(["ONE WORD", "TWO", "THREE", "FOUR"])
    planned = plan_corpus("tiny", language, 1, lambda texts: texts)
    train = [u for u in planned if u.split == "train"]
    assert [sum(u.keyword_id == i for u in train) for i in range(4)] == [8, 8, 8, 8]
    assert sum(u.kind == "confusable" for u in train) == 12
