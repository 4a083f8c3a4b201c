"""Audio files of many formats, and every way in which one can be broken."""

import pickle
import struct

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from wekws.dataset.audio import (
    AudioError,
    decode_pieces,
    probe,
    read_audio,
    read_part,
    read_pieces,
    unsupported_rate,
)
from wekws.dataset.resample import Resampler

RATE = 16000


def sine(num_samples=RATE, rate=RATE, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(num_samples) / rate)).astype(np.float32)


def write(path, samples, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def decoded(path):
    return list(decode_pieces(path))


def flaw(path, read=probe):
    with pytest.raises(AudioError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return caught.value.kind


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "FLOAT", 0),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.1),
    ],
)
def test_reads_every_format(tmp_path, name, subtype, tolerance):
    path = write(tmp_path / name, sine(), subtype=subtype)
    samples = read_audio(path, RATE)
    assert samples.dtype == np.float32 and samples.shape == (RATE,)
    assert np.abs(samples - sine()).max() <= tolerance


def test_int16_steps_are_one_32768th(tmp_path):
    path = write(tmp_path / "a.wav", np.array([0, 1, -32768, 32767], dtype=np.int16))
    assert read_audio(path, RATE).tolist() == [0, 1 / 32768, -1, 32767 / 32768]


def test_channels_are_averaged(tmp_path):
    stereo = np.array([[0.5, 0.25], [-0.5, 0.5]])  # means 0.375 and 0
    path = write(tmp_path / "a.wav", stereo, subtype="FLOAT")
    assert read_audio(path, RATE).tolist() == [0.375, 0]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_the_tone(tmp_path, rate):
    path = write(tmp_path / "a.wav", sine(rate, rate), rate, subtype="FLOAT")
    samples = read_audio(path, RATE)
    assert len(samples) == RATE
    inner = slice(200, -200)  # the filter rings at both ends
    assert np.abs(samples - sine())[inner].max() < 2e-3
    reference = torchaudio.functional.resample(torch.from_numpy(sine(rate, rate)), rate, RATE)
    assert np.abs(samples - reference.numpy()).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("num_samples", [1, 7, 5000])
def test_pieces_of_a_stream_give_the_resampled_whole(rate, num_samples):
    samples = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32)
    reference = torchaudio.transforms.Resample(rate, RATE)(torch.from_numpy(samples)).numpy()
    resampler = Resampler(rate, RATE)
    for size in (1, 100, num_samples):
        if num_samples // size < 100:
            pieces = [resampler(samples[i : i + size]) for i in range(0, num_samples, size)]
            found = np.concatenate([*pieces, resampler.flush()])
            assert found.shape == reference.shape
            assert np.abs(found - reference).max() < 3e-6


@pytest.mark.parametrize("rate", [16000, 22050])
def test_pieces_of_a_file_are_the_file(tmp_path, rate):
    stereo = np.stack([sine(rate, rate), 0.5 * sine(rate, rate)], axis=1)
    path = write(tmp_path / "a.wav", stereo, rate)
    pieces = list(read_pieces(path, RATE, piece_s=0.3))
    assert len(pieces) == 5 and max(map(len, pieces)) <= 0.3 * RATE
    np.testing.assert_allclose(np.concatenate(pieces), read_audio(path, RATE), atol=1e-6)


def test_probe_and_conversion(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([sine(4000), sine(4000)], axis=1), 8000)
    info = probe(path)
    assert (info.sample_rate_hz, info.num_channels, info.num_frames) == (8000, 2, 4000)
    assert info.duration_s == 0.5
    assert info.conversion(RATE) == "mixed down from 2 channels, resampled from 8000 Hz"
    assert probe(write(tmp_path / "b.wav", sine())).conversion(RATE) == ""


def test_missing_empty_and_foreign_files(tmp_path):
    assert flaw(tmp_path / "none.wav") == "missing"
    assert flaw(tmp_path) == "missing"
    assert flaw(tmp_path / "sox a.wav -t wav - |") == "missing"
    (tmp_path / "zero.wav").touch()
    assert flaw(tmp_path / "zero.wav") == "empty"
    assert flaw(write(tmp_path / "header.wav", sine(0))) == "empty"
    (tmp_path / "text.wav").write_text("this is not audio\n" * 20)
    assert flaw(tmp_path / "text.wav") == "unreadable"


@pytest.mark.parametrize("share", [0.999, 0.5, 0.001])
def test_truncated_wav_is_found_by_its_header(tmp_path, share):
    assert flaw(cut(write(tmp_path / "a.wav", sine()), share)) == "truncated"


def test_truncated_flac_fails_to_decode(tmp_path):
    path = cut(write(tmp_path / "a.flac", sine()), 0.5)
    assert flaw(path, read=decoded) in ("truncated", "unreadable")


@pytest.mark.parametrize("share", [0.999, 0.7, 0.3])
def test_truncated_ogg(tmp_path, share):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE)
    assert flaw(cut(write(tmp_path / "a.ogg", noise), share)) == "truncated"


def test_ogg_cut_between_pages(tmp_path):
    path = write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE))
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"OggS")])
    assert flaw(path) == "truncated"


def test_streamed_wav_has_no_length_to_believe(tmp_path):
    path = write(tmp_path / "a.wav", sine())
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, RATE)) == RATE


def test_chunks_around_the_samples(tmp_path):
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    samples = struct.pack("<3h", 1, 2, 3)
    chunks = [(b"fmt ", form), (b"LIST", b"odd"), (b"data", samples), (b"note", b"tail")]
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    assert (read_audio(path, RATE) * 32768).tolist() == [1, 2, 3]


def test_pieces_at_the_rate_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", sine(11025, 11025), rate=11025, subtype="FLOAT")
    pieces = list(decode_pieces(path, piece_s=0.3))
    assert [len(piece) for piece in pieces] == [3307, 3307, 3307, 1104]
    assert np.concatenate(pieces).tolist() == sine(11025, 11025).tolist()


def test_nan_samples_are_refused(tmp_path):
    path = write(tmp_path / "a.wav", np.array([0, np.nan, 0]), subtype="FLOAT")
    assert flaw(path, read=decoded) == "unreadable"


def test_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "empty", "0 bytes", "record it")))
    assert (str(error), error.kind) == ("a.wav: 0 bytes; record it", "empty")


@pytest.mark.parametrize(("rate", "found"), [(44101, "no simple ratio to 16000"), (1, "4000 and")])
def test_a_rate_that_would_need_a_huge_filter_is_refused(tmp_path, rate, found):
    path = tmp_path / "odd.wav"
    soundfile.write(path, np.full(22050, 0.1), rate)
    with pytest.raises(AudioError, match=f"odd.wav: sample rate {rate} Hz .*{found}"):
        read_audio(path, RATE)


def test_usual_rates_are_supported():
    usual = (8000, 11025, 12000, 22050, 24000, 32000, 44100, 47952, 48000, 88200, 96000, 192000)
    assert [unsupported_rate(rate, target) for rate in usual for target in (8000, 16000)] == [
        ""
    ] * 24


@pytest.mark.parametrize("source_rate_hz", [16000, 44100])
def test_a_part_is_that_of_the_whole(tmp_path, source_rate_hz):
    samples = np.sin(np.arange(2 * source_rate_hz) ** 1.2 * 0.001) * 0.5
    soundfile.write(tmp_path / "a.wav", samples, source_rate_hz)
    whole = read_audio(tmp_path / "a.wav", 16000)
    assert np.array_equal(read_part(tmp_path / "a.wav", 16000, 50_000, 0.7), whole)
    for start, first in ((0.0, 0), (0.5, 12_000), (1.0, 24_000)):
        part = read_part(tmp_path / "a.wav", 16000, 8000, start)
        inside = slice(100, -100)  # the resampling filter has other neighbours at the ends
        np.testing.assert_allclose(part[inside], whole[first : first + 8000][inside], atol=1e-3)
