"""score_ctc and compute_det_ctc from waveforms to a summary, in an empty folder."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wekws.bin import compute_det_ctc, evaluate_epochs, plan_evaluation, score_ctc
from wekws.config import to_mapping
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.manifest import Utterance, write_data_list
from wekws.dataset.vocabulary import Vocabulary, write_keywords
from wekws.errors import ConfigError, DataError
from wekws.files import write_json
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.score.det import Budget
from wekws.score.evaluation_plan import EvaluationOptions
from wekws.score.scores import read_scores
from wekws.score.scoring import score_list
from wekws.score.summary import summarise
from wekws.score.summary_file import validate_summary
from wekws.yaml_files import write_yaml

KEYWORDS = ["嗨小问", "SMART MIRROR"]
TEXTS = ["嗨小问", "smart mirror please", "你好", "<noise>", "嗨小问", "smart mirrors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exp")
    vocabulary = Vocabulary(("<blk>", "<filler>", *"嗨小问", *"SMARTIO"))
    vocabulary.save(folder / "dict.txt")
    write_keywords(folder / "keywords.txt", KEYWORDS)
    backbone = FSMNConfig(
        type="fsmn",
        input_affine_dim=8,
        num_layers=2,
        linear_dim=8,
        proj_dim=8,
        left_order=3,
        right_order=1,
        output_affine_dim=8,
    )
    torch.manual_seed(0)
    config = ModelConfig(input_dim=400, output_dim=vocabulary.size, backbone=backbone)
    save_weights(
        KwsModel(config, (torch.zeros(400), torch.ones(400))).state_dict(), folder / "final.pt"
    )
    sections = {"dataset_conf": DatasetConfig(), "model": config}
    write_yaml(folder / "config.yaml", {k: to_mapping(v) for k, v in sections.items()})
    for name in ("dev", "test"):
        make_list(folder / name, TEXTS)
    return folder


def make_list(folder, texts):
    folder.mkdir()
    rng = np.random.default_rng(0)
    utterances = []
    for i, text in enumerate(texts):
        num_samples = 16000 * (i + 1) // 2
        path = folder / f"utt{i}.wav"
        soundfile.write(path, rng.normal(0, 0.1, num_samples).astype(np.float32), 16000)
        utterances.append(
            Utterance(key=f"utt{i}", wav=str(path), txt=text, duration=num_samples / 16000)
        )
    write_data_list(folder / "data.list", utterances)


def score(folder, name, result, *options):
    flags = ["--checkpoint", folder / "final.pt", "--test_data", folder / name / "data.list"]
    flags += ["--result_dir", folder / result, "--num_workers", 1, "--device", "cpu", *options]
    assert score_ctc.main([str(flag) for flag in flags]) == 0
    return folder / result


def evaluate(*flags):
    return compute_det_ctc.main([str(flag) for flag in flags])


@pytest.mark.parametrize("decoder", ["keyword", "prefix_beam"])
def test_from_waveforms_to_a_summary(folder, decoder, capsys):
    test_dir = score(folder, "test", f"test_{decoder}", "--decoder", decoder)
    dev_dir = score(folder, "dev", f"dev_{decoder}", "--decoder", decoder)
    info = json.loads((test_dir / "score.json").read_text(encoding="utf-8"))
    assert (info["utterances"], info["decoder"]) == (6, decoder)
    assert info["hours"] == pytest.approx(10.5 / 3600)
    table = read_scores(test_dir / "score.txt")
    assert table.keys == tuple(f"utt{i}" for i in range(6))
    if decoder == "keyword":
        assert set(table.events) == {"嗨小问", "SMART_MIRROR"}
        assert all((table.best(keyword) >= 0).all() for keyword in KEYWORDS)
    flags = ["--result_dir", test_dir, "--dev_result_dir", dev_dir]
    assert evaluate(*flags, "--test_data", folder / "test" / "data.list") == 0
    assert "| SMART MIRROR | 1 in all |" in capsys.readouterr().out
    summary = json.loads((test_dir / "summary.json").read_text(encoding="utf-8"))
    validate_summary(summary)
    assert [entry["positives"] for entry in summary["keywords"]] == [2, 1]
    assert summary["keywords"][0]["negatives"] == 3
    assert (test_dir / "stats.SMART_MIRROR.txt").exists()
    assert (test_dir / "stats.嗨小问.txt").exists()


def test_batching_does_not_change_scores(folder):
    together = score(folder, "test", "together")
    alone = score(folder, "test", "alone", "--batch_size", 1)
    expected, found = (read_scores(d / "score.txt") for d in (together, alone))
    for keyword in KEYWORDS:
        np.testing.assert_allclose(found.best(keyword), expected.best(keyword), rtol=1e-4)


def test_several_lists_are_scored_in_one_go(folder):
    alone = score(folder, "test", "alone_test")
    more = ("--test_data", folder / "test" / "data.list", "--result_dir", folder / "second")
    score(folder, "dev", "first", *more)
    for name in ("score.txt", "events.tsv"):
        assert (folder / "second" / name).read_bytes() == (alone / name).read_bytes()
        assert (folder / "first" / name).is_file()
    with pytest.raises(ConfigError, match="--result_dir: given 1 times, --test_data 2 times"):
        score(folder, "dev", "first", *more[:2])


def test_dev_scores_of_another_checkpoint_are_refused(folder):
    first = score(folder, "test", "first")
    other = score(folder, "dev", "other", "--decoder", "prefix_beam")
    with pytest.raises(ConfigError, match="decoder is prefix_beam"):
        evaluate("--result_dir", first, "--dev_result_dir", other)


def test_longest_duration_is_recorded_and_must_agree(folder):
    auto = score(folder, "test", "auto")
    info = json.loads((auto / "score.json").read_text(encoding="utf-8"))
    assert info["max_duration_s"] == "auto"
    assert info["keyword_durations_s"] == {"嗨小问": 2.2, "SMART MIRROR": 2.4}
    unlimited = score(folder, "dev", "unlimited", "--max_duration_s", "0")
    info = json.loads((unlimited / "score.json").read_text(encoding="utf-8"))
    assert (info["max_duration_s"], info["keyword_durations_s"]) == (0.0, None)
    with pytest.raises(ConfigError, match="keyword_durations_s is None, in result_dir {"):
        evaluate("--result_dir", auto, "--dev_result_dir", unlimited)
    short = score(folder, "test", "short", "--max_duration_s", "0.6")
    assert json.loads((short / "score.json").read_text(encoding="utf-8"))["max_duration_s"] == 0.6
    rows = (short / "events.tsv").read_text(encoding="utf-8").splitlines()[1:]
    times = [row.split("\t")[2:] for row in rows]
    durations = [float(end) - float(start) for confidence, start, end in times if confidence != "0"]
    assert durations and max(durations) == pytest.approx(0.6)
    for options, message in (
        (("--max_duration_s", "0.3"), "keyword SMART MIRROR: found 0.3 s; expected 0.33 s"),
        (("--max_duration_s", "31"), "to 30 s, or 0 for no limit"),
        (("--max_duration_s", "long"), "--max_duration_s: found 'long'"),
        (("--max_duration_s", "2", "--decoder", "prefix_beam"), "prefix_beam has no limit"),
    ):
        with pytest.raises(ConfigError, match=message):
            score(folder, "test", "x", *options)


def test_messages_name_what_is_missing(folder, tmp_path):
    with pytest.raises(DataError, match="score_ctc"):
        evaluate("--result_dir", tmp_path)
    with pytest.raises(ConfigError, match="config.yaml"):
        score(folder, "test", "x", "--checkpoint", tmp_path / "1.pt")
    (tmp_path / "keywords.txt").write_text("COMPUTER\n")
    with pytest.raises(ConfigError, match="keyword COMPUTER: C P U E"):
        score(folder, "test", "x", "--keywords_file", tmp_path / "keywords.txt")
    result = score(folder, "test", "only")
    with pytest.raises(ConfigError, match="COMPUTER was not scored"):
        evaluate("--result_dir", result, "--keywords_file", tmp_path / "keywords.txt")


def test_a_set_without_negatives(folder):
    make_list(folder / "positives", TEXTS[:2])
    result = score(folder, "positives", "few")
    with pytest.raises(DataError, match="no negatives"):
        evaluate("--result_dir", result)
    assert not (result / "summary.json").exists()


def test_the_library_scores_and_summarises_without_the_commands(folder, tmp_path):
    scored = score_list(
        folder / "final.pt", folder / "test/data.list", tmp_path / "test", num_workers=1,
        device="cpu",
    )  # fmt: skip
    assert scored.num_utterances == 6 and scored.hours == pytest.approx(10.5 / 3600)
    score_list(
        str(folder / "final.pt"), str(folder / "dev/data.list"), str(tmp_path / "dev"),
        num_workers=1, device="cpu",
    )  # fmt: skip
    summary = summarise(tmp_path / "test", dev_result_dir=tmp_path / "dev", budgets=[Budget(2.0)])
    assert json.loads((tmp_path / "test/summary.json").read_text(encoding="utf-8")) == summary
    points = summary["keywords"][0]["operating_points"]
    assert [point["budget"] for point in points] == ["2/h", "1 in all"]
    with pytest.raises(ConfigError, match="decoder: found 'beam'; expected one of keyword"):
        score_list(folder / "final.pt", folder / "test/data.list", tmp_path / "x", decoder="beam")
    with pytest.raises(ConfigError, match="batch_size: found 0, expected >= 1"):
        score_list(folder / "final.pt", folder / "test/data.list", tmp_path / "x", batch_size=0)


def test_another_order_of_the_tokens_is_refused(folder, tmp_path):
    """With the tokens of dict.txt in another order a model scores other words, in silence."""
    copy = tmp_path / "exp"
    shutil.copytree(folder, copy)
    vocabulary = Vocabulary.load(copy / "dict.txt")
    write_json(copy / "run.json", {"vocabulary": vocabulary.fingerprint})
    score_list(copy / "final.pt", folder / "dev" / "data.list", tmp_path / "scores")
    tokens = vocabulary.tokens
    Vocabulary((*tokens[:2], *reversed(tokens[2:]))).save(copy / "dict.txt")
    with pytest.raises(DataError, match=r"dict\.txt: fingerprint .* the model was trained with"):
        score_list(copy / "final.pt", folder / "dev" / "data.list", tmp_path / "scores")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="device cuda: this machine has no GPU"):
        score_list(
            folder / "final.pt", folder / "dev" / "data.list", tmp_path / "scores", device="cuda"
        )


def test_a_score_file_that_is_cut_off_is_refused(folder, tmp_path):
    score_list(folder / "final.pt", folder / "dev" / "data.list", tmp_path)
    lines = (tmp_path / "score.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(lines[-1].split()[0])]
    (tmp_path / "score.txt").write_text("".join(kept), encoding="utf-8")
    with pytest.raises(DataError, match="5 utterances, but 6 were scored; the file is cut off"):
        summarise(tmp_path)


SCRIPT = Path(__file__).parents[3] / "evaluate.sh"


def plan_of(*options):
    """Plan an evaluation as evaluate.sh does, with its defaults and these options."""
    block = SCRIPT.read_text("utf-8").partition(". tools/parse_options.sh")[0]
    found = re.findall(r"^([a-z]\w*)=(\S*)", block, re.MULTILINE)
    texts = [f"{name}={shlex.split(value)[0] if value else ''}" for name, value in found]
    return plan_evaluation.main(["--", *texts, *map(str, options)])


def test_the_options_of_an_evaluation_are_those_of_the_script():
    block = SCRIPT.read_text("utf-8").partition(". tools/parse_options.sh")[0]
    names = re.findall(r"^([a-z]\w*)=", block.partition("CALLER_DIR=$PWD")[2], re.MULTILINE)
    assert names == [field.name for field in dataclasses.fields(EvaluationOptions)]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("dataset=tset", r"--dataset: found 'tset'; expected test \| dev; did you mean 'test'"),
        ("decoder=keywrod", "--decoder: .* did you mean 'keyword'"),
        ("threshold_rule=uper", "--threshold_rule: .* did you mean 'upper'"),
        ("batch_size=0", "^--batch_size 0: expected at least 1$"),
        ("num_workers=-1", "^--num_workers -1: expected at least 0$"),
        ("category_hours=speach=2", "--category_hours speach: no negatives of this category"),
        ("checkpoint=", "--checkpoint: missing"),
    ],
)
def test_an_evaluation_refuses_an_option_before_it_scores(folder, option, message):
    given = (f"checkpoint={folder / 'final.pt'}", f"lists={folder}")
    assert plan_of(*given) == 0
    with pytest.raises(ConfigError, match=message):
        plan_of(*given, option)


def test_epochs_that_a_run_lacks_are_refused(tmp_path):
    for epoch in (0, 1):
        (tmp_path / f"{epoch}.pt").touch()
        write_yaml(tmp_path / f"{epoch}.yaml", {"epoch": epoch, "cv_loss": 1.0})
    message = "--epochs 0-99: no such epoch in .*; there are 0 to 1 "
    with pytest.raises(ConfigError, match=message):
        evaluate_epochs.main(["--model_dir", str(tmp_path), "--epochs", "0-99"])


def test_an_evaluation_is_of_a_checkpoint_and_of_lists_with_its_keywords(folder, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; give a checkpoint in it, such as .*final"):
        plan_of(f"checkpoint={folder}")
    (tmp_path / "README.md").touch()
    with pytest.raises(ConfigError, match="README.md: expected N.pt, final.pt, avg_N.pt or N.onnx"):
        plan_of(f"checkpoint={tmp_path / 'README.md'}")
    make_list(tmp_path / "test", TEXTS[2:4])
    with pytest.raises(ConfigError, match="--lists .*: no utterance of .*test/data.list contains"):
        plan_of(f"checkpoint={folder / 'final.pt'}", f"lists={tmp_path}")
