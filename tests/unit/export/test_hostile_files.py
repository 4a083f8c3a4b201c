"""Model files that are damaged or made up end in one clear error."""

import json

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from wekws.errors import DataError
from wekws.export.exporter import export_checkpoint
from wekws.stream.load import load_model


@pytest.fixture(scope="module")
def good(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.onnx"
    export_checkpoint(checkpoint, path)
    return path


def refused(path, match):
    with pytest.raises(DataError, match=match) as error:
        load_model(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files(good, tmp_path, share):
    path = tmp_path / "cut.onnx"
    content = good.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "not a model|no description|inputs or outputs|not finite")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=300))
def test_random_bytes(content, tmp_path):
    path = tmp_path / "random.onnx"
    path.write_bytes(content)
    refused(path, "not a model|no description")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "none.onnx", "no such file")


FRONT_END = {
    "sample_rate_hz": 16000, "num_mel_bins": 80, "frame_length_ms": 25.0, "frame_shift_ms": 10.0,
    "left_context": 2, "right_context": 2, "frame_skip": 3,
}  # fmt: skip
KEYWORD = {
    "text": "A", "tokens": ["嗨"], "threshold": 0.5, "min_duration_s": 0, "max_duration_s": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("format", "2", "format '2'; expected 1"),
        ("tokens", "[" * 100_000, "tokens: not readable as JSON"),
        ("tokens", "[]", "tokens 0 and 1"),
        ("tokens", "[1, 2]", "expected texts"),
        ("tokens", json.dumps(["<blk>", "<filler>", *map(str, range(9))]), "outputs for 11 tokens"),
        ("keywords", "{}", "keywords: found {}"),
        ("keywords", "[]", "at least one keyword"),
        ("keywords", json.dumps([KEYWORD, KEYWORD]), "each may occur once"),
        ("keywords", json.dumps([KEYWORD | {"tokens": ["X"]}]), "no output for X"),
        ("keywords", json.dumps([KEYWORD | {"tokens": "嗨"}]), "list of tokens"),
        (
            "keywords",
            json.dumps([KEYWORD | {"threshold": 1e9}]),
            "threshold of A: found 1000000000",
        ),
        ("keywords", json.dumps([KEYWORD | {"threshold": float("nan")}]), "found nan"),
        ("keywords", json.dumps([KEYWORD | {"max_duration_s": 1e9}]), "max_duration_s of A"),
        ("front_end", "[]", "front_end: found"),
        ("front_end", json.dumps(FRONT_END | {"frame_skip": 0}), "frame_skip 0"),
        ("front_end", json.dumps(FRONT_END | {"frame_skip": 1.5}), "expected a whole number"),
        ("front_end", json.dumps(FRONT_END | {"num_mel_bins": 40}), "takes 400 features"),
        ("front_end", json.dumps(FRONT_END | {"sample_rate_hz": 1e300}), "sample_rate_hz: found"),
        ("look_ahead_frames", "1e99", "look_ahead_frames: found"),
        ("look_ahead_frames", "-1", "look_ahead_frames: found -1"),
        ("refractory_s", "NaN", "refractory_s: found nan"),
        ("precision", None, "precision: missing"),
    ],
)
def test_made_up_descriptions(good, tmp_path, name, text, match):
    model = onnx.load(good)
    texts = {p.key: p.value for p in model.metadata_props} | {name: text}
    del model.metadata_props[:]
    helper.set_model_props(model, {k: v for k, v in texts.items() if v is not None})
    onnx.save(model, tmp_path / "changed.onnx")
    refused(tmp_path / "changed.onnx", match)


def test_outputs_that_are_not_finite(good, tmp_path):
    model = onnx.load(good)
    for constant in model.graph.initializer:
        if constant.name == "backbone.out_linear2.linear.bias":
            values = onnx.numpy_helper.to_array(constant) * float("inf")
            constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
    onnx.save(model, tmp_path / "inf.onnx")
    refused(tmp_path / "inf.onnx", "not finite")


def test_thresholds_of_another_file_are_refused(good):
    beside = good.with_name("good.onnx.thresholds.json")
    beside.write_text(json.dumps({"checkpoint_sha256": "0", "keywords": []}))
    try:
        with pytest.raises(DataError, match="made for another good.onnx"):
            load_model(good)
    finally:
        beside.unlink()
