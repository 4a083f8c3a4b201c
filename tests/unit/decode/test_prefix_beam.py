"""The prefix beam search against sums over all paths, and the faults it must not have."""

import itertools

import pytest
import torch

from wekws.decode.prefix_beam import PrefixBeamDecoder, _in_order


def peaky(tokens, num_tokens=5, prob=0.9):
    probs = torch.full((1, len(tokens), num_tokens), (1 - prob) / (num_tokens - 1))
    for t, token in enumerate(tokens):
        probs[0, t, token] = prob
    return probs.log()


def events_of(log_probs, keywords, refractory_frames=3, **options):
    lengths = torch.full((len(log_probs),), log_probs.shape[1])
    return PrefixBeamDecoder(keywords, **options).events(log_probs, lengths, refractory_frames)


@pytest.mark.parametrize("seed", range(4))
def test_wide_beam_sums_all_paths(seed):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(4, 3, generator=generator).softmax(-1)
    decoder = PrefixBeamDecoder([[1], [2]], beam_size=1000, num_best=3, min_prob=0.0)
    values, labels = probs.topk(3)
    found = {
        tuple(peak.token for peak in _in_order(hypothesis.peaks)): hypothesis.total
        for hypothesis in decoder._search(values.tolist(), labels.tolist())
    }
    expected = {}
    for path in itertools.product(range(3), repeat=4):
        prefix = tuple(v for v, _ in itertools.groupby(path) if v)
        share = float(torch.stack([probs[t, v] for t, v in enumerate(path)]).prod())
        expected[prefix] = expected.get(prefix, 0.0) + share
    assert found == pytest.approx(expected, rel=1e-5)


def test_keyword_at_the_end_of_a_longer_hypothesis():
    ((ends, starts),) = events_of(peaky([3, 0, 1, 2]), [[1, 2], [3, 1]])
    assert [(e.start, e.end) for e in ends] == [(2, 3)]
    assert [(e.start, e.end) for e in starts] == [(0, 2)]


@pytest.mark.parametrize("keyword", [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]])
def test_confidence_does_not_depend_on_length(keyword):
    ((found,),) = events_of(peaky(keyword, prob=0.8), [keyword])
    assert found[0].score == pytest.approx(0.8)


def test_peak_is_the_best_frame_of_a_run():
    probs = torch.tensor([[[0.3, 0.7, 0.0], [0.1, 0.9, 0.0], [0.4, 0.6, 0.0], [0.2, 0.0, 0.8]]])
    ((found,),) = events_of(probs.log(), [[1, 2]])
    assert (found[0].start, found[0].end) == (1, 3)
    assert found[0].score == pytest.approx((0.9 * 0.8) ** 0.5)


def test_nothing_found_where_no_hypothesis_holds_it():
    ((found, other),) = events_of(peaky([0, 1, 0, 0]), [[1, 2], [1]])
    assert found == [] and len(other) == 1
    assert events_of(peaky([0, 0])[:, :0], [[1]]) == [[[]]]


def test_repeated_token_needs_a_blank():
    ((found,),) = events_of(peaky([1, 1]), [[1, 1]])
    assert found == []
    ((found,),) = events_of(peaky([1, 0, 1]), [[1, 1]])
    assert (found[0].start, found[0].end) == (0, 2)


def test_a_long_recording_fires_more_than_once_and_does_not_underflow():
    log_probs = peaky(([1, 2] + [0] * 98) * 40, prob=0.6)
    ((found,),) = events_of(log_probs, [[1, 2]], refractory_frames=33)
    assert [e.end for e in found] == list(range(1, 4000, 100))


def test_refractory_time_silences_neighbours():
    assert len(events_of(peaky([1, 2, 0, 1, 2]), [[1, 2]], refractory_frames=3)[0][0]) == 2
    assert len(events_of(peaky([1, 2, 0, 1, 2]), [[1, 2]], refractory_frames=4)[0][0]) == 1


def test_padding_changes_nothing():
    log_probs = peaky([1, 2, 0, 1, 2])
    decoder = PrefixBeamDecoder([[1, 2]])
    (found,) = decoder.events(log_probs, torch.tensor([3]), 1)
    assert [e.end for e in found[0]] == [1]
