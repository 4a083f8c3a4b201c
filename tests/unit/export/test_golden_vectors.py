"""Golden vectors, and a port that is written from wekws/export/PORTING.md alone."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from wekws.bin import export_onnx
from wekws.errors import ConfigError
from wekws.files import read_json

PORTING = Path(export_onnx.__file__).parents[1] / "export/PORTING.md"


@pytest.fixture(scope="module")
def golden(checkpoint, tone_corpus, tmp_path_factory):
    """The content of golden.json, the arrays by name, and the model's path."""
    folder = tmp_path_factory.mktemp("golden")
    flags = ["--checkpoint", checkpoint, "--out", folder / "a.onnx", "--golden", folder]
    assert export_onnx.main([*map(str, flags), "--data_list", str(tone_corpus.dev_list)]) == 0
    info = read_json(folder / "golden.json")
    kinds = {".f32": "<f4", ".i32": "<i4"}
    arrays = {
        name.partition(".")[0]: np.fromfile(folder / name, kinds[name[-4:]]).reshape(shape)
        for name, shape in info["shapes"].items()
    }
    return info, arrays, folder / "a.onnx"


def test_context_and_skip_of_the_frames(golden):
    _, arrays, _ = golden
    fbank = arrays["fbank"]
    for number, frame in enumerate(arrays["frames"]):
        places = [min(max(3 * number + i, 0), len(fbank) - 1) for i in range(-2, 3)]
        np.testing.assert_array_equal(frame, fbank[places].ravel())


def test_filterbank_by_its_definition(golden):
    _, arrays, _ = golden
    samples, width = arrays["samples"].astype(np.float64), 400
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / (width - 1))) ** 0.85

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(20), mel(8000), 82)
    bins = mel(np.arange(256) * 16000 / 512)
    assert len(arrays["fbank"]) == 1 + (len(samples) - width) // 160
    dither = (1 + 0.97**2) * sum(window**2) - 0.03**2 * abs(np.fft.rfft(window, 512)) ** 2 / width
    dither -= 1.94 * sum(window[:-1] * window[1:]) * np.cos(2 * np.pi * np.arange(257) / 512)
    for number in range(0, len(arrays["fbank"]), 7):
        x = 32768 * samples[160 * number : 160 * number + width]
        x = x - x.mean()
        x = (x - 0.97 * np.concatenate([x[:1], x[:-1]])) * window
        power = (np.abs(np.fft.rfft(x, 512)) ** 2 + dither)[:-1]
        rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
        energies = np.clip(np.minimum(rising, falling), 0, None) @ power
        expected = np.log(np.maximum(energies, 1.1920929e-7))
        np.testing.assert_allclose(arrays["fbank"][number], expected, atol=2e-3)


def test_the_network_driven_by_hand(golden):
    _, arrays, path = golden
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    late = int({p.key: p.value for p in onnx.load(path).metadata_props}["look_ahead_frames"])
    state = np.zeros((1, session.get_inputs()[2].shape[1]), np.float32)
    frames = np.concatenate([arrays["frames"], np.zeros((late, 400), np.float32)])
    rows = []
    for number, frame in enumerate(frames):
        valid = np.full((1, 1), number < len(arrays["frames"]), np.float32)
        feed = {"frames": frame[None, None], "valid": valid, "state": state}
        log_probs, state = session.run(["log_probs", "next_state"], feed)
        rows.append(log_probs[0, 0])
    np.testing.assert_allclose(np.stack(rows[late:]), arrays["log_probs"], atol=1e-5)


def paths_from(first, log_probs, ids):
    """P[L] at each frame of the paths that begin at one frame, in floats."""
    before, peaked, blanks = ([-math.inf] * len(ids) for _ in range(3))
    ends = []
    for frame in range(first, len(log_probs)):
        best = max(log_probs[frame])
        r = [max(value - best, -1024) for value in log_probs[frame]]
        enter = [0 if frame == first else -math.inf]
        for i in range(1, len(ids)):
            choices = [blanks[i - 1]] + ([peaked[i - 1]] if ids[i] != ids[i - 1] else [])
            enter.append(max(choices))
        blanks = [max(p, x) + r[0] for p, x in zip(peaked, blanks, strict=True)]
        for i, token in enumerate(ids):
            start = max(before[i], enter[i])
            peaked[i] = max(peaked[i] + r[token], start + r[token] + best)
            before[i] = start + r[token]
        ends.append(peaked[-1])
    return ends


def test_the_search_by_its_definition(golden):
    info, arrays, _ = golden
    log_probs = arrays["log_probs"].tolist()
    for k, keyword in enumerate(info["keywords"]):
        ids, expected = keyword["ids"], np.zeros(len(log_probs))
        for first in range(len(log_probs)):
            ends = paths_from(first, log_probs, ids)[: keyword["max_frames"]]
            for frame, end in enumerate(ends, start=first):
                expected[frame] = max(expected[frame], math.exp(end / len(ids)))
        np.testing.assert_allclose(arrays["confidence"][:, k], expected, atol=1e-5)


def test_events_by_the_rule(golden):
    info, arrays, _ = golden
    (keyword,) = info["keywords"]
    curve = [0.0, *arrays["confidence"][:, 0].tolist(), 0.0]
    expected, last = [], -1000
    for frame in range(len(curve) - 2):
        before, value, after = curve[frame : frame + 3]
        is_peak = before < value >= after
        if is_peak and float(f"{value:.6g}") >= keyword["threshold"] and frame - last >= 33:
            expected.append((arrays["start"][frame, 0] * 0.03, (frame + 1) * 0.03, value))
            last = frame
    assert info["refractory_s"] == 1.0 and expected
    found = [(e["start_s"], e["end_s"], e["confidence"]) for e in info["events"]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert keyword["threshold"] == round(float(arrays["confidence"].max()) / 2, 6)


def test_events_are_decided_by_the_frame_after_the_peak_and_the_look_ahead(golden):
    info, arrays, path = golden
    late = int({p.key: p.value for p in onnx.load(path).metadata_props}["look_ahead_frames"])
    duration_s = len(arrays["samples"]) / 16000
    for event in info["events"]:
        peak = round(event["end_s"] / 0.03) - 1
        last_window = (peak + 1 + late) * 3 + 2  # frame_skip 3, right_context 2
        expected = min(last_window * 0.01 + 0.025, duration_s)
        assert event["decided_s"] == pytest.approx(expected, abs=1e-6)


def test_the_page_for_ports_names_everything_in_the_file(golden):
    info, arrays, _ = golden
    page = PORTING.read_text(encoding="utf-8")
    for name in [*info["shapes"], *info["events"][0], "refractory_s"]:
        assert f"`{name}`" in page, name
    assert "each is half of the highest confidence" in page and "| tolerance |" in page


def test_golden_vectors_are_for_one_file(checkpoint, tmp_path):
    flags = ["--checkpoint", str(checkpoint), "--golden", str(tmp_path)]
    for more in (["--precision", "fp32", "fp16"], ["--layout", "wekws"]):
        with pytest.raises(ConfigError, match="--golden"):
            export_onnx.main([*flags, *more])
