"""Feature teachers: ONNX chains with a known answer, torchaudio models without weights."""

import builtins
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
import yaml
from tiny_feature_teacher import NUM_VALUES

from wekws.config import load_yaml_with_base, parse_section
from wekws.dataset.feature_teacher import (
    OnnxTeacherConfig,
    TorchaudioTeacher,
    bundle_names,
    load_feature_teacher,
)
from wekws.errors import ConfigError, DataError

SHIPPED = sorted((Path(__file__).parents[3] / "conf/feature_teachers").glob("*.yaml"))


def changed(feature_teacher, tmp_path, change=None, **values):
    """A copy of the description and its models with some values changed."""
    shutil.copytree(Path(feature_teacher).parent, tmp_path / "copy", dirs_exist_ok=True)
    path = tmp_path / "copy/tiny.yaml"
    content = yaml.safe_load(path.read_text()) | values
    if change is not None:
        change(content)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def by_hand(samples):
    """What the small ONNX teacher computes, in numpy."""
    size = 32768 * np.abs(samples)
    frames = np.array([size[i : i + 400].mean() for i in range(0, len(size) - 399, 160)])
    frames = 0.5 * frames + 1.0
    means = [frames[i : i + 10].mean() for i in range(0, len(frames) - 9, 4)]
    return np.outer(means, np.arange(1, 7))


@pytest.mark.parametrize("num_samples", [1839, 1840, 2479, 2480, 16000])
def test_a_chain_of_onnx_models_gives_the_values_computed_by_hand(feature_teacher, num_samples):
    teacher = load_feature_teacher(feature_teacher)
    samples = np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32)
    embeddings = teacher.embed(samples)
    # 115 ms are 1840 samples, 40 ms are 640.
    assert len(embeddings) == teacher.num_embeddings(num_samples) == (num_samples - 1200) // 640
    assert embeddings.dtype == np.float32 and embeddings.shape[1] == NUM_VALUES
    if len(embeddings):
        assert embeddings == pytest.approx(by_hand(samples), rel=1e-4)


def test_many_windows_are_run_in_parts(feature_teacher):
    samples = np.random.default_rng(0).uniform(-1, 1, 160_000).astype(np.float32)
    embeddings = load_feature_teacher(feature_teacher).embed(samples)
    assert len(embeddings) == 248
    assert embeddings == pytest.approx(by_hand(samples), rel=1e-4)


def test_fingerprint_follows_models_and_description_but_not_their_place(feature_teacher, tmp_path):
    whole = load_feature_teacher(feature_teacher).fingerprint
    moved = changed(feature_teacher, tmp_path)
    assert load_feature_teacher(moved).fingerprint == whole
    scaled = changed(feature_teacher, tmp_path, lambda c: c["stages"][0].update(scale=2.0))
    assert load_feature_teacher(scaled).fingerprint != whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window_ms": 200}, r"expected \d+ of 6 \(window 200 ms"),
        ({"hop_ms": 20}, "expected 4 of 6"),
        ({"num_values": 7}, "expected 4 of 7"),
        ({"num_values": 0}, "sample_rate_hz and num_values: expected > 0"),
        ({"stages": []}, "at least one model"),
        ({"stages": [{"model": "frames.onnx", "window": 3}]}, "window 3, hop 0"),
        ({"stages": [{"model": "none.onnx"}]}, "none.onnx: no such file"),
        ({"stages": [{"model": "no_such_package:a.onnx"}]}, "no_such_package is not installed"),
        ({"stages": [{"model": "numpy:a.onnx"}]}, "in the package numpy"),
        ({"stages": [{"model": "tiny.yaml"}]}, "not an ONNX model"),
        ({"stages": [{"model": "windows.onnx"}]}, "windows.onnx does not take"),
        ({"step_ms": 3}, "unknown key"),
    ],
)
def test_wrong_descriptions(feature_teacher, tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        load_feature_teacher(changed(feature_teacher, tmp_path, **values))


def test_a_missing_file_and_an_unknown_bundle(tmp_path):
    with pytest.raises(ConfigError, match="none.yaml: no such file"):
        load_feature_teacher(str(tmp_path / "none.yaml"))
    for name in ("HUBERT_BASIS", "HUBERT_BASE:last", "TACOTRON2_WAVERNN_PHONE_LJSPEECH"):
        with pytest.raises(ConfigError, match="expected a YAML description.*HUBERT_BASE, "):
            load_feature_teacher(name)
    assert {"HUBERT_BASE", "WAV2VEC2_ASR_BASE_960H"} <= set(bundle_names())


def test_without_onnxruntime_the_error_names_the_extra(feature_teacher, monkeypatch):
    whole = builtins.__import__

    def without(name, *rest, **more):
        if name == "onnxruntime":
            raise ImportError(name)
        return whole(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install -e .\[embedding\]"):
        load_feature_teacher(feature_teacher)


def test_outputs_that_are_not_finite_are_refused(feature_teacher):
    teacher = load_feature_teacher(feature_teacher)
    with pytest.raises(DataError, match="not finite"):
        teacher.embed(np.full(4000, np.inf, np.float32))


def wav2vec2(seed=0):
    """A wav2vec 2.0 of 2 layers of 16 values, random weights."""
    torch.manual_seed(seed)
    convolutions = [(8, 10, 5), *[(8, 3, 2)] * 4, (8, 2, 2), (8, 2, 2)]
    return torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=convolutions,
        extractor_conv_bias=False,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=2,
        encoder_num_layers=2,
        encoder_num_heads=2,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.5,
        aux_num_out=None,
    )


def test_a_torchaudio_model_gives_a_layer_every_20_ms():
    model = wav2vec2()
    last, first = (TorchaudioTeacher(model, "m", sample_rate_hz=16000, layer=n) for n in (0, 1))
    assert (last.window_ms, last.hop_ms, last.num_values) == (25.0, 20.0, 16)
    assert last.fingerprint != first.fingerprint
    other = TorchaudioTeacher(wav2vec2(1), "m", sample_rate_hz=16000)
    assert other.fingerprint != last.fingerprint
    for num_samples in (399, 400, 719, 720, 16000):
        samples = np.random.default_rng(0).uniform(-1, 1, num_samples).astype(np.float32)
        embeddings = last.embed(samples)
        assert embeddings.shape == (last.num_embeddings(num_samples), 16)
    layers, _ = model.extract_features(torch.from_numpy(samples)[None])
    assert last.embed(samples) == pytest.approx(layers[1][0].numpy())
    assert first.embed(samples) == pytest.approx(layers[0][0].numpy())
    with pytest.raises(ConfigError, match="layer 3; expected 1 to 2"):
        TorchaudioTeacher(model, "m", sample_rate_hz=16000, layer=3)


class _Bundle(torchaudio.pipelines.Wav2Vec2Bundle):
    def __init__(self, error=None):
        self._error = error

    @property
    def sample_rate(self):
        return 16000

    def get_model(self):
        if self._error:
            raise self._error
        return wav2vec2()


def test_a_bundle_by_its_name(monkeypatch):
    monkeypatch.setattr(torchaudio.pipelines, "SMALL", _Bundle(), raising=False)
    teacher = load_feature_teacher("SMALL:1")
    expected = TorchaudioTeacher(wav2vec2(), "", sample_rate_hz=16000, layer=1)
    assert teacher.fingerprint == expected.fingerprint
    offline = _Bundle(OSError("no route to host"))
    monkeypatch.setattr(torchaudio.pipelines, "SMALL", offline, raising=False)
    with pytest.raises(ConfigError, match="cannot load the weights: no route to host; copy"):
        load_feature_teacher("SMALL")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_descriptions_load(path):
    parse_section(OnnxTeacherConfig, load_yaml_with_base(path), str(path))


def test_googles_speech_embedding_is_that_of_openwakeword():
    """Needs openwakeword 0.4.0 (``pip install --no-deps``); its own pipeline is the reference."""
    onnxruntime = pytest.importorskip("onnxruntime")
    package = importlib.util.find_spec("openwakeword")
    if package is None:
        pytest.skip("openwakeword is not installed")
    folder = Path(package.submodule_search_locations[0]) / "resources/models"
    teacher = load_feature_teacher(os.fspath(SHIPPED[0]))
    samples = np.random.default_rng(0).integers(-3000, 3000, 40000).astype(np.int16)
    sessions = [
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
        for name in ("melspectrogram", "embedding_model")
    ]
    # openwakeword.utils.AudioFeatures._get_embeddings, step by step.
    spec = sessions[0].run(None, {"input": samples[None].astype(np.float32)})[0].squeeze() / 10 + 2
    windows = [spec[i : i + 76] for i in range(0, len(spec), 8) if len(spec[i : i + 76]) == 76]
    batch = np.array(windows)[..., None].astype(np.float32)
    expected = sessions[1].run(None, {"input_1": batch})[0].squeeze()
    assert len(expected) == (40000 - 12512) // 1280 + 1 == 22
    assert teacher.embed(samples / np.float32(32768)) == pytest.approx(expected, abs=1e-3)
