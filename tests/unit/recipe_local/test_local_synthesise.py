import builtins
import faulthandler
import functools
import json
import os
import signal

import acoustics
import numpy as np
import pytest
import soundfile
import synthesise
from corpus_plan import PlannedUtterance
from mandarin import Mandarin
from processes import in_fresh_processes

from wekws.errors import ConfigError, DataError


def _lists(corpus):
    resources = corpus / synthesise.RESOURCES_DIR
    names = [f"{sign}_{split}" for sign in "pn" for split in ("train", "dev", "test")]
    return {name: json.loads((resources / f"{name}.json").read_text("utf-8")) for name in names}


def _bytes(corpus):
    return {p.relative_to(corpus): p.read_bytes() for p in corpus.rglob("*") if p.is_file()}


def test_tiny_has_mobvois_layout(tiny_corpus):
    lists = _lists(tiny_corpus)
    sizes = {name: len(entries) for name, entries in lists.items()}
    assert sizes == {
        "p_train": 30,
        "p_dev": 10,
        "p_test": 16,
        "n_train": 30,
        "n_dev": 10,
        "n_test": 14,
    }
    assert {e["keyword_id"] for e in lists["p_train"]} == {0, 1}
    assert {e["keyword_id"] for e in lists["n_test"]} == {-1}
    for entry in lists["p_train"] + lists["n_dev"]:
        path = tiny_corpus / synthesise.AUDIO_DIR / f"{entry['utt_id']}.wav"
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.duration == pytest.approx(entry["duration"], abs=1e-3)
        assert 0.7 < info.duration < 12
    speakers = {
        split: {e["speaker_id"] for sign in "pn" for e in lists[f"{sign}_{split}"]} - {None}
        for split in ("train", "dev", "test")
    }
    assert not speakers["train"] & speakers["test"] and not speakers["dev"] & speakers["test"]


def test_tiny_has_a_transcript_for_every_utterance(tiny_corpus):
    lines = (tiny_corpus / synthesise.RESOURCES_DIR / "dev.text").read_text("utf-8").splitlines()
    texts = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    lists = _lists(tiny_corpus)
    assert set(texts) == {e["utt_id"] for e in lists["p_dev"] + lists["n_dev"]}
    noises = {e["utt_id"] for e in lists["n_dev"] if e["kind"] == "noise"}
    assert noises and all((texts[utt_id] == "") == (utt_id in noises) for utt_id in texts)


def test_bytes_depend_on_the_seed_and_not_on_the_workers(tiny_corpus, tmp_path):
    arguments = ["--size", "tiny", "--num_workers", "5"]
    synthesise.main([*arguments, "--out_dir", str(tmp_path / "same")])
    synthesise.main([*arguments, "--out_dir", str(tmp_path / "other"), "--seed", "2"])
    same, other, wanted = (_bytes(d) for d in (tmp_path / "same", tmp_path / "other", tiny_corpus))
    assert same == wanted
    assert sum(wanted.get(path) == data for path, data in other.items()) <= 2  # keywords.txt


def test_complete_corpus_is_kept_and_interrupted_one_is_redone(tmp_path, monkeypatch, capsys):
    arguments = ["--size", "tiny", "--out_dir", str(tmp_path), "--num_workers", "2"]
    monkeypatch.setattr(synthesise, "render", _killed)
    with pytest.raises(KeyboardInterrupt):
        synthesise.main(arguments)
    assert not (tmp_path / synthesise.STAMP).exists()
    monkeypatch.undo()
    synthesise.main(arguments)
    assert (tmp_path / synthesise.STAMP).exists()
    monkeypatch.setattr(synthesise, "render", _killed)
    capsys.readouterr()
    assert synthesise.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def _killed(*arguments):
    raise KeyboardInterrupt


def test_english_keywords(tmp_path):
    pytest.importorskip("espeakng_loader")
    arguments = ["--language", "en", "--keywords", "computer, smart mirror", "--size", "tiny"]
    synthesise.main([*arguments, "--out_dir", str(tmp_path), "--num_workers", "2"])
    resources = tmp_path / synthesise.RESOURCES_DIR
    assert (resources / "keywords.txt").read_text("utf-8").split("\n")[:2] == [
        "COMPUTER",
        "SMART MIRROR",
    ]
    lines = (resources / "train.text").read_text("utf-8").splitlines()
    assert lines[0].endswith(" COMPUTER") and lines[15].endswith(" SMART MIRROR")
    assert all(line.isascii() for line in lines)


def test_espeak_pronounces_the_keywords_as_intended():
    pytest.importorskip("espeakng_loader")
    texts = ["嗨小问", "你好问问", "嗨小明"]
    task = _phonemes
    spoken = next(in_fresh_processes(task, [texts], 1))
    # hai, xiao3, wen4; ni3 hao3 wen4 wen5; the last one ends in ming2
    assert spoken[0].split("|")[:3] == ["X'ai55_", " S;j'Au214_", " w'u@51n_"]
    assert spoken[1].startswith("ni214X'Au214_| wu@51nw'u@1")
    assert "m'i35N" in spoken[2] and "w'u@" not in spoken[2]


def test_espeak_knows_every_character_of_the_word_lists():
    pytest.importorskip("espeakng_loader")
    characters = Mandarin(["嗨小问"])._characters
    spoken = next(in_fresh_processes(_phonemes, [characters], 1))
    assert [c for c, s in zip(characters, spoken, strict=True) if "(en)" in s] == []


def _phonemes(texts):
    return synthesise.phonemes_of("cmn", texts)


def test_missing_loader_names_the_extra(monkeypatch, tmp_path):
    real_import = builtins.__import__

    def without_loader(name, *arguments, **options):
        if name == "espeakng_loader":
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_loader)
    with pytest.raises(DataError, match=r"pip install -e \.\[synth\]"):
        synthesise.main(["--size", "tiny", "--out_dir", str(tmp_path)])


def test_english_without_keywords_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--keywords"):
        synthesise.main(["--language", "en", "--out_dir", str(tmp_path)])


def _die(number):
    faulthandler.disable()  # pytest's, which would print a traceback
    os.kill(os.getpid(), number)


def _crash_or_double(number):
    if number < 0:
        _die({1: signal.SIGSEGV, 2: signal.SIGKILL, 3: signal.SIGTERM}[len(str(-number))])
    return 2 * number


def test_crashed_process_gets_another_argument():
    results = in_fresh_processes(_crash_or_double, [1, -2, 3, -4, 5], 2, after_crash=abs)
    assert list(results) == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("number", "after_crash", "message"),
    [
        (-2, None, r"crashed \(SIGSEGV\); install another version"),
        (-20, abs, r"ended \(SIGKILL\); if memory is short, give fewer --num_workers"),
        (-200, abs, r"ended \(SIGTERM\)"),
    ],
)
def test_crash_that_nothing_replaces_is_an_error(number, after_crash, message):
    with pytest.raises(DataError, match=message):
        list(in_fresh_processes(_crash_or_double, [1, number, 3], 2, after_crash))


def test_error_of_a_task_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(in_fresh_processes(_inverse, [1, 0], 1))


def _inverse(number):
    return 1 / number


class _CrashingEngine:
    """Crashes on one text until it is drawn the given number of times."""

    def __init__(self, num_crashes):
        self._num_crashes = num_crashes

    def speak(self, text, speaker, kind, rng):
        drawn = rng.integers(2**31)
        if text == "crash" and drawn in [
            np.random.default_rng((7, draw) if draw else (7,)).integers(2**31)
            for draw in range(self._num_crashes)
        ]:
            _die(signal.SIGSEGV)
        return np.sin(np.arange(16000, dtype=np.float32) / 7)


class _CrashingSource:
    def __init__(self, num_crashes):
        self.open = lambda seed: _CrashingEngine(num_crashes)


def _utterance(text):
    return PlannedUtterance(
        utt_id=text,
        split="train",
        kind="sentence",
        text=text,
        transcript="",
        keyword_id=-1,
        speaker="m1",
        duration_s=0.0,
        seed=(7,),
    )


def _render_with_crashes(num_crashes, audio_dir):
    utterances = [_utterance(text) for text in ("before", "crash", "after")]
    rng = np.random.default_rng(0)
    babble = [rng.normal(size=16000).astype(np.float32) for _ in range(2)]
    task = functools.partial(
        synthesise.render_chunk,
        pools={"train": acoustics.make_pools(babble, 15.0, [0])},
        sources={"espeak": _CrashingSource(num_crashes)},
        audio_dir=audio_dir,
    )
    redraw = functools.partial(synthesise.redrawn, audio_dir=audio_dir)
    return list(in_fresh_processes(task, [utterances], 1, redraw))


def test_utterance_on_which_the_synthesiser_crashes_is_drawn_again(tmp_path, caplog):
    with caplog.at_level("INFO"):
        (rows,) = _render_with_crashes(2, tmp_path)
    assert len(rows) == 3 and len(list(tmp_path.iterdir())) == 3
    assert caplog.text.count("crashed on 'crash' with voice m1") == 2


def test_crash_after_the_last_recording_counts_for_the_last_utterance(tmp_path):
    chunk = [_utterance(text) for text in ("before", "after")]
    for utterance in chunk:
        synthesise.recording_path(tmp_path, utterance).touch()
    redrawn = synthesise.redrawn(chunk, tmp_path)
    assert [utterance.draw for utterance in redrawn] == [0, 1]
    assert not list(tmp_path.iterdir())


def test_utterance_that_always_crashes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"crashed on 'crash' with voice m1, 4 times.*--seed"):
        _render_with_crashes(4, tmp_path)
