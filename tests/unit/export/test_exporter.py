"""Exported files: they run alone, detect like their checkpoint, and are scored like it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from wekws.bin import export_onnx, model_info
from wekws.dataset.audio import read_audio
from wekws.dataset.manifest import read_data_list
from wekws.errors import ConfigError, DataError
from wekws.export import exporter
from wekws.export.exporter import export_checkpoint
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config
from wekws.score.scores import read_scores
from wekws.score.scoring import score_list
from wekws.stream import onnx_network
from wekws.stream.load import load_model
from wekws.stream.metadata import PRECISIONS
from wekws.stream.spotter import KeywordSpotter
from wekws.stream.threshold_file import write_threshold_file
from wekws.yaml_files import read_yaml, write_yaml

ROOT = Path(__file__).parents[3]
THRESHOLDS = {"keywords": [{"keyword": "嗨小问", "threshold": 0.001}]}


@pytest.fixture(scope="module")
def exported(checkpoint, tone_corpus, tmp_path_factory):
    """The files of all precisions, by precision, with a threshold inside."""
    path = write_threshold_file(checkpoint, THRESHOLDS)
    folder = tmp_path_factory.mktemp("exported")
    files = {
        precision: export_checkpoint(
            checkpoint,
            folder / f"{precision}.onnx",
            precision=precision,
            data_list=tone_corpus.dev_list,
        )
        for precision in PRECISIONS
    }
    path.unlink()
    return files


def detections(model, samples):
    spotter = KeywordSpotter(model)
    return spotter.accept(samples) + spotter.flush()


def test_an_exported_file_detects_like_its_checkpoint(checkpoint, exported, tone_corpus):
    samples = np.concatenate(
        [read_audio(u.wav, 16000) for u in read_data_list(tone_corpus.dev_list)]
    )
    expected = detections(load_model(checkpoint).with_thresholds(0.001), samples)
    assert expected
    found = detections(load_model(exported["fp32"].path), samples)
    assert [d.confidence for d in found] == pytest.approx(
        [d.confidence for d in expected], abs=1e-4
    )
    places = [[(d.keyword, d.start_s, d.end_s, d.decided_s) for d in x] for x in (expected, found)]
    assert places[0] == places[1]
    assert detections(load_model(exported["int8"].path), samples)


def test_sizes_and_differences(exported):
    fp32, fp16, int8 = (exported[name] for name in ("fp32", "fp16", "int8"))
    assert fp32.difference.max_log_prob < 1e-4 and fp32.difference.is_real_audio
    assert 0 < fp16.difference.mean_prob < int8.difference.mean_prob < 0.03
    assert fp16.size_bytes < fp32.size_bytes
    # 2 blocks keep 3 + 1 frames of 12 channels, and the validity of 2 frames.
    assert fp32.state_bytes == 4 * (2 * 4 * 12 + 2)


def test_the_file_says_what_it_is(checkpoint, exported):
    texts = {p.key: p.value for p in onnx.load(exported["int8"].path).metadata_props}
    assert (texts["format"], texts["precision"], texts["look_ahead_frames"]) == ("1", "int8", "2")
    assert json.loads(texts["tokens"]) == ["<blk>", "<filler>", *"嗨小问"]
    (keyword,) = json.loads(texts["keywords"])
    assert keyword["tokens"] == list("嗨小问") and keyword["threshold"] == 0.001
    assert json.loads(texts["front_end"])["frame_skip"] == 3
    assert json.loads(texts["fingerprints"])["checkpoint"] == str(checkpoint)


def test_model_info_says_what_an_exported_file_costs(exported, capsys):
    path = exported["int8"].path
    assert model_info.main(["--exported", str(path)]) == 0
    printed = capsys.readouterr().out
    assert (
        f"{path.stat().st_size:,} bytes" in printed and "state per stream          392" in printed
    )
    assert "threshold of 嗨小问          0.001" in printed
    assert model_info.main(["--exported", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "int8"


def test_it_runs_without_torch_yaml_and_onnx(exported, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    code = (
        "import sys, soundfile, numpy as np\n"
        "from wekws.stream.load import load_model\n"
        "from wekws.stream.spotter import KeywordSpotter\n"
        "spotter = KeywordSpotter(load_model(sys.argv[1]))\n"
        "samples, _ = soundfile.read(sys.argv[2], dtype='float32')\n"
        "spotter.accept(samples), spotter.flush()\n"
        "print(sorted({'torch', 'yaml', 'onnx', 'tqdm', 'matplotlib'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(exported["int8"].path), str(tmp_path / "a.wav")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n", result.stderr


def test_scores_of_an_exported_file_are_those_of_the_checkpoint(
    checkpoint, exported, tone_corpus, tmp_path
):
    best = {}
    for name, path in (("pt", checkpoint), ("fp32", exported["fp32"].path)):
        out = tmp_path / name
        scored = score_list(path, tone_corpus.dev_list, out, cache_dir=tmp_path / "cache")
        assert scored.num_utterances == 8
        best[name] = read_scores(out / "score.txt").best("嗨小问")
    np.testing.assert_allclose(best["fp32"], best["pt"], atol=1e-4)
    infos = [json.loads((tmp_path / name / "score.json").read_text()) for name in best]
    assert infos[0]["keyword_durations_s"] == infos[1]["keyword_durations_s"]
    assert infos[0]["vocabulary"] == infos[1]["vocabulary"]
    # The head of 16 x 24 + 16 and 5 x 16 + 5 becomes 5 x 24 + 5.
    assert infos[0]["params"] - infos[1]["params"] == 485 - 125


def test_an_exported_file_has_the_temperature_of_its_checkpoint(checkpoint, tone_corpus, tmp_path):
    shutil.copytree(checkpoint.parent, tmp_path / "soft")
    soft = tmp_path / "soft" / checkpoint.name
    config = read_yaml(soft.with_name("config.yaml"))
    config["model"]["score_temperature"] = 2.0
    write_yaml(soft.with_name("config.yaml"), config)
    exported = export_checkpoint(soft, tmp_path / "soft.onnx", data_list=tone_corpus.dev_list)
    best = {}
    for name, path in (("hard", checkpoint), ("soft", soft), ("exported", exported.path)):
        score_list(path, tone_corpus.dev_list, tmp_path / name, cache_dir=tmp_path / "cache")
        best[name] = read_scores(tmp_path / name / "score.txt").best("嗨小问")
    np.testing.assert_allclose(best["exported"], best["soft"], atol=1e-4)
    assert np.abs(best["soft"] - best["hard"]).max() > 0.01
    samples = read_audio(read_data_list(tone_corpus.dev_list)[0].wav, 16000)
    found = [
        detections(load_model(x).with_thresholds(0.001), samples) for x in (soft, exported.path)
    ]
    assert found[0] and len(found[0]) == len(found[1])


def test_a_student_in_int8_is_below_200_kb(checkpoint, tone_corpus, tmp_path):
    config = read_model_config(ROOT / "conf/fsmn_ctc_student_mini.yaml").with_output_dim(20)
    torch.manual_seed(1)
    cmvn = (torch.full((400,), 8.0), torch.full((400,), 0.3))
    save_weights(KwsModel(config, cmvn).state_dict(), tmp_path / "avg.pt")
    tokens = ["<blk>", "<filler>", *"嗨小问", *(f"t{i}" for i in range(15))]
    lines = [f"{token} {i}\n" for i, token in enumerate(tokens)]
    (tmp_path / "dict.txt").write_text("".join(lines), encoding="utf-8")
    small = export_checkpoint(
        tmp_path / "avg.pt",
        precision="int8",
        data_list=tone_corpus.dev_list,
        config=ROOT / "conf/fsmn_ctc_student_mini.yaml",
        keywords_file=tone_corpus.keywords_path,
    )
    assert small.path == tmp_path / "avg.int8.onnx"
    assert small.size_bytes == small.path.stat().st_size < 200_000


def test_a_failed_comparison_leaves_no_file(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "MAX_LOG_PROB_DIFFERENCE", 1e-12)
    with pytest.raises(DataError, match="not written: the outputs of the fp32 export differ"):
        export_checkpoint(checkpoint, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_comparison_name_the_file_that_was_asked_for(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_network, "_MAX_STATE", 1)
    path = tmp_path / "a.onnx"
    with pytest.raises(DataError, match=f"^{path}: not written: state of 98 numbers") as error:
        export_checkpoint(checkpoint, path)
    assert ".tmp" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_on_a_moment_of_audio_is_none(checkpoint, tmp_path):
    """25 ms are one frame."""
    soundfile.write(tmp_path / "short.wav", np.zeros(400), 16000)
    utterance = {"key": "a", "wav": str(tmp_path / "short.wav"), "txt": "嗨小问", "duration": 0.025}
    data_list = tmp_path / "data.list"
    data_list.write_text(json.dumps(utterance) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="a.onnx: not written: 1 frames of .* at least 50"):
        export_checkpoint(checkpoint, tmp_path / "a.onnx", data_list=data_list)
    assert not (tmp_path / "a.onnx").exists()


def test_int8_without_recordings_fails_before_the_first_file(checkpoint):
    flags = ["--checkpoint", str(checkpoint), "--precision", "fp32", "int8"]
    with pytest.raises(ConfigError, match="give --data_list"):
        export_onnx.main(flags)
    assert not checkpoint.with_suffix(".onnx").exists()


def test_thresholds_of_a_checkpoint_and_of_the_file_beside_it_are_two(checkpoint):
    of_checkpoint = write_threshold_file(checkpoint, THRESHOLDS)
    path = export_checkpoint(checkpoint).path
    assert path.parent == checkpoint.parent
    assert load_model(path).keywords[0].threshold == 0.001
    changed = {"keywords": [{"keyword": "嗨小问", "threshold": 0.7}]}
    of_file = write_threshold_file(path, changed)
    assert [load_model(x).keywords[0].threshold for x in (checkpoint, path)] == [0.001, 0.7]
    for written in (of_checkpoint, of_file, path):
        written.unlink()


def test_the_command_exports_for_wekws_in_several_precisions(checkpoint, tone_corpus, capsys):
    flags = ["--checkpoint", str(checkpoint), "--layout", "wekws", "--precision", "fp32", "int8"]
    assert export_onnx.main([*flags, "--data_list", str(tone_corpus.dev_list)]) == 0
    printed = capsys.readouterr().out
    path = checkpoint.with_suffix(".wekws.onnx")
    texts = {p.key: p.value for p in onnx.load(path).metadata_props}
    # 2 blocks x 4 frames of 12 channels, then 4 x 80 numbers and a count.
    assert (texts["cache_dim"], texts["cache_len"]) == ("12", str(8 + 27))
    assert "avg_2.wekws.int8.onnx" in printed and "frames of recordings" in printed
    assert "choose them with wekws.bin.tune_threshold" in printed
    with pytest.raises(DataError, match="has no description of a detector"):
        load_model(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, "give --data_list"),
        ({"out": "a.bin"}, "ends in .onnx"),
        ({"num_utterances": 0}, "at least 1"),
        ({"refractory_s": 1000}, "refractory_s: found 1000; expected 0 to 60 seconds"),
        ({"refractory_s": float("nan")}, "refractory_s: found nan"),
    ],
)
def test_what_cannot_be_exported_is_said(checkpoint, arguments, message):
    with pytest.raises(ConfigError, match=message):
        export_checkpoint(checkpoint, **arguments)


def test_an_exported_file_is_not_exported_again(exported):
    with pytest.raises(ConfigError, match="exported already"):
        export_checkpoint(exported["fp32"].path)
    flags = ["--checkpoint", "a.pt", "--out", "a.onnx", "--precision", "fp32", "fp16"]
    with pytest.raises(ConfigError, match="names one file"):
        export_onnx.main(flags)


def test_very_small_probabilities_are_compared_relative_to_their_logarithm(
    checkpoint, exported, monkeypatch
):
    """A trained network has log-probabilities of -60, of which float32 has 5 digits; what
    a softmax rounds to 0 is left out."""

    class Shifted:
        def log_probs(self, path, samples):
            return 0, np.array([[-60.0, -60.0006, -1000.0]])

    monkeypatch.setattr(
        exporter, "torch_log_probs", lambda *given: np.array([[-60.0, -60.0, -90.0]])
    )
    arguments = (checkpoint, Shifted(), None, None, [np.zeros(1)])
    difference = exporter.compare(*arguments, is_real_audio=False)
    assert difference.max_log_prob == pytest.approx(1e-4)
