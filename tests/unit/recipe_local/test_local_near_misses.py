"""Phonemes, their distances, and phrases that sound like a keyword."""

import itertools

import near_misses
import numpy as np
import phonetics
import pytest

from wekws.errors import ConfigError, DataError


def test_ipa_becomes_one_symbol_per_phoneme():
    assert phonetics.from_ipa("hˈeɪ ˈɔːɹtʃɚd") == "heɪɔɹʧɚd"
    assert phonetics.from_ipa("(en)ɐlˈɛksə(cmn)") == "ɐlɛksə"
    assert set(phonetics.from_ipa("ðə dʒˈʌdʒ ɡrˈuːps")) <= set(phonetics.SYMBOLS)


def test_pinyin_becomes_phonemes_and_tones():
    assert phonetics.from_pinyin(["hai1", "xiao3", "wen4"]) == "xai1ɕjau3wən4"
    assert phonetics.from_pinyin(["lv4", "zhi1", "qi2", "ma"]) == "ly4ꭧɨ1Ji2ma5"


@pytest.mark.parametrize(
    ("wanted", "spoken", "inside", "expected"),
    [
        ("kat", "kat", False, 0),
        ("kat", "pat", False, 0.6),  # four thirds of the place scale, at most 0.6
        ("kat", "bat", False, 0.9),  # and voicing
        ("kat", "ka", False, 0.6),
        ("kat", "həkat", False, 0.8),  # two weak sounds
        ("kat", "həkat", True, 0),
        ("kat", "", True, 1.8),
        ("ma1", "ma3", False, 0.2),
        ("ma1", "ma", False, 0.2),
        ("kat", "k?t", False, 1),  # a symbol that is not in the tables
    ],
)
def test_distances_by_hand(wanted, spoken, inside, expected):
    # Beside a longer text, so that the padding of the shorter one matters.
    found = phonetics.distances(wanted, [spoken, "zzzzzzzz"], inside=inside)
    assert found[0] == pytest.approx(expected)


@pytest.mark.parametrize("inside", [False, True])
def test_distances_agree_with_plain_recursion(inside):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("kæəht1"), rng.integers(0, 6))) for _ in range(40)]

    def plain(a, b):
        if not a or not b:
            return sum(phonetics._INSERT[phonetics._INDEX[s]] for s in a + b)
        return min(
            plain(a[1:], b[1:]) + phonetics.replacement_cost(a[0], b[0]),
            plain(a[1:], b) + phonetics._INSERT[phonetics._INDEX[a[0]]],
            plain(a, b[1:]) + phonetics._INSERT[phonetics._INDEX[b[0]]],
        )

    def parts(text):
        cuts = range(len(text) + 1)
        return [text[i:j] for i in cuts for j in cuts if i <= j] if inside else [text]

    found = phonetics.distances("kætə", texts, inside=inside)
    assert found == pytest.approx([min(plain("kætə", p) for p in parts(t)) for t in texts])


def test_replacement_is_symmetric_and_free_for_equal_symbols():
    for a, b in itertools.combinations(phonetics.SYMBOLS, 2):
        assert 0 < phonetics.replacement_cost(a, b) == phonetics.replacement_cost(b, a)


@pytest.fixture(scope="module")
def orchard():
    pytest.importorskip("espeakng_loader")
    finder = near_misses.NearMissFinder(["HEY ORCHARD"], near_misses.EnglishSounds())
    return finder, finder.find("HEY ORCHARD", 200)


def test_near_misses_of_any_english_keyword(orchard):
    finder, found = orchard
    by_kind = {k: {n.text for n in found if n.kind == k} for k in near_misses.KINDS}
    assert {"HEY ORDERED", "HE ORCHARD", "HEAVY ORCHARD"} <= by_kind["neighbour"]
    assert {"HEY ORCHALD", "HEY AIRCHARD"} <= by_kind["substitution"]
    assert {"HEY", "ORCHARD", "HEY ORCH"} <= by_kind["part"]
    assert {"ORCHARD HEY", "HEY HEY"} <= by_kind["order"]
    assert [n.kind for n in found[:4]] == list(near_misses.KINDS)
    assert finder.find("HEY ORCHARD", 7) == found[:7]


def test_no_near_miss_passes_for_the_keyword(orchard):
    _, found = orchard
    target = "heɪɔɹʧɚd"
    assert len({n.text for n in found}) == len({n.phonemes for n in found}) == len(found) == 200
    closest = phonetics.distances(target, [n.phonemes for n in found], inside=True)
    assert closest.min() >= near_misses.MIN_DISTANCE
    assert not any("HEYORCHARD" in n.text.replace(" ", "") for n in found)
    sounds = near_misses.EnglishSounds()
    # The British keyword is heɪɔʧəd: what sounds like it is left out too.
    british = sounds.phonemes([n.text for n in found], "en-gb-x-rp")
    wanted = sounds.phonemes(["HEY ORCHARD"], "en-gb-x-rp")[0]
    assert phonetics.distances(wanted, british, inside=True).min() >= near_misses.MIN_DISTANCE


def test_near_misses_keep_clear_of_the_other_keywords():
    pytest.importorskip("espeakng_loader")
    keywords = ["COMPUTER", "COMMUTER"]
    finder = near_misses.NearMissFinder(keywords, near_misses.EnglishSounds())
    assert all(near.text not in keywords for k in keywords for near in finder.find(k, 100))


def test_mandarin_near_misses(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("海角\n小闷\n小文\n海鸥\n", encoding="utf-8")
    pytest.importorskip("espeakng_loader")
    finder = near_misses.NearMissFinder(["嗨小问"], near_misses.MandarinSounds(words))
    found = {n.text: n.kind for n in finder.find("嗨小问", 300)}
    assert {"小问": "part", "小嗨问": "order", "开小问": "substitution"}.items() <= found.items()
    assert not {"海小文", "嗨小问", "害小问"} & set(found), "homophones, tones aside"
    sounds = [n.phonemes.translate(near_misses._WITHOUT_TONES) for n in finder.find("嗨小问", 300)]
    assert len(sounds) == len(set(sounds))


def test_the_users_command(capsys, tmp_path):
    pytest.importorskip("espeakng_loader")
    words = tmp_path / "words.txt"
    words.write_text("orchid\norchestra\n\nheyday\n", encoding="utf-8")
    arguments = ["--keywords", "hey  orchard", "--language", "en", "--count", "6"]
    assert near_misses.main([*arguments, "--word_list", str(words)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["keyword", "kind", "distance", "text", "phonemes"]
    assert len(rows) == 7 and all(row[0] == "HEY ORCHARD" for row in rows[1:])
    # ʧ for k: 0.6 x 1.8 / 3 + 0.3 x 0.5; ɚ for ɪ: 0.25 x 1 + 0.25 x 0.7 + 0.15 x 0.5
    assert ["HEY ORCHARD", "neighbour", "1.01", "HEY ORCHID", "heɪɔɹkɪd"] in rows


def test_language_comes_from_the_script():
    assert near_misses.language_of(["HEY ORCHARD", "ALEXA"]) == "en"
    assert near_misses.language_of(["嗨小问"]) == "zh"
    for keywords in (["ПРИВЕТ"], ["HEY", "嗨"]):
        with pytest.raises(ConfigError, match="found neither, or both"):
            near_misses.language_of(keywords)


def test_a_word_list_without_words_is_refused(tmp_path):
    pytest.importorskip("espeakng_loader")
    with pytest.raises(DataError, match="cannot be read"):
        near_misses.EnglishSounds(tmp_path / "none.txt")
    (tmp_path / "words.txt").write_text("你好\n", encoding="utf-8")
    with pytest.raises(DataError, match="no words; expected one per line, in Latin letters"):
        near_misses.EnglishSounds(tmp_path / "words.txt")
