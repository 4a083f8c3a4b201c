"""The detector on a stream against whole recordings, and what it refuses."""

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_detector import FRONT_END, TOKENS, detector, random_network

from wekws.dataset.features import expand_context, fbank
from wekws.decode.event_rule import EventRule
from wekws.decode.keyword import KeywordScorer
from wekws.errors import ConfigError, DataError
from wekws.stream import Detection, KeywordSpotter


def run(spotter, samples, sizes=()):
    """All detections of a stream whose chunks have these sizes; the rest is one chunk."""
    found, place = [], 0
    for size in [*sizes, len(samples)]:
        found += spotter.accept(samples[place : place + size])
        place += size
    return found + spotter.flush()


def offline_log_probs(network, samples):
    feats = fbank(samples, FRONT_END)[None]
    frames, lengths = expand_context(feats, torch.tensor([feats.shape[1]]), FRONT_END)
    with torch.inference_mode():
        return network.model(frames, lengths).log_softmax(-1)


def network_outputs(network, frames, sizes):
    """Outputs of a network that gets its frames in pieces."""
    state, rows = network.initial_state(), []
    for part in np.split(frames, np.cumsum(sizes)[:-1]):
        before = [array.copy() for array in state]
        out, following = network.step(part, state)
        assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True))
        rows.append(out)
        state = following
    return np.concatenate([*rows, network.flush(state)])


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_layers": 3, "left_order": 3, "left_stride": 2, "right_order": 2, "right_stride": 3},
        {"left_order": 1, "right_order": 0},
        {"output_affine_dim": 0},
    ],
)
def test_network_on_a_stream_equals_whole_recordings(sizes):
    network = random_network(**sizes)
    rng = np.random.default_rng(1)
    for num_frames in (1, 2, 5, 60):
        frames = rng.normal(8, 3, (num_frames, 400)).astype(np.float32)
        with torch.inference_mode():
            expected = network.model(torch.from_numpy(frames)[None]).log_softmax(-1)[0].numpy()
        for pieces in ([num_frames], [1] * num_frames, [num_frames // 2, -(-num_frames // 2)]):
            if 0 not in pieces:
                found = network_outputs(network, frames, pieces)
                np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_look_ahead_delays_the_first_rows():
    network = random_network(num_layers=2, right_order=2, right_stride=2)
    assert network.look_ahead == 8
    out, state = network.step(np.zeros((10, 400), np.float32), network.initial_state())
    assert len(out) == 2
    assert len(network.flush(state)) == 8
    assert len(network.flush(network.initial_state())) == 0


def test_stream_equals_the_whole_recording(model, audio):
    log_probs = offline_log_probs(model.network, audio)
    max_frames = [30, 30]  # 0.9 s
    confidence, start = KeywordScorer(model.keyword_ids, max_frames=max_frames)(log_probs)
    rule = EventRule([0.05, 0.05], 10)
    curves = confidence[0].T.numpy(), start[0].T.numpy()
    expected = rule(*curves) + rule.flush()
    seen = []
    found = run(KeywordSpotter(model, observer=seen.append), audio)
    assert len(found) > 3 and {d.keyword for d in found} == {"嗨小", "问问小"}
    assert [(d.keyword, d.start_s, d.end_s) for d in found] == [
        (model.keywords[k].text, round(e.start * 0.03, 6), round((e.end + 1) * 0.03, 6))
        for k, e in expected
    ]
    streamed = np.concatenate([frames.log_probs for frames in seen])
    # Features differ in the rounding of the FFT: 1e-4 where bands are 70 dB below the others.
    np.testing.assert_allclose(streamed, log_probs[0].numpy(), atol=2e-3)
    np.testing.assert_allclose(
        np.concatenate([frames.confidence for frames in seen]), curves[0], atol=1e-3
    )
    assert [frames.first for frames in seen[:3]] == [0, 1, 2]


@given(st.lists(st.integers(0, 4000), max_size=20))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_chunks_change_no_bit(model, audio, sizes):
    assert run(KeywordSpotter(model), audio[:24000], sizes) == run(
        KeywordSpotter(model), audio[:24000]
    )


def test_single_samples_change_no_bit(model, audio):
    spotter = KeywordSpotter(model)
    whole = run(spotter, audio[:16000])
    assert whole and run(spotter, audio[:16000], [1] * 16000) == whole


def test_steps_of_several_frames_find_the_same(model, audio):
    one, ten = (run(KeywordSpotter(model, frames_per_step=n), audio) for n in (1, 10))
    assert [(d.keyword, d.start_s, d.end_s, d.decided_s) for d in one] == [
        (d.keyword, d.start_s, d.end_s, d.decided_s) for d in ten
    ]
    np.testing.assert_allclose([d.confidence for d in one], [d.confidence for d in ten], rtol=1e-4)


def test_detections_come_when_they_are_decided(model, audio):
    spotter = KeywordSpotter(model)
    num_during = 0
    for place in range(0, len(audio), 160):
        for detection in spotter.accept(audio[place : place + 160]):
            num_during += 1
            assert (place + 160) / 16000 >= detection.decided_s > place / 16000
            # Look-ahead of 2 frames, the frame after the peak, and the windows of its context.
            assert detection.decided_s - detection.end_s == pytest.approx(0.09 + 0.015, abs=1e-6)
    at_the_end = spotter.flush()
    assert num_during > 3
    assert all(detection.decided_s == 4.0 for detection in at_the_end)


def test_int16_and_reset(model, audio):
    integers = (audio * 32767).astype(np.int16)
    spotter = KeywordSpotter(model)
    expected = run(spotter, integers.astype(np.float32) / 32768)
    spotter.accept(audio[::-1].copy())
    spotter.reset()
    assert run(spotter, integers) == expected
    assert run(spotter, integers) == expected  # flush resets too
    assert spotter.duration_s == 0


def test_memory_does_not_grow(model, audio):
    spotter = KeywordSpotter(model, frames_per_step=5)
    sizes = []
    for _ in range(6):
        spotter.accept(audio)
        parts = (spotter._front_end, spotter._search, spotter._rule, spotter._state)
        sizes.append(len(pickle.dumps(parts)))
    # 12 s are a multiple of the steps of 150 ms, so as many samples wait; counters grow by digits.
    assert all(abs(later - sooner) < 50 for sooner, later in zip(sizes, sizes[3:], strict=False))
    assert max(sizes) < 300_000


def test_empty_streams(model):
    spotter = KeywordSpotter(model)
    assert spotter.flush() == []
    assert run(spotter, np.zeros(0, np.float32)) == []
    assert run(spotter, np.zeros(400, np.float32)) == run(spotter, np.zeros(400, np.int16))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(3), "float64; expected"),
        (np.zeros((3, 2), np.float32), r"shape \(3, 2\); expected one channel"),
        (np.zeros((), np.float32), "one channel"),
        ([0.0, 1.0], "list; expected"),
        (np.float32([0, np.nan]), "nan at place 1"),
        (np.float32([np.inf]), "inf at place 0"),
        (np.float32([0, 0, -1e30]), "-1.*e.30 at place 2; expected numbers from -1 to 1"),
        (np.zeros(3, np.int32), "int32"),
    ],
)
def test_unusable_samples_are_refused_and_change_nothing(model, audio, samples, message):
    spotter = KeywordSpotter(model)
    expected = run(spotter, audio[:16000])
    found = spotter.accept(audio[:5000])
    with pytest.raises(DataError, match=message):
        spotter.accept(samples)
    assert found + spotter.accept(audio[5000:16000]) + spotter.flush() == expected


@given(st.binary(max_size=4000), st.sampled_from([np.float32, np.int16]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_random_bytes_end_in_an_error_or_a_result(model, data, kind):
    samples = np.frombuffer(data[: len(data) // 4 * 4], kind)
    spotter = KeywordSpotter(model)
    try:
        found = spotter.accept(samples) + spotter.flush()
    except DataError:
        assert kind == np.float32
    else:
        assert all(isinstance(d, Detection) and 0 <= d.confidence <= 1 for d in found)


def test_loud_and_silent_audio_give_finite_confidences(model):
    for level in (0.0, 1e-30, 1.0, 1e8):
        samples = np.full(8000, level, np.float32)
        samples[::2] *= -1
        seen = []
        run(KeywordSpotter(model, observer=seen.append), samples)
        assert all(np.isfinite(frames.confidence).all() for frames in seen)


def test_damaged_networks_are_named(audio):
    network = random_network()
    with torch.no_grad():
        network.model.backbone.out_linear2.linear.weight[1, 1] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        KeywordSpotter(detector(network)).accept(audio)


def test_settings_that_cannot_work_are_refused(model):
    with pytest.raises(ConfigError, match="嗨小: no threshold"):
        KeywordSpotter(detector(model.network, threshold=None))
    with pytest.raises(ConfigError, match="嗨小: max_duration_s 0.03 is 1 frames; expected 2"):
        KeywordSpotter(detector(model.network, max_duration_s=0.03))
    for number in (0, 1.5, "3"):
        with pytest.raises(ConfigError, match="frames_per_step: found .*; expected a whole"):
            KeywordSpotter(model, frames_per_step=number)
    other = dataclasses.replace(FRONT_END, frame_skip=3, left_context=3)
    with pytest.raises(ConfigError, match="takes 400 features per frame, the front end makes 480"):
        type(model.network)(model.network.model, other)


def test_keywords_at_run_time(model):
    other = model.with_keywords(["小嗨", "嗨小"])
    assert [(k.text, k.tokens, k.threshold) for k in other.keywords] == [
        ("小嗨", ("小", "嗨"), None),
        ("嗨小", ("嗨", "小"), 0.05),
    ]
    # 1.3 s and 0.3 s for each character, as in scoring
    assert other.keywords[0].max_duration_s == 1.9
    assert run(KeywordSpotter(other.with_thresholds(0.5)), np.zeros(9000, np.float32)) == []
    with pytest.raises(ConfigError, match="HEY 你: the model has no output for H E Y 你; its 3"):
        model.with_keywords(["hey 你"])


def test_keywords_of_a_lexicon(model, tmp_path):
    (tmp_path / "lexicon.txt").write_text("HELLO 嗨 小\n", encoding="utf-8")
    other = model.with_keywords(["hello"], tmp_path / "lexicon.txt")
    assert other.keywords[0].tokens == ("嗨", "小")


def test_import_needs_neither_torch_nor_yaml():
    code = (
        "import sys, wekws.stream; "
        "print(sorted({'torch', 'torchaudio', 'yaml', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_vocabulary_of_the_tests_fits(model):
    assert model.tokens == TOKENS
