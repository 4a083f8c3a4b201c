"""wekws-spot: files, folders, pipes, the microphone, figures, and unusable input."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import SMALL_CONFIG, TONES_HZ

from wekws.bin import spot
from wekws.dataset.label_set import LabelSet
from wekws.dataset.pcm_stream import read_pcm
from wekws.errors import ConfigError, DataError
from wekws.files import file_sha256, write_json
from wekws.log import run
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.stream import KeywordSpotter, load_model
from wekws.stream.spot_files import recordings_in

ROOT = Path(__file__).parents[3]
RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder with a model of random weights, and recordings."""
    root = tmp_path_factory.mktemp("spot")
    config = {**SMALL_CONFIG, "model": {**SMALL_CONFIG["model"], "output_dim": 5}}
    (root / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    tokens = ["<blk>", "<filler>", "嗨", "小", "问"]
    rows = "".join(f"{token} {i}\n" for i, token in enumerate(tokens))
    (root / "dict.txt").write_text(rows, encoding="utf-8")
    (root / "keywords.txt").write_text("嗨小\n问小\n", encoding="utf-8")
    torch.manual_seed(0)
    backbone = FSMNConfig(**config["model"]["backbone"])
    cmvn = torch.full((400,), 8.0), torch.full((400,), 0.3)
    model = KwsModel(ModelConfig(output_dim=5, backbone=backbone), cmvn)
    with torch.no_grad():
        model.backbone.out_linear2.linear.weight.mul_(20)
    save_weights(model.state_dict(), root / "avg_2.pt")
    (root / "wav/more").mkdir(parents=True)
    soundfile.write(root / "wav/a.wav", melody(0), RATE, subtype="PCM_16")
    soundfile.write(root / "wav/more/b.flac", melody(1), RATE)
    return root


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder / "avg_2.pt").with_thresholds(0.05)


def melody(seed, rate=RATE):
    rng = np.random.default_rng(seed)
    times = np.arange(rate // 10) / rate
    parts = [
        0.3 * np.sin(2 * np.pi * rng.choice(list(TONES_HZ.values())) * times)
        + 10 ** rng.uniform(-4, -2) * rng.standard_normal(len(times))
        for _ in range(30)
    ]
    return np.concatenate(parts)


def spotted(capsys, *arguments):
    assert spot.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def options(folder):
    return ("--checkpoint", folder / "avg_2.pt", "--threshold", 0.05)


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))


def test_files_and_folders(folder, options, capsys):
    lines = spotted(capsys, *options, folder / "wav")
    sources = {line.partition(": ")[0] for line in lines}
    assert sources == {str(folder / "wav/a.wav"), str(folder / "wav/more/b.flac")}
    one = spotted(capsys, *options, folder / "wav/a.wav")
    assert one == [line for line in lines if "a.wav" in line]


def test_json_lines_are_the_detections_of_python(folder, model, options, capsys):
    rows = [json.loads(line) for line in spotted(capsys, *options, "--json", folder / "wav/a.wav")]
    samples, _ = soundfile.read(folder / "wav/a.wav", dtype="float32")
    spotter = KeywordSpotter(model)
    expected = [vars(d) for d in spotter.accept(samples) + spotter.flush()]
    assert len(expected) > 2
    for row, detection in zip(rows, expected, strict=True):
        assert row.pop("source") == str(folder / "wav/a.wav")
        assert row.pop("confidence") == pytest.approx(detection.pop("confidence"), rel=1e-4)
        assert row == detection


def test_python_lines_of_the_readme(folder, options, capsys, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Keywords in a stream")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    code = code.replace("exp/synth_small/student/avg_4.pt", "avg_2.pt").replace("(0.6)", "(0.05)")
    monkeypatch.chdir(folder)
    exec(code.replace("recording.wav", "wav/a.wav"), {})
    lines = capsys.readouterr().out.splitlines()
    expected = spotted(capsys, *options, folder / "wav/a.wav")
    assert len(lines) == len(expected)
    for line, other in zip(lines, expected, strict=True):
        assert other.endswith(line)


def test_a_pipe_of_wav_or_raw_pcm(folder, options, capsys, monkeypatch):
    expected = spotted(capsys, *options, folder / "wav/a.wav")
    expected = [line.replace(str(folder / "wav/a.wav"), "stdin") for line in expected]
    data = (folder / "wav/a.wav").read_bytes()
    pipe(monkeypatch, data)
    assert spotted(capsys, *options, "-") == expected
    pipe(monkeypatch, data[44:])  # 16-bit PCM without its header
    assert spotted(capsys, *options, "-") == expected


def test_other_rates_are_resampled(folder, options, capsys, monkeypatch, tmp_path):
    soundfile.write(tmp_path / "a.wav", melody(0, 48000), 48000, subtype="PCM_16")
    expected = spotted(capsys, *options, tmp_path / "a.wav")
    assert len(expected) > 2
    pipe(monkeypatch, (tmp_path / "a.wav").read_bytes()[44:])
    found = spotted(capsys, *options, "--sample_rate_hz", 48000, "-")
    assert [line.partition(": ")[2] for line in found] == [
        line.partition(": ")[2] for line in expected
    ]


def test_a_rate_of_0_is_refused(folder, options, monkeypatch):
    pipe(monkeypatch, (folder / "wav/a.wav").read_bytes()[44:])
    with pytest.raises(DataError, match="sample rate 0 Hz is not between"):
        spot.main([str(a) for a in (*options, "--sample_rate_hz", 0, "-")])


def test_console_script_on_a_real_pipe(folder, capsys, options):
    command = [sys.executable, "-m", "wekws.bin.spot", *map(str, options), "-"]
    with open(folder / "wav/a.wav", "rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(spotted(capsys, *options, folder / "wav/a.wav"))


def test_exported_model_without_torch(folder, options, capsys, tmp_path):
    """Modules that an environment for detectors lacks cannot be imported here."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from wekws.export.exporter import export_checkpoint

    exported = export_checkpoint(folder / "avg_2.pt", tmp_path / "a.onnx").path
    absent = ("torch", "torchaudio", "yaml", "matplotlib", "tqdm", "scipy", "pypinyin")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from wekws.bin import spot\n"
        "sys.exit(spot.main(sys.argv[1:]))"
    )
    arguments = ("--model", exported, "--threshold", 0.05, folder / "wav/a.wav")
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == spotted(capsys, *options, folder / "wav/a.wav")


def test_microphone(folder, options, capsys, monkeypatch):
    """A fake sounddevice whose recording ends when the command is interrupted."""
    samples = melody(0).astype(np.float32)

    class Recording:
        def __init__(self, *, samplerate, channels, dtype, blocksize, callback):
            assert (samplerate, channels, dtype) == (RATE, 1, "float32")
            self.callback, self.size = callback, blocksize

        def __enter__(self):
            for i in range(0, len(samples), self.size):
                self.callback(samples[i : i + self.size, None], None, None, None)
            self.callback(np.full((1, 1), np.nan, np.float32), None, None, None)

        def __exit__(self, *exception):
            pass

    fake = types.SimpleNamespace(InputStream=Recording, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    with pytest.raises(DataError, match="nan"):
        spot.main([str(a) for a in (*options, "--mic")])
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_no_microphone_is_a_clear_message(options, monkeypatch):
    def missing(**_):
        raise OSError("Error querying device -1")

    fake = types.SimpleNamespace(InputStream=missing, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    with pytest.raises(ConfigError, match="no microphone that records at 16000 Hz .*querying"):
        spot.main([str(a) for a in (*options, "--mic")])
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ConfigError, match="pip install sounddevice"):
        spot.main([str(a) for a in (*options, "--mic")])


def test_plot(folder, options, capsys, tmp_path):
    out = tmp_path / "a.png"
    lines = spotted(capsys, *options, "--plot", out, folder / "wav/a.wav")
    assert lines == spotted(capsys, *options, folder / "wav/a.wav")
    assert out.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match="draws one recording; found 2"):
        spotted(capsys, *options, "--plot", out, folder / "wav")
    with pytest.raises(SystemExit):
        spotted(capsys, *options, "--plot", tmp_path / "a.txt", folder / "wav/a.wav")


def test_keywords_at_run_time(folder, capsys, caplog):
    arguments = ("--checkpoint", folder / "avg_2.pt", folder / "wav/a.wav")
    spotted(capsys, *arguments, "--keywords", "小问")
    assert "小问: no threshold was chosen, 0.5 is used" in caplog.text
    caplog.clear()
    lines = spotted(capsys, *arguments, "--keywords", "小嗨", "--threshold", 0)
    assert lines and all("小嗨" in line for line in lines) and not caplog.text
    with pytest.raises(ConfigError, match="JARVIS: the model has no output for J A R V I S"):
        spotted(capsys, *arguments, "--keywords", "jarvis")


def test_thresholds_come_from_the_results_beside_the_checkpoint(folder, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    root = shutil.copytree(folder, tmp_path / "run")
    results = root / "test_avg_2"
    results.mkdir()
    point = {"budget": "1/h", "threshold": 1.0, "chosen_on": "dev"}
    entries = [{"keyword": "嗨小", "operating_points": [point]}]
    write_json(results / "summary.json", {"keywords": entries})
    (results / "stats.嗨小.txt").write_text("0.5 1 0\n", encoding="utf-8")
    info = {"decoder": "keyword", "checkpoint_sha256": file_sha256(root / "avg_2.pt")}
    write_json(results / "score.json", info)
    arguments = ("--checkpoint", root / "avg_2.pt", root / "wav/a.wav")
    lines = spotted(capsys, *arguments)
    assert "thresholds for 1/h, chosen on dev" in caplog.text
    assert "问小: no threshold was chosen" in caplog.text
    assert not any("嗨小" in line for line in lines)
    write_json(results / "score.json", {**info, "checkpoint_sha256": "of another checkpoint"})
    caplog.clear()
    spotted(capsys, *arguments)
    assert "嗨小, 问小: no threshold was chosen" in caplog.text


def test_a_broken_file_in_a_folder_does_not_stop_the_others(folder, options, capsys, tmp_path):
    shutil.copy(folder / "wav/a.wav", tmp_path / "b.wav")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert spot.main([*map(str, options), str(tmp_path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines and all("b.wav" in line for line in lines)


def test_an_empty_folder_does_not_stop_the_others(folder, options, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    inputs = (tmp_path / "empty", tmp_path / "none.wav", folder / "wav/a.wav")
    assert spot.main([str(a) for a in (*options, *inputs)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines and all("a.wav" in line for line in lines)


def test_a_folder_with_the_name_of_a_recording_is_none(folder, tmp_path):
    shutil.copytree(folder / "wav", tmp_path / "dir.wav")
    assert recordings_in(tmp_path) == [tmp_path / "dir.wav/a.wav", tmp_path / "dir.wav/more/b.flac"]


def test_what_is_no_regular_file_is_said(folder, options, tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    for path in ("/dev/null", tmp_path / "fifo.wav"):
        with pytest.raises(DataError, match=f"{path}: not a regular file; .* pipes as -"):
            spot.main([str(a) for a in (*options, path)])
    with pytest.raises(DataError, match="none.wav: no such file; correct the path$"):
        spot.main([str(a) for a in (*options, "none.wav")])


def test_absurd_samples_name_their_file(options, tmp_path):
    path = tmp_path / "loud.wav"
    samples = np.zeros(9000, np.float32)
    samples[5000] = 1e30
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=f"^{path}: samples: 1.*e.30 at place 5000"):
        spot.main([str(a) for a in (*options, path)])


def test_missing_packages_are_named(folder, options, monkeypatch, tmp_path):
    """As in an environment for detectors, which has neither torch nor matplotlib."""
    plot = ("--plot", tmp_path / "a.png", folder / "wav/a.wav")
    monkeypatch.delitem(sys.modules, "wekws.plot.detections", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ConfigError, match="--plot needs matplotlib.*: pip install matplotlib"):
        spot.main([str(a) for a in (*options, *plot)])
    monkeypatch.delitem(sys.modules, "wekws.stream.torch_network", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    for option in ("--checkpoint", "--model"):
        with pytest.raises(ConfigError, match="avg_2.pt: a checkpoint needs torch, .*pip install"):
            spot.main([option, str(folder / "avg_2.pt"), "a.wav"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.wav"], "no such file"),
        (["config.yaml"], "expected WAV, FLAC or Ogg"),
        (["empty"], "no audio file in it"),
        (["--threshold", "1.5", "wav/a.wav"], "threshold 1.5; expected 0 to 1"),
        (["--keywords", ",", "wav/a.wav"], "found none"),
    ],
)
def test_mistakes_end_in_one_message(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir(exist_ok=True)
    status = run(lambda: spot.main(["--checkpoint", "avg_2.pt", *arguments]))
    assert status == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("name", ["model.txt", "model"])
def test_other_models_are_refused(folder, name):
    with pytest.raises(ConfigError, match="expected a checkpoint"):
        spot.main(["--model", str(folder / name), "a.wav"])


def test_arguments_that_contradict_each_other(folder):
    for arguments in ([], ["--mic", "a.wav"], ["-", "a.wav"]):
        with pytest.raises(SystemExit):
            spot.main(["--checkpoint", str(folder / "avg_2.pt"), *arguments])


def wav_bytes(samples, rate=RATE, channels=1):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def pcm(data, rate=RATE):
    return np.concatenate(list(read_pcm(io.BytesIO(data), rate, rate)))


def test_pcm_of_channels_formats_and_sizes(tmp_path):
    samples = np.arange(-100, 100)
    expected = samples.astype(np.float32) / 32768
    assert np.array_equal(pcm(wav_bytes(samples)), expected)
    assert np.array_equal(pcm(wav_bytes(np.repeat(samples, 2), channels=2)), expected)
    assert np.array_equal(pcm(samples.astype("<i2").tobytes() + b"\x07"), expected)
    streamed = bytearray(wav_bytes(samples))
    streamed[40:44] = b"\xff\xff\xff\xff"  # of unknown length
    assert np.array_equal(pcm(bytes(streamed)), expected)
    soundfile.write(tmp_path / "a.wav", expected, RATE, subtype="FLOAT")
    assert np.array_equal(pcm((tmp_path / "a.wav").read_bytes()), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no samples"),
        (b"\x00", "no samples"),
        (wav_bytes(np.zeros(9))[:30], "ends inside its header"),
        (wav_bytes(np.zeros(9))[:-3], "ends after 15 of 18 bytes"),
        (wav_bytes(np.zeros(9), rate=1), "sample rate 1 Hz"),
        (b"RIFF\0\0\0\0WAVEdata\x08\0\0\0" + bytes(8), "without `fmt `"),
        (b"fLaC" + bytes(99), "starts as FLAC; .*ffmpeg -i FILE -f wav -"),
        (b"OggS" + bytes(99), "starts as Ogg;"),
        (b"ID3\x04" + bytes(99), "starts as MP3;"),
        (b"RF64\xff\xff\xff\xffWAVE" + bytes(99), "starts as RF64;"),
        (b"RIFF" + bytes(99), "starts as RIFF, but"),
        (b"RIFF", "starts as RIFF, but"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff" + bytes(99), "ends inside its header"),
    ],
)
def test_unusable_pcm(data, message):
    with pytest.raises(DataError, match=message):
        pcm(data)


@given(st.integers(0, 60), st.binary(max_size=60), st.integers(0, 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_fuzzed_headers_end_in_an_error_or_samples(place, data, keep):
    """A valid WAV with some bytes of its header replaced, cut off or not."""
    whole = wav_bytes(np.arange(50))
    broken = whole[:place] + data + whole[place + len(data) :] * keep
    try:
        samples = pcm(broken)
    except DataError:
        return
    assert samples.ndim == 1 and samples.dtype == np.float32


@given(st.integers(0, 60), st.binary(max_size=60), st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_fuzzed_files_end_in_a_message_or_a_result(folder, model, place, data, keep):
    whole = wav_bytes(np.arange(2000))
    path = folder / "fuzzed.wav"
    path.write_bytes(whole[:place] + data + whole[place + len(data) :] * keep)
    try:
        list(spot.spot_recording(model, path))
    except DataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "a.png", "-"), "--plot: draws a file"),
        (("--plot", "a.png", "--mic"), "--plot: draws a file"),
        (("--json", "--web"), "--json: the page shows"),
        (("--sample_rate_hz", "8000", "a.wav"), "--sample_rate_hz: is the rate of raw PCM"),
        (("--lexicon", "lexicon.txt", "a.wav"), "--lexicon: gives pronunciations of --keywords"),
    ],
)
def test_options_without_effect_are_refused(options, arguments, message, capsys):
    with pytest.raises(SystemExit):
        spot.main([str(a) for a in (*options, *arguments)])
    assert message in capsys.readouterr().err


def test_a_dictionary_in_another_order_is_refused(folder, tmp_path):
    """The outputs would be taken for other tokens."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    labels = LabelSet.load(copy / "dict.txt")
    (copy / "run.json").write_text(json.dumps({"vocabulary": labels.fingerprint}))
    load_model(copy / "avg_2.pt")
    rows = [line.split() for line in (copy / "dict.txt").read_text("utf-8").splitlines()]
    tokens, ids = zip(*rows, strict=True)
    swapped = [*tokens[:2], tokens[3], tokens[2], *tokens[4:]]
    text = "".join(f"{token} {i}\n" for token, i in zip(swapped, ids, strict=True))
    (copy / "dict.txt").write_text(text, "utf-8")
    with pytest.raises(DataError, match="but the model was trained with"):
        load_model(copy / "avg_2.pt")
