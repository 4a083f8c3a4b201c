"""The teacher's check, held against scoring."""

import logging

import pytest
import torch

from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.label_set import LabelSet
from wekws.dataset.opening import open_dataset
from wekws.dataset.vocabulary import Tokenizer, Vocabulary
from wekws.decode.keyword import KeywordScorer
from wekws.score.system import load_system
from wekws.train.distributed import Process
from wekws.train.teacher_check import (
    KeywordConfidences,
    label_figures,
    log_teacher,
    teacher_warnings,
)

ALONE = Process(0, 1, torch.device("cpu"))


class FourUtterances:
    """A set of four: A in the first two, B in the second and third, none in the last."""

    config = DatasetConfig()
    keys = ("a", "ab", "b", "none")
    # C is nothing but filler.
    label_set = LabelSet(
        vocabulary=Vocabulary(("<blk>", "<filler>", "A", "B")),
        tokenizer=Tokenizer(),
        keywords=("A", "B", "C"),
    )
    labels = ([2], [2, 3], [3], [1, 3])
    num_frames = torch.tensor([3, 4, 6, 9]).numpy()
    holds_keyword = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool().numpy()
    is_keyword = holds_keyword.any(axis=1)

    def __len__(self):
        return 4


def test_confidences_are_those_of_the_keyword_search_whatever_the_order():
    torch.manual_seed(3)
    logits, lengths = 3 * torch.randn(4, 5, 4), torch.tensor([5, 4, 5, 3])
    expected, _ = KeywordScorer([[2], [3]])(logits.log_softmax(-1), lengths)
    expected = expected.amax(dim=2)
    confidences = KeywordConfidences(FourUtterances())
    for rows in ([3, 0], [1, 2]):
        confidences.add([FourUtterances.keys[i] for i in rows], logits[rows], lengths[rows])
    figures = confidences.figures(ALONE)
    assert list(figures) == ["A", "B"]
    a, negative = expected[:2, 0], expected[3, 0]
    assert figures["A"]["positives"] == 2 and figures["A"]["negatives"] == 1
    assert figures["A"]["mean"] == pytest.approx(float(a.mean()))
    assert figures["A"]["negative_median"] == pytest.approx(float(negative))
    assert figures["A"]["separation"] == float((a > negative).float().mean())
    assert figures["B"]["mean"] == pytest.approx(float(expected[1:3, 1].mean()))


def peaks(*probs):
    """Logits of one frame each, with the probability of token 2 (keyword A)."""
    return torch.tensor([[[1 - p - 2e-4, 1e-4, p, 1e-4]] for p in probs]).log()


@pytest.mark.parametrize(("hours", "expected"), [(1.9, 0.5), (2.1, 0.0)])
def test_miss_rate_at_half_a_false_alarm_per_hour(hours, expected):
    # A in the first two, confidence 0.9 and 0.3; 0.4 in the only one without keywords. Below 2 h
    # no false alarm is allowed, and 0.3 is missed; above, one is.
    dataset = FourUtterances()
    dataset.num_frames = torch.tensor([3, 4, 6, round(hours * 360_000)]).numpy()
    confidences = KeywordConfidences(dataset)
    logits = peaks(0.9, 0.3, 0.1, 0.4)
    confidences.add(FourUtterances.keys, logits, torch.ones(4, dtype=torch.long))
    rates = confidences.miss_rates(ALONE)
    assert rates["cv_miss_rate_A"] == expected
    assert rates["cv_miss_rate"] == (rates["cv_miss_rate_A"] + rates["cv_miss_rate_B"]) / 2
    assert rates == confidences.miss_rates(ALONE)


def test_labels_are_described_by_the_frame_and_the_utterance():
    # Three input frames make one of output, the last ones rounded up: 1 + 2 + 2 + 3.
    assert label_figures(FourUtterances(), 3) == {
        "label_share": 6 / 8, "filler_share": 1 / 8, "same_label_share": 1 / 4,
    }  # fmt: skip


GOOD = {"cv_loss": 2.0, "cv_accuracy": 0.8, "cv_keyword_accuracy": 0.9}
APART = {"positives": 9, "negatives": 9, "mean": 0.7, "median": 0.8, "negative_mean": 0.01,
         "negative_median": 0.001, "separation": 0.99}  # fmt: skip


def test_a_teacher_is_doubted_by_its_tokens_and_by_its_confidences(caplog):
    assert teacher_warnings({**GOOD, "confidences": {"A": APART}}) == []
    assert (
        "hardly better than an empty output"
        in teacher_warnings({**GOOD, "cv_keyword_accuracy": 0.09})[0]
    )
    coin = {**APART, "separation": 0.55}
    with caplog.at_level(logging.INFO):
        log_teacher({**GOOD, "confidences": {"A": APART, "B": coin}})
    block, warning = caplog.records
    assert "cv loss 2.00, token accuracy 80.0%, of keyword utterances 90.0%" in block.message
    assert "confidence of 9 positives 0.8 (median), 0.7 (mean)" in block.message
    assert warning.levelno == logging.WARNING and "B is more confident" in warning.message
    assert "in 55.0% of dev pairs; chance is 50 %" in warning.message


def test_a_set_without_negatives_has_no_separation_to_doubt():
    alone = {k: v for k, v in APART.items() if k in ("positives", "mean", "median")}
    log_teacher({**GOOD, "confidences": {"A": {**alone, "negatives": 0}}})
    assert teacher_warnings({**GOOD, "confidences": {"A": alone}}) == []


def test_the_set_knows_which_utterance_holds_which_keyword(tone_corpus, teacher, tmp_path):
    system = load_system(teacher / "final.pt")
    labels = system.label_set
    dev = open_dataset(
        tone_corpus.dev_list,
        system.dataset_config,
        labels,
        cache_dir=tmp_path,
        is_training=False,
    )
    wanted = [tuple(labels.encode(keyword)) for keyword in labels.keywords]
    assert dev.label_set.keyword_ids == tuple(wanted)
    for labels, held in zip(dev.labels, dev.holds_keyword, strict=True):
        text = ",".join(map(str, labels))
        assert held.tolist() == [",".join(map(str, ids)) in text for ids in wanted]
