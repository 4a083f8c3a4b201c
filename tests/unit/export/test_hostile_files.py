"""Model files that are damaged or made up end in one clear error."""

import json
import random

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from wekws.errors import DataError
from wekws.export.exporter import export_checkpoint
from wekws.stream.load import load_model
from wekws.stream.spotter import KeywordSpotter


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
    refused(path, "not a model|no description|inputs or outputs|not finite|missing from")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=300))
def test_random_bytes(content, tmp_path):
    path = tmp_path / "random.onnx"
    path.write_bytes(content)
    refused(path, "not a model|no description")


def test_files_with_changed_bytes_end_in_a_message_or_a_result(good, tmp_path, capfd):
    """Bytes all over the file; half of the copies have them in names and texts."""
    content, path = good.read_bytes(), tmp_path / "changed.onnx"
    texts = len(content) - 2000  # the description is at the end
    rng, num_refused = random.Random(0), 0
    for number in range(200):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 5)):
            place = rng.randrange(texts * (number % 2), len(changed))
            changed[place] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            spotter = KeywordSpotter(load_model(path).with_thresholds(0.5), frames_per_step=10)
            spotter.accept(np.zeros(8000, np.float32))
        except DataError as error:
            num_refused += 1
            assert len(str(error).splitlines()) == 1
            assert str(path) in str(error) or "of the model are not finite" in str(error)
    assert 20 < num_refused < 180
    assert capfd.readouterr().out == ""


def save_changed(good, path, change):
    model = onnx.load(good)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_wide_state_is_refused_before_the_network_runs(good, tmp_path):
    def widen(model):
        (state,) = [value for value in model.graph.input if value.name == "state"]
        state.type.tensor_type.shape.dim[1].dim_value = 2**24

    path = save_changed(good, tmp_path / "wide.onnx", widen)
    refused(path, "state of 16777216 numbers; expected 1 to 262144")


@pytest.mark.parametrize("spelling", ["usual", "long"])
def test_a_file_cannot_read_other_files(good, tmp_path, monkeypatch, spelling):
    """The data lie beside the model and in the working directory."""
    monkeypatch.chdir(tmp_path)

    def move_out(model):
        tensor = model.graph.initializer[0]
        (tmp_path / "ext.bin").write_bytes(tensor.raw_data)
        sizes = {"location": "ext.bin", "offset": "0", "length": str(len(tensor.raw_data))}
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in sizes.items():
            tensor.external_data.add(key=key, value=value)

    path = save_changed(good, tmp_path / "external.onnx", move_out)
    if spelling == "long":
        # A length of 8 in two bytes; the messages around it would be two bytes longer, but the
        # file is refused before anything reads them.
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\x08location", b"\x88\x00location"))
    refused(path, r"weights in other files \(external data\)")


def test_texts_that_are_not_utf8(good, tmp_path):
    content = good.read_bytes()
    assert content.count("嗨".encode()) > 0
    path = tmp_path / "latin.onnx"
    path.write_bytes(content.replace("嗨".encode(), b"\xff\xfe\xfd"))
    refused(path, "a text inside is not UTF-8")


def test_names_in_a_file_cannot_change_the_terminal(good, tmp_path):
    def rename(model):
        old, new = model.graph.input[0].name, "\x1b[31mred"
        model.graph.input[0].name = new
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]

    path = save_changed(good, tmp_path / "red.onnx", rename)
    with pytest.raises(DataError) as error:
        load_model(path)
    assert str(error.value).isprintable()


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
        ("precision", None, "changed.onnx: precision: missing"),
        ("precision", "int4\x1b[31m", r"precision: found 'int4\\x1b.*'; expected fp32, fp16, int8"),
        ("tokens", None, "changed.onnx: tokens: missing"),
        ("tokens", r'["<blk>", "<filler>", "\u001b[31m"]', "tokens: found .* can be printed"),
        ("keywords", json.dumps([KEYWORD | {"text": "\x1b[31m\nE"}]), "keywords: found .*printed"),
        ("keywords", json.dumps([KEYWORD | {"text": "\ud800"}]), "keywords: found .*printed"),
        ("keywords", json.dumps([KEYWORD | {"text": ""}]), "expected one that is not empty"),
        ("keywords", json.dumps([KEYWORD | {"text": " \u3000"}]), "one that is not empty"),
        ("keywords", json.dumps([KEYWORD | {"max_duration_s": 60}]), "max_duration_s 60 is 2000"),
        ("fingerprints", r'{"checkpoint": "\ud800"}', "fingerprints: found"),
        ("num_parameters", "-1", "num_parameters: found -1"),
        ("macs_per_second", "-1", "macs_per_second: found -1"),
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
        with pytest.raises(DataError, match=f"^{beside}: made for another good.onnx"):
            load_model(good)
    finally:
        beside.unlink()
