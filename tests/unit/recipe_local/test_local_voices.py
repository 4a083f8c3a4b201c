"""Engines behind one interface; Piper and Kokoro with a stand-in for the network."""

import json
import re
from collections import Counter

import kokoro_voices
import numpy as np
import piper_voices
import pytest
import synthesise
import voice_sources
import voices
import wake_word_plan
from corpus_plan import Speaker
from english import English
from near_misses import EnglishSounds, NearMissFinder

from wekws.errors import ConfigError, DataError


class Network:
    """Stand-in for an onnxruntime session: one second of a tone, and what it was given."""

    def __init__(self, names):
        self.names, self.given = names, []

    def get_inputs(self):
        kind = type("Input", (), {})
        inputs = [kind() for _ in self.names]
        for entry, name in zip(inputs, self.names, strict=True):
            entry.name, entry.type = name, "tensor(float)"
        return inputs

    def run(self, outputs, inputs):
        assert outputs is None and set(inputs) == set(self.names)
        self.given.append(inputs)
        return [np.sin(np.arange(22050) / 10).astype(np.float32)[None, None]]


def piper_files(folder, **changes):
    """A Piper voice whose network is never read."""
    symbols = {s: [i] for i, s in enumerate("_^$ ,heɪˈɔːɹtʃɚd")}
    config = {
        "audio": {"sample_rate": 22050},
        "espeak": {"voice": "en-us"},
        "inference": {"length_scale": 1.25},
        "num_speakers": 1,
        "phoneme_id_map": symbols,
    }
    folder.mkdir(exist_ok=True)
    (folder / "voice.onnx").touch()
    (folder / "voice.onnx.json").write_text(json.dumps(config | changes), encoding="utf-8")
    return folder


def kokoro_files(folder, num_styles=3):
    folder.mkdir(exist_ok=True)
    (folder / "kokoro-v1.onnx").touch()
    styles = {f"s{i}": np.full((510, 1, 256), i, np.float32) for i in range(num_styles)}
    np.savez(folder / "voices.npz", **styles)
    vocab = {symbol: number for number, symbol in enumerate("hAɔɹʧəd ,ˈɕjau↓wn↘xi→", 1)}
    (folder / "vocab.json").write_text(json.dumps({"vocab": vocab}), encoding="utf-8")
    return folder


def test_piper_gets_padded_phonemes_scales_and_speaker(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    names = {"anna": 4, "ben": 7}
    piper_files(tmp_path, num_speakers=2, speaker_id_map=names)
    (source,) = piper_voices.find_piper([tmp_path], "en")
    network = Network(("input", "input_lengths", "scales", "sid"))
    monkeypatch.setattr(piper_voices, "open_session", lambda path, seed: network)
    assert source.speakers("train") == ["piper/voice/anna", "piper/voice/ben"]
    assert source.speakers("test") == []
    rng = np.random.default_rng(0)
    samples = source.open((1,)).speak("hey", "piper/voice/ben", "keyword", rng)
    given = network.given[0]
    # ^ h e ɪ $ with padding between them; the stress mark is a phoneme of its own.
    assert given["input"].tolist() == [[1, 0, 5, 0, 8, 0, 6, 0, 7, 0, 2]]
    assert given["input_lengths"].tolist() == [11] and given["sid"].tolist() == [7]
    noise, length, noise_w = given["scales"]
    assert 0.4 <= noise <= 0.9 and 1.25 * 0.8 <= length <= 1.25 * 1.5 and 0.4 <= noise_w <= 1.1
    # Resampled to 16 kHz, with the pitch shifted by at most 12 %.
    assert samples.dtype == np.float32 and 16000 / 1.13 < len(samples) < 16000 / 0.87


def test_piper_voices_of_another_language_or_front_end(tmp_path):
    piper_files(tmp_path / "de", espeak={"voice": "de"})
    assert piper_voices.find_piper([tmp_path], "en") == []
    with pytest.raises(ConfigError, match=r"--engines piper: no voice for --language en"):
        voice_sources.find_sources("en", ("en-us",), [tmp_path], ["piper"])
    piper_files(tmp_path / "de", phoneme_type="pinyin")
    with pytest.raises(DataError, match="phoneme_type 'pinyin'; expected a voice with espeak"):
        piper_voices.find_piper([tmp_path], "zh")
    (tmp_path / "de" / "voice.onnx.json").write_text("{}")
    with pytest.raises(DataError, match="expected the description of a Piper voice"):
        piper_voices.find_piper([tmp_path], "en")


def test_kokoro_blends_styles_and_takes_its_own_symbols(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    (source,) = kokoro_voices.find_kokoro([kokoro_files(tmp_path)], "en")
    network = Network(("tokens", "style", "speed"))
    monkeypatch.setattr(kokoro_voices, "open_session", lambda path, seed: network)
    assert source.speakers("train") == ["s0", "s1", "s2", "s0+s1", "s0+s2", "s1+s2"]
    engine = source.open((1,))
    for speaker, low, high in (("s2", 2, 2), ("s0+s2", 2 * 0.25, 2 * 0.75)):
        engine.speak("hey orchard", speaker, "keyword", np.random.default_rng(3))
        given = network.given[-1]
        assert low <= given["style"].min() == given["style"].max() <= high
        assert given["style"].shape == (1, 256)
        assert 0.65 <= given["speed"][0] <= 1.2
    # hˈA ˈɔɹʧəɹd, between two zeros
    assert given["tokens"].tolist() == [[0, 1, 10, 2, 8, 10, 3, 4, 5, 6, 4, 7, 0]]


def test_kokoros_symbols():
    assert kokoro_voices.english_symbols("tʃˈɜːtʃ snˈoʊbɔɪ wˈɔːɾɚ") == "ʧˈɜɹʧ snˈObY wˈɔTəɹ"
    assert kokoro_voices.mandarin_symbols("嗨，小问") == "xai→, ɕjau↓wən↘"


def test_kokoro_needs_styles_and_vocabulary(tmp_path):
    kokoro_files(tmp_path)
    np.savez(tmp_path / "voices.npz", a=np.zeros((3, 4)))
    with pytest.raises(DataError, match="expected arrays of shape .lengths, 1, 256.; found .'a'."):
        kokoro_voices.find_kokoro([tmp_path], "en")
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(DataError, match="expected voices.* and vocab.json"):
        kokoro_voices.find_kokoro([tmp_path], "en")


def test_kokoros_styles_in_a_folder_of_plain_files(tmp_path):
    kokoro_files(tmp_path)
    with np.load(tmp_path / "voices.npz") as arrays:
        expected = {name: arrays[name] for name in arrays.files}
    (tmp_path / "voices.npz").unlink()
    folder = tmp_path / "voices"
    folder.mkdir()
    for name, style in expected.items():
        style.astype("<f4").tofile(folder / f"{name}.bin")
    (source,) = kokoro_voices.find_kokoro([tmp_path], "en")
    assert source.speakers("train")[:3] == ["s0", "s1", "s2"]
    assert [file.name for file in source.files[1:4]] == ["s0.bin", "s1.bin", "s2.bin"]
    styles = kokoro_voices.read_styles(folder)
    assert all(np.array_equal(styles[name], expected[name]) for name in expected)
    (folder / "s1.bin").write_bytes(b"\0" * 1000)
    with pytest.raises(DataError, match="s1.bin: 1000 bytes; expected a style of Kokoro"):
        kokoro_voices.find_kokoro([tmp_path], "en")


def test_many_voices_are_shared_out_and_few_all_train():
    names = [f"v{i:02d}" for i in range(20)]
    shared = {split: voices.split_speakers(names, split) for split in ("train", "dev", "test")}
    assert (shared["dev"], shared["test"]) == (["v04", "v14"], ["v09", "v19"])
    assert sorted(sum(shared.values(), [])) == names
    assert voices.split_speakers(names[:9], "train") == names[:9]
    assert voices.split_speakers(names[:9], "dev") == []


def wake_words(sizes, keywords=("HEY ORCHARD", "ALEXA")):
    near = {keyword: [f"NEAR {i}" for i in range(40)] for keyword in keywords}
    one = [Speaker(engine="piper/a", name="a")]
    many = [Speaker(engine="espeak", name=f"e{i}") for i in range(15)]
    speakers = {"train": [many, one], "dev": [many], "test": [many]}
    language = English(list(keywords))
    return wake_word_plan.plan_wake_words(sizes, language, near, speakers, 1)


def test_wake_word_plan_holds_what_it_promises():
    planned = wake_words(wake_word_plan.SIZES["quick"])
    train = [u for u in planned if u.split == "train"]
    counts = Counter(u.kind for u in train)
    assert counts["keyword"] == 600 and counts["confusable"] == 480
    assert counts["word"] + counts["sentence"] == 900 and counts["noise"] == 60
    positives = [u for u in train if u.keyword_id == 0]
    assert all("HEY ORCHARD" in u.transcript for u in positives)
    alone = sum(u.transcript == "HEY ORCHARD" for u in positives)
    assert 0.3 * 300 < alone < 0.5 * 300
    starts = sum(u.transcript.startswith("HEY ORCHARD ") for u in positives)
    assert 0.2 * 300 < starts < 0.4 * 300
    others = {u.transcript for u in planned if u.keyword_id < 0}
    assert not any("ORCHARD" in text or "ALEXA" in text for text in others)
    # log2(1 + 15) : log2(1 + 1) = 4 : 1
    engines = Counter(u.engine for u in train if u.kind != "noise")
    assert engines["piper/a"] / engines.total() == pytest.approx(0.2, abs=0.01)
    assert len({u.utt_id for u in planned}) == len({u.seed for u in planned}) == len(planned)
    for place in range(40):
        has_it = {u.split for u in planned if re.search(rf"near {place}\b", u.text)}
        assert ("train" in has_it) == (place % 4 != 3), "every fourth is new in dev and test"
        assert has_it - {"train"}


def test_evaluation_without_general_negatives():
    sizes = {s: wake_word_plan.keywords_only(z) for s, z in wake_word_plan.SIZES["tiny"].items()}
    assert {u.kind for u in wake_words(sizes)} == {"keyword", "confusable"}


def test_bytes_do_not_depend_on_workers_with_several_engines(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    piper_files(tmp_path / "voices")
    opened = []

    def open_session(path, seed):
        opened.append(seed)
        return Network(("input", "input_lengths", "scales"))

    monkeypatch.setattr(piper_voices, "open_session", open_session)
    monkeypatch.setattr(synthesise, "CHUNK", 7)
    found = []
    for workers in ("1", "3"):
        out_dir = tmp_path / workers
        arguments = ["--plan", "wake_word", "--positives", "6", "--language", "en"]
        arguments += ["--keywords", "hey orchard", "--voices", str(tmp_path / "voices")]
        synthesise.main([*arguments, "--out_dir", str(out_dir), "--num_workers", workers])
        found.append({p.relative_to(out_dir): p.read_bytes() for p in out_dir.rglob("*.*")})
    assert found[0] == found[1]
    entries = json.loads(found[0][[p for p in found[0] if p.name == "p_train.json"][0]])
    assert len(entries) == 6 and {e["keyword_id"] for e in entries} == {0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "quick"], "--size quick: --plan demo has tiny, small, full, large, long_test"),
        (["--plan", "wake_word", "--size", "small"], "--plan wake_word has tiny, quick, standard"),
        (["--positives", "5"], "--positives: needs --plan wake_word"),
        (["--plan", "wake_word", "--positives", "0"], "--positives 0: expected at least 1"),
        (["--plan", "wake_word", "--engines", "festival"], "--engines festival: expected some of"),
        (["--plan", "wake_word", "--voices", "nowhere"], "--voices nowhere: no such folder"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, arguments, message):
    pytest.importorskip("espeakng_loader")
    with pytest.raises(ConfigError, match=message):
        synthesise.main([*arguments, "--out_dir", str(tmp_path)])


def test_every_near_miss_that_is_planned_is_none_of_the_keywords():
    pytest.importorskip("espeakng_loader")
    language = English(["SNOWBOY"])
    near = NearMissFinder(["SNOWBOY"], EnglishSounds()).find("SNOWBOY", 100)
    assert len(near) == 100 and all(language.is_clean(n.text) for n in near)
