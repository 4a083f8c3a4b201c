"""The keyword term: its score against the scorer and all paths, the loss, and the mining."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from small_models import objective_of, tiny_labels, tiny_model

from wekws.decode.keyword import KeywordScorer
from wekws.distill import soft_score
from wekws.distill.ctc import ctc_loss
from wekws.distill.keyword_loss import (
    FIRST_THRESHOLD,
    HardNegatives,
    KeywordConfig,
    KeywordDetector,
    choose_hardest,
    undetected,
)
from wekws.distill.method import LossInputs, LossTargets
from wekws.distill.methods import DistillConfig, MethodSections, build_objective
from wekws.distill.soft_score import SoftKeywordScore
from wekws.distill.taps import ModelOutputs, StepOutputs
from wekws.errors import ConfigError
from wekws.runlog.health import RunLog

KEYWORDS = [[1, 2, 3, 4], [5], [6, 6, 2], [2, 2], [1, 1, 1]]


def posteriors(batch_size, num_frames, num_tokens, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch_size, num_frames, num_tokens, generator=generator, dtype=dtype)
    return (2 * logits).log_softmax(-1)


@pytest.mark.parametrize("seed", range(3))
def test_without_softness_the_score_is_the_scorers(seed):
    # One frame, fewer frames than a keyword has tokens, and padding that is not even a number.
    lengths = torch.tensor([30, 1, 2, 5, 17])
    log_probs = posteriors(5, 30, 8, seed)
    log_probs[2, 2:] = torch.nan
    confidence = KeywordScorer(KEYWORDS)(log_probs, lengths)[0].amax(dim=2)
    score = SoftKeywordScore(KEYWORDS, softness=0.0)(log_probs, lengths)
    torch.testing.assert_close(score.exp(), confidence, rtol=1e-5, atol=1e-9)
    assert torch.equal(score == -torch.inf, confidence == 0)
    nearly = SoftKeywordScore(KEYWORDS, softness=1e-4)(log_probs, lengths)
    torch.testing.assert_close(nearly.exp(), confidence, rtol=1e-3, atol=1e-9)
    soft = SoftKeywordScore(KEYWORDS, softness=0.1)(log_probs, lengths)
    assert ((soft >= score - 1e-5) | (score == -torch.inf)).all()


def test_keyword_at_the_very_end_counts_in_full():
    probs = torch.full((1, 10, 4), 0.01)
    for t, token in enumerate([0, 0, 0, 0, 0, 0, 0, 1, 2, 3]):
        probs[0, t, token] = 0.97
    score = SoftKeywordScore([[1, 2, 3], [2, 3]], 0.0)(probs.log(), torch.tensor([10]))
    torch.testing.assert_close(score.exp(), torch.full((1, 2), 0.97))


def all_paths(log_probs, keyword):
    """Scores of every path of a keyword, with every choice of one peak per token."""
    num_frames, num_tokens = log_probs.shape
    best, scores = log_probs.amax(dim=1), []
    for start, end in itertools.combinations_with_replacement(range(num_frames), 2):
        for path in itertools.product(range(num_tokens), repeat=end + 1 - start):
            groups = itertools.groupby(enumerate(path, start), key=lambda item: item[1])
            runs = [list(group) for _, group in groups]
            if path[0] == 0 or path[-1] == 0 or [r[0][1] for r in runs if r[0][1]] != keyword:
                continue
            score = sum(log_probs[t, v] - best[t] for t, v in enumerate(path, start))
            for peaks in itertools.product(*(run for run in runs if run[0][1])):
                scores.append(score + sum(best[t] for t, _ in peaks))
    return torch.stack(scores)


@pytest.mark.parametrize("keyword", [[1], [1, 2], [1, 1], [2, 1, 2]])
def test_the_soft_score_is_over_all_paths_and_peaks(keyword):
    log_probs = posteriors(1, 5, 3)
    expected = 0.3 * (all_paths(log_probs[0], keyword) / 0.3).logsumexp(0) / len(keyword)
    score = SoftKeywordScore([keyword], softness=0.3)(log_probs, torch.tensor([5]))
    torch.testing.assert_close(score[0, 0], expected)


@pytest.mark.parametrize("softness", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("num_frames", [1, 3, 40, 700])
def test_a_gpus_way_to_the_scores_agrees(monkeypatch, softness, num_frames):
    # On a GPU the paths are scored token by token, elsewhere frame by frame.
    lengths = torch.tensor([num_frames, 1, max(1, num_frames // 2), num_frames])
    score = SoftKeywordScore([*KEYWORDS, [3, 1, 4, 5, 2, 6, 7]], softness)
    found = []
    for way in (soft_score.end_scores_by_frame, soft_score.end_scores_by_token):
        monkeypatch.setattr(soft_score, "end_scores_by_frame", way)
        log_probs = posteriors(4, num_frames, 9, dtype=torch.float64).requires_grad_()
        scores = score(log_probs, lengths)
        weights = torch.linspace(-1, 1, scores.shape[1])
        (scores.masked_fill(~scores.isfinite(), 0) * weights).sum().backward()
        found.append((scores.detach(), log_probs.grad))
    torch.testing.assert_close(found[1], found[0])


def test_a_hand_worked_soft_score():
    # Two frames with p(1) = 0.8 and 0.5, both the best label. Paths: frame 0; frame 1; both, with
    # the peak in either. At softness 1 their sum is 0.8 + 0.5 + 0.8 + 0.5.
    probs = torch.tensor([[[0.2, 0.8], [0.5, 0.5]]])
    score = SoftKeywordScore([[1]], softness=1.0)(probs.log(), torch.tensor([2]))
    assert score.exp().item() == pytest.approx(2.6)


@pytest.mark.parametrize("softness", [0.0, 0.1, 1.0])
def test_the_gradient_is_that_of_the_score(softness):
    logits = torch.randn(3, 6, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    scorer = SoftKeywordScore(KEYWORDS, softness)

    def reached_scores(logits):
        scores = scorer((2 * logits).log_softmax(-1), torch.tensor([6, 3, 1]))
        return scores[scores.isfinite()]

    assert torch.autograd.gradcheck(reached_scores, logits.requires_grad_())


def test_scores_without_a_path_have_a_gradient_of_zero():
    logits = torch.randn(1, 2, 8, requires_grad=True)
    score = SoftKeywordScore(KEYWORDS[:1], 0.1)(logits.log_softmax(-1), torch.tensor([2]))
    assert score.item() == -torch.inf
    torch.where(score.isfinite(), score, 0.0).sum().backward()
    assert logits.grad.eq(0).all()


def detector_of(**settings):
    return KeywordDetector(KeywordConfig(weight=1.0, **{"softness": 0.0, **settings}), [[1], [2]])


def inputs_of(probs, holds_keyword, indices=None):
    """Loss inputs from posteriors (B, T, V)."""
    logits = torch.tensor(probs).log().requires_grad_()
    num = len(logits)
    targets = LossTargets(
        torch.full((num,), logits.shape[1]),
        torch.ones(num, 1, dtype=torch.long),
        torch.ones(num, dtype=torch.long),
        torch.tensor(holds_keyword),
        torch.arange(num) if indices is None else torch.tensor(indices),
    )
    return LossInputs(StepOutputs(ModelOutputs(logits)), targets, 1.0)


# Frames (blank, keyword 0, keyword 1). Log confidences: ln 0.8 and ln(0.1 * 0.1 / 0.8) = -4.382
# in the first; ln(0.2 * 0.2 / 0.6) and ln 0.2 in the second, where keyword 1 has 0.2 of 0.6.
TWO = [[[0.1, 0.8, 0.1]], [[0.6, 0.2, 0.2]]]


def test_loss_and_figures_by_hand():
    detector = detector_of(slope=2.0, false_alarm_weight=3.0)
    inputs = inputs_of(TWO, [[True, False], [False, True]])
    values = detector.values(inputs, ("keyword",))
    # One frame each, where the path is the peak alone: its log probability.
    scores = {"held": (math.log(0.8), math.log(0.2)), "other": (math.log(0.1), math.log(0.2))}
    misses = sum(math.log1p(math.exp(-2 * (s + 0.7))) for s in scores["held"])
    alarms = sum(math.log1p(math.exp(2 * (s + 0.7))) for s in scores["other"])
    assert values["keyword"].item() == pytest.approx(misses + 3 * alarms, rel=1e-5)
    figures = detector.figures({k: v.item() for k, v in values.items() if k != "keyword"})
    assert figures == pytest.approx(
        {
            "keyword_positive": (0.8 + 0.2) / 2,
            "keyword_negative": (0.1 + 0.2) / 2,
            "keyword_misses": 0.5,  # exp(-0.7) is 0.497, above 0.2
            "keyword_alarms": 0.0,
        }
    )
    values["keyword"].backward()
    gradient = inputs.student.logits.grad
    assert gradient[0, 0, 1] < 0 < gradient[0, 0, 2]  # raises the keyword held, lowers the other
    assert gradient[1, 0, 2] < 0 < gradient[1, 0, 1]
    # Keyword 1 is missed: its threshold goes down. (Descent goes against the gradient.)
    assert detector.shift.grad[1] > 0


def test_figures_without_positives_have_no_misses():
    detector = detector_of()
    values = detector.values(inputs_of(TWO, [[False, False]] * 2), ("keyword",))
    figures = detector.figures({k: v.item() for k, v in values.items() if k != "keyword"})
    assert figures.keys() == {"keyword_negative", "keyword_alarms"}


def test_parts_of_a_batch_add_up():
    detector = detector_of(softness=0.1)
    probs, held = posteriors(6, 4, 3).exp().tolist(), [[i % 2 == 0, i == 3] for i in range(6)]
    whole = detector.values(inputs_of(probs, held), ("keyword",))
    parts = [
        detector.values(inputs_of(probs[rows], held[rows]), ("keyword",))
        for rows in (slice(0, 2), slice(2, 6))
    ]
    for name, value in whole.items():
        assert value.item() == pytest.approx(sum(part[name].item() for part in parts), rel=1e-5)


def train_table(keyword_weight):
    """Train posteriors of three sounds by CTC and the keyword term; return log confidences.

    Sounds a and b are tokens 2 and 3, as in AB. The third one is most often the B of AB, but once
    it ends an utterance of other words: a near miss.
    """
    utterances = torch.tensor([[0, 1]] * 4 + [[0, 2]] * 3 + [[0, 2]])
    labels = torch.tensor([[2, 3]] * 7 + [[2, 1]])
    lengths = torch.full((8,), 2)
    held = torch.tensor([[True]] * 7 + [[False]])
    targets = LossTargets(lengths, labels, lengths, held, torch.arange(8))
    config = KeywordConfig(weight=1.0, false_alarm_weight=30.0)
    detector = KeywordDetector(config, [[2, 3]])
    table = torch.zeros(3, 5, requires_grad=True)
    optimizer = torch.optim.Adam([table, *detector.parameters()], lr=0.1)
    for _ in range(300):
        logits = table[utterances]
        loss = ctc_loss(logits, lengths, labels, lengths)
        if keyword_weight:
            inputs = LossInputs(StepOutputs(ModelOutputs(logits)), targets, 1.0)
            values = detector.values(inputs, ("keyword",))
            loss = loss + keyword_weight * values["keyword"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = detector.score(table.detach()[utterances].log_softmax(-1), lengths)[:, 0]
    return scores[0].exp().item(), scores[-1].exp().item()


def test_the_term_keeps_a_near_miss_down_that_ctc_lets_pass():
    # CTC gives the third sound p(B) = 3/4, and the near miss the confidence sqrt(3/4).
    clear, near_miss = train_table(0.0)
    assert clear > 0.95 and near_miss == pytest.approx(math.sqrt(0.75), abs=0.02)
    clear, near_miss = train_table(1.0)
    assert clear > 0.95 and near_miss < 0.6


def test_what_was_seen_is_the_highest_margin_of_a_keyword_that_is_not_held():
    detector = detector_of(mined_share=0.5)
    first = FIRST_THRESHOLD
    detector.values(inputs_of(TWO, [[True, False], [False, False]], [7, -1]), ("keyword",))
    detector.eval()
    detector.values(inputs_of(TWO, [[False, False]] * 2), ("keyword",))
    indices, margins = detector.take_seen()
    assert indices.tolist() == [7, -1]
    assert margins.tolist() == pytest.approx([math.log(0.1) - first, math.log(0.2) - first])
    assert [len(values) for values in detector.take_seen()] == [0, 0]


def test_hardest_are_the_first_of_the_highest_and_never_unknown():
    margins = torch.tensor([0.5, -torch.inf, 2.0, 0.5, -3.0, 0.5])
    assert choose_hardest(margins, 0.5).tolist() == [0, 2, 3]
    assert choose_hardest(margins, 1.0).tolist() == [0, 2, 3, 4, 5]
    assert choose_hardest(margins, 0.0).tolist() == []


def test_the_hook_repeats_the_hardest_negatives_of_the_epoch_before():
    detector = detector_of(mined_share=0.5)
    repeated = []
    run = SimpleNamespace(
        objective=SimpleNamespace(methods={"keyword": detector}),
        num_utterances=4,
        max_over_peers=lambda values: values,
        repeat_utterances=lambda indices: repeated.append(indices.tolist()),
    )
    hook = HardNegatives(0.5)
    hook.before_epoch(run, 0)
    # Utterance 3 twice, the second time above all; a joined one, which counts for nobody.
    held = [[False, False]] * 2
    detector.values(inputs_of(TWO, held, [1, 3]), ("keyword",))
    detector.values(inputs_of(TWO, held, [3, -1]), ("keyword",))
    hook.after_epoch(run, 0)
    hook.before_epoch(run, 1)
    resumed = HardNegatives(0.5)
    resumed.restore(run, hook.state(run))
    resumed.before_epoch(run, 1)
    assert repeated == [[], [1, 3], [1, 3]]


def row(epoch, **figures):
    return {"kind": "cv", "epoch": epoch, "cv_loss": 1.0, **figures}


def test_a_detector_that_misses_most_is_a_problem_after_some_epochs():
    figures = {"keyword_positive": 0.1, "keyword_negative": 0.05, "keyword_alarms": 0.0}
    for epoch, misses, is_found in ((5, 0.95, True), (5, 0.8, False), (2, 0.95, False)):
        log = RunLog.from_rows([row(epoch, keyword_misses=misses, **figures)])
        assert bool(undetected(log)) == is_found
    found = undetected(RunLog.from_rows([row(5, keyword_misses=0.95, **figures)]))
    assert "misses 95% of the keywords in training: mean confidence 0.1 with" in found
    assert "no training utterance" in undetected(RunLog.from_rows([row(5, keyword_alarms=0.0)]))
    assert undetected(RunLog.from_rows([row(5)])) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "weight: found -1"),
        ({"softness": -0.1}, "softness: found -0.1; expected at least 0"),
        ({"slope": 0.0}, "expected above 0"),
        ({"false_alarm_weight": 0.0}, "expected above 0"),
        ({"mined_share": 1.5, "weight": 1.0}, "mined_share: found 1.5"),
        ({"mined_share": 0.1}, "give it a weight above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        KeywordConfig(**settings)


def test_a_run_without_usable_keywords_is_refused():
    sections = MethodSections(keyword_conf=KeywordConfig(weight=1.0))
    for labels in (None, tiny_labels()):
        with pytest.raises(ConfigError, match="the run has no keywords; give --keywords_file"):
            build_objective(sections, tiny_model(), label_set=labels)
    with pytest.raises(ConfigError, match="keyword DAB: D has no token in the dictionary"):
        build_objective(sections, tiny_model(), label_set=tiny_labels("DAB"))


def test_its_weight_is_relative_to_ctc_with_and_without_a_teacher():
    keyword = KeywordConfig(weight=0.5)
    plain = objective_of(DistillConfig(), keyword=keyword, has_teacher=False)
    assert plain.weights(0.0) == {"ctc": 1.0, "keyword": 0.5}
    assert plain.cv_terms == ("keyword",) and plain.needs_confidences
    taught = objective_of(DistillConfig(alpha=0.4), keyword=keyword).weights(0.0)
    assert taught == pytest.approx({"ctc": 0.4, "keyword": 0.2, "kd": 0.6})
    assert not objective_of(DistillConfig()).needs_confidences
