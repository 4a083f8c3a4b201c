"""Reference events, and recordings that are mixed with keywords at known places."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from wekws.bin import mix_recording as command
from wekws.dataset.mixing import MixOptions, active_span, mix_recording
from wekws.dataset.references import Reference, read_references, write_references
from wekws.errors import ConfigError, DataError

RATE = 8000
OPTIONS = MixOptions(hours=20 / 3600, spacing_s=4.0, sample_rate_hz=RATE, snr_db=20.0)


def test_references_come_back_in_order(tmp_path):
    path = tmp_path / "r.tsv"
    events = [
        Reference(keyword="SMART MIRROR", start_s=3.0, end_s=3.5),
        Reference(keyword="嗨小问", start_s=0.25, end_s=1.0),
    ]
    write_references(path, "a.wav", events)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("/b.wav\t\t\t\n")
    assert read_references(path) == {
        tmp_path / "a.wav": events[::-1], tmp_path.joinpath("/b.wav"): []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.wav\tJARVIS\t2\t1", "r.tsv:2: start 2, end 1; expected 0 <= start < end"),
        ("a.wav\tJARVIS\tnan\t1", "r.tsv:2: start nan"),
        ("a.wav\tJARVIS\tx\t1", "r.tsv:2: could not convert"),
        ("a.wav\tJARVIS\t1", "r.tsv:2: .*expected recording, keyword, start, end"),
        (
            "a.wav\tJARVIS\t1\t2\na.wav\tALEXA\t1\t2\na.wav\tJARVIS\t1\t2",
            "r.tsv:4: JARVIS from 1 to 2 s overlaps that of line 2, 1 to 2 s",
        ),
        ("a.wav\tJARVIS\t5\t6\na.wav\tjarvis\t4.5\t5.1", "r.tsv:2: .* overlaps that of line 3"),
        ("", "no recording"),
    ],
)
def test_damaged_references_are_named(tmp_path, line, expected):
    path = tmp_path / "r.tsv"
    path.write_text(f"recording\tkeyword\tstart\tend\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        read_references(path)
    path.write_text("a.wav JARVIS 1 2\n", encoding="utf-8")
    with pytest.raises(DataError, match="r.tsv:1: found 'a.wav JARVIS 1 2'; expected the column"):
        read_references(path)


def test_a_byte_order_mark_is_ignored(tmp_path):
    path = tmp_path / "r.tsv"
    text = "recording\tkeyword\tstart\tend\na.wav\tJARVIS\t1\t2\na.wav\tJARVIS\t2\t3\n"
    path.write_text(text, encoding="utf-8-sig")
    assert [event.end_s for event in read_references(path)[tmp_path / "a.wav"]] == [2, 3]


def test_the_loud_part_of_a_clip_is_found():
    samples = np.full(RATE, 1e-4, np.float32)
    samples[2000:4000] = 0.5  # frames of 200 samples
    assert active_span(samples, RATE)[:2] == (2000, 4000)
    assert active_span(np.zeros(50, np.float32), RATE)[:2] == (0, 50)


@pytest.mark.parametrize(
    ("noise_db", "is_clear"), [(-60, True), (-30, True), (-25, True), (-20, True), (-6, False)]
)
def test_noise_in_a_clip_is_no_part_of_the_keyword(noise_db, is_clear):
    rng = np.random.default_rng(0)
    samples = 10 ** (noise_db / 20) * rng.standard_normal(2 * RATE)
    samples[4000:10000] += np.sqrt(2) * np.sin(np.arange(6000))
    assert active_span(samples, RATE) == (4000, 10000, is_clear)
    assert not active_span(samples[:9000], RATE).has_clear_end  # loud to the last frame


@pytest.fixture
def data_list(tmp_path):
    """Six clips of a keyword (0.5 s of a tone, silence around it), 24 s of noise, another word."""
    rng = np.random.default_rng(0)
    rows = []

    def add(key, samples, text):
        path = tmp_path / f"{key}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        row = {"key": key, "wav": str(path), "txt": text, "duration": len(samples) / RATE}
        rows.append(json.dumps(row))

    tone = np.zeros(RATE)
    tone[2000:6000] = 0.1 * np.sin(np.arange(4000))
    for i in range(6):
        add(f"k{i}", tone, "JARVIS")
    for i in range(4):
        add(f"n{i}", 0.01 * (i + 1) * rng.standard_normal(6 * RATE), "<noise>")
    add("long", tone.repeat(8), "OPEN THE DOOR JARVIS")
    path = tmp_path / "data.list"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_keywords_are_where_the_references_say(data_list, tmp_path):
    mixed = mix_recording(data_list, ["JARVIS"], tmp_path / "out", OPTIONS)
    ((path, events),) = read_references(mixed.references).items()
    samples, rate = soundfile.read(path)
    assert rate == RATE and len(samples) == 20 * RATE == round(mixed.hours * 3600 * rate)
    assert 3 <= len(events) == mixed.num_keywords <= 6
    is_keyword = np.zeros(len(samples), bool)
    for event in events:
        assert event.end_s - event.start_s == pytest.approx(0.5, abs=0.002)
        is_keyword[round(event.start_s * rate) : round(event.end_s * rate)] = True
    # All four noises have the same level, and the keyword is 20 dB above.
    background = 10 * np.log10(np.square(samples[~is_keyword]).mean())
    assert background == pytest.approx(-30, abs=0.5)
    for event in events:
        part = samples[round(event.start_s * rate) : round(event.end_s * rate)]
        # keyword and noise together: 10 log(10^(-1) + 10^(-3))
        assert 10 * np.log10(np.square(part).mean()) == pytest.approx(-9.96, abs=0.5)


def test_keywords_without_a_clear_end_are_counted(data_list, tmp_path, caplog):
    assert mix_recording(data_list, ["JARVIS"], tmp_path / "out", OPTIONS).num_unclear == 0
    assert not caplog.records
    for i in range(6):
        path = data_list.parent / f"k{i}.wav"
        soundfile.write(path, soundfile.read(path)[0][:6000], RATE, subtype="FLOAT")
    mixed = mix_recording(data_list, ["JARVIS"], tmp_path / "out", OPTIONS)
    assert mixed.num_unclear == mixed.num_keywords
    assert f"{mixed.num_keywords} of {mixed.num_keywords} keywords have no clear end" in caplog.text


def test_the_seed_decides_everything(data_list, tmp_path):
    def content(name, **changes):
        options = dataclasses.replace(OPTIONS, **changes)
        mixed = mix_recording(data_list, ["JARVIS"], tmp_path / name, options)
        return mixed.recording.read_bytes(), mixed.references.read_text(encoding="utf-8")

    assert content("a") == content("b") != content("c", seed=1)


def test_the_command_and_its_refusals(data_list, tmp_path, capsys):
    keywords = tmp_path / "keywords.txt"
    keywords.write_text("JARVIS\n", encoding="utf-8")
    flags = ["--data_list", str(data_list), "--keywords_file", str(keywords)]
    flags += ["--out_dir", str(tmp_path / "out"), "--spacing_s", "4", "--sample_rate_hz", str(RATE)]
    assert command.main([*flags, "--hours", "0.005"]) == 0
    assert "mixed.flac: 0.01 h" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="hours: found 0"):
        command.main([*flags, "--hours", "0"])
    with pytest.raises(DataError, match="no keyword fits into 0.36 s of background.* raise hours"):
        command.main([*flags, "--hours", "0.0001", "--out_dir", str(tmp_path / "short")])
    assert not list((tmp_path / "short").iterdir())
    keywords.write_text("ALEXA\n", encoding="utf-8")
    with pytest.raises(DataError, match="0 utterances of ALEXA alone"):
        command.main(flags)
