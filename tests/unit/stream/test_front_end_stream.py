"""Input frames of a stream against those of training."""

import dataclasses

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
from hypothesis import given, settings
from hypothesis import strategies as st

from wekws.dataset.features import expand_context, fbank
from wekws.errors import ConfigError
from wekws.front_end import FrontEnd
from wekws.stream.front_end_stream import FilterBank, FrontEndStream, mel_filters

STANDARD = FrontEnd(
    sample_rate_hz=16000, num_mel_bins=80, frame_length_ms=25, frame_shift_ms=10,
    left_context=2, right_context=2, frame_skip=3, expected_dither=1.0,
)  # fmt: skip
OTHERS = [
    {"frame_skip": 1, "left_context": 0, "right_context": 0},
    {"frame_skip": 4, "left_context": 0, "right_context": 1},
    {"frame_skip": 2, "left_context": 5, "right_context": 3},
    {"sample_rate_hz": 8000, "num_mel_bins": 23, "frame_length_ms": 20, "frame_shift_ms": 20},
]


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def offline(samples, front_end):
    feats = fbank(samples, front_end)[None]
    return expand_context(feats, torch.tensor([feats.shape[1]]), front_end)[0][0].numpy()


def in_chunks(stream, samples, sizes):
    groups, place = [], 0
    for size in [*sizes, len(samples)]:
        groups += stream.accept(samples[place : place + size])
        place += size
    frames = np.concatenate([*groups, stream.flush()])
    stream.reset()
    return frames


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_filters_are_those_of_training(rate):
    expected, _ = kaldi.get_mel_banks(40, 512, float(rate), 20.0, 0.0, 100.0, -500.0, 1.0)
    np.testing.assert_allclose(mel_filters(40, 512, rate), expected.numpy().T, atol=3e-5)


def test_filterbank_of_noise_is_that_of_training():
    samples = noise(16000)
    np.testing.assert_allclose(
        FilterBank(STANDARD)(samples), fbank(samples, STANDARD).numpy(), atol=2e-4, rtol=0
    )


def test_digital_silence_is_that_of_scoring():
    zeros = np.zeros(16000, np.float32)
    expected = fbank(zeros, STANDARD).numpy()
    assert expected.min() > -3  # without the dither: -15.9
    np.testing.assert_allclose(FilterBank(STANDARD)(zeros), expected, atol=2e-5, rtol=0)


def test_filterbank_of_any_sound_is_that_of_training_to_float32(audio):
    """Where a band is 70 dB below the others, its logarithm has the rounding of the FFT."""
    found, expected = FilterBank(STANDARD)(audio), fbank(audio, STANDARD).numpy()
    loudest = np.exp(expected).max(axis=1, keepdims=True)
    assert (np.abs(np.exp(found) - np.exp(expected)) / loudest).max() < 2e-5


@pytest.mark.parametrize("changes", [{}, *OTHERS])
@pytest.mark.parametrize("frames_per_step", [1, 4])
def test_frames_of_a_stream_are_those_of_the_whole(changes, frames_per_step):
    front_end = dataclasses.replace(STANDARD, **changes)
    stream = FrontEndStream(front_end, frames_per_step)
    for num_samples in (400, 559, 560, 719, 720, 721, 5000):
        samples = noise(num_samples)
        found = in_chunks(stream, samples, [1, 100, 0, 257])
        expected = offline(samples, front_end)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=5e-4, rtol=0)


def test_less_than_a_window_gives_no_frame():
    stream = FrontEndStream(STANDARD)
    for num_samples in (0, 1, 399):
        assert in_chunks(stream, noise(num_samples), []).shape == (0, 400)


@given(st.lists(st.integers(0, 3000), max_size=12), st.sampled_from([1, 3, 16]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_chunks_change_no_bit(sizes, frames_per_step):
    samples = noise(9000)
    stream = FrontEndStream(STANDARD, frames_per_step)
    whole = in_chunks(stream, samples, [])
    assert np.array_equal(in_chunks(stream, samples, sizes), whole)


def test_single_samples_change_no_bit():
    samples = noise(3000)
    stream = FrontEndStream(STANDARD)
    whole = in_chunks(stream, samples, [])
    assert np.array_equal(in_chunks(stream, samples, [1] * len(samples)), whole)


def test_samples_until_a_frame():
    # Frame 0 needs filterbank frames 0 to 2: 2 shifts of 160 samples and a window of 400.
    stream = FrontEndStream(STANDARD)
    assert stream.samples_until(1) == 720
    assert not list(stream.accept(noise(719)))
    assert len(list(stream.accept(noise(1)))) == 1
    # Frame 4 needs filterbank frames up to 14.
    assert stream.samples_until(5) == 14 * 160 + 400


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_skip": 0},
        {"sample_rate_hz": 10**12},
        {"frame_length_ms": 1e9},
        {"frame_shift_ms": 30.0},
        {"num_mel_bins": 0},
        {"left_context": -1},
        {"right_context": 10**9},
        {"frame_shift_ms": float("nan")},
    ],
)
def test_impossible_front_ends_are_refused(changes):
    with pytest.raises(ConfigError, match="front end: "):
        FrontEndStream(dataclasses.replace(STANDARD, **changes))
