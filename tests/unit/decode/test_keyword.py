"""The keyword search against an enumeration of all paths, and its edges."""

import itertools

import numpy as np
import pytest
import torch

from wekws.decode import keyword as keyword_module
from wekws.decode import keyword_limit
from wekws.decode.events import find_events
from wekws.decode.keyword import KeywordScorer
from wekws.decode.path_code import MAX_LIMIT_FRAMES
from wekws.decode.stream_search import StreamSearch


def posteriors(batch_size, num_frames, num_tokens, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch_size, num_frames, num_tokens, generator=generator)
    return (logits * sharpness).log_softmax(-1)


def brute_force(log_probs, keyword, max_frames=1000):
    """Best path into each frame, by trying every start allowed and every label sequence.

    Works from the definition: collapse, then one peak per run of a token, wherever it pays most.
    """
    num_frames, num_tokens = log_probs.shape
    best_label = log_probs.max(-1).values
    confidence, starts = [], []
    for end in range(num_frames):
        scored = []
        for start in range(max(0, end + 1 - max_frames), end + 1):
            labels = range(num_tokens)
            for path in itertools.product(labels, repeat=end + 1 - start):
                runs = [
                    list(group)
                    for _, group in itertools.groupby(
                        enumerate(path, start), key=lambda item: item[1]
                    )
                ]
                tokens = [run[0][1] for run in runs if run[0][1] != 0]
                if tokens != keyword or path[0] == 0 or path[-1] == 0:
                    continue
                score = sum(log_probs[t, v] - best_label[t] for t, v in enumerate(path, start))
                score += sum(max(best_label[t] for t, _ in run) for run in runs if run[0][1])
                scored.append((float(score), -start))
        best = max(scored, default=(-torch.inf, -end))
        confidence.append(torch.tensor(best[0] / len(keyword)).exp())
        starts.append(-best[1])
    return torch.stack(confidence), torch.tensor(starts)


@pytest.mark.parametrize(
    ("num_tokens", "num_frames", "keywords"),
    [
        (2, 6, [[1], [1, 1], [1, 1, 1]]),
        (3, 5, [[1, 2], [2], [1, 1], [1, 2, 1], [2, 2, 1]]),
        (4, 4, [[1, 2, 3], [3, 3], [2], [1, 2, 3, 1], [1, 2, 3, 1, 2]]),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_all_paths(num_tokens, num_frames, keywords, seed):
    log_probs = posteriors(2, num_frames, num_tokens, seed)
    confidence, start = KeywordScorer(keywords)(log_probs)
    for b, k in itertools.product(range(2), range(len(keywords))):
        expected, expected_start = brute_force(log_probs[b], keywords[k])
        torch.testing.assert_close(confidence[b, k], expected, rtol=2e-5, atol=1e-9)
        reached = expected > 0
        assert torch.equal(start[b, k][reached], expected_start[reached])


def test_batch_of_keywords_equals_each_alone():
    log_probs = posteriors(3, 40, 7)
    keywords = [[1, 2, 3, 4], [5], [6, 6, 2], [2, 2]]
    confidence, start = KeywordScorer(keywords)(log_probs)
    for k, keyword in enumerate(keywords):
        one, one_start = KeywordScorer([keyword])(log_probs[1:2])
        assert torch.equal(one[0, 0], confidence[1, k])
        assert torch.equal(one_start[0, 0], start[1, k])


def test_stream_equals_the_whole():
    log_probs = posteriors(2, 60, 6)
    keywords = [[1, 2, 2, 3], [4], [5, 1]]
    confidence, start = KeywordScorer(keywords)(log_probs)
    found, begun = stream(StreamSearch(keywords), log_probs)
    assert torch.equal(found, confidence)
    assert torch.equal(begun, start)


def test_pieces_and_reset_of_a_stream_change_no_bit():
    log_probs = posteriors(1, 80, 6)[0].numpy()
    search = StreamSearch([[1, 2, 2, 3], [5, 1]], max_frames=[9, 20])
    whole = search(log_probs)
    for sizes in ([80], [1] * 80, [0, 33, 0, 47]):
        search.reset()
        parts = [search(part) for part in np.split(log_probs, np.cumsum(sizes)[:-1])]
        for found, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert np.array_equal(np.concatenate(found), expected)


def test_a_stream_of_days_equals_its_first_minutes():
    """The counter of frames wraps after 35 h; scores and durations do not change."""
    log_probs = posteriors(1, 120, 6)[0].numpy()
    for limits in (None, [9, 20]):
        search = StreamSearch([[1, 2, 2, 3], [5, 1]], max_frames=limits)
        confidence, start = search(log_probs)
        search.reset()
        days = (1 << 22) * 3 - 50  # a wrap within the 120 frames, and a multiple of no limit
        search._num_frames = days
        late, late_start = search(log_probs)
        assert np.array_equal(late, confidence)
        reached = confidence > 0
        assert np.array_equal(late_start[reached] - days, start[reached])


def test_padding_changes_nothing():
    log_probs = posteriors(1, 30, 5)
    scorer = KeywordScorer([[1, 2, 3], [4, 4]])
    alone, alone_start = scorer(log_probs, torch.tensor([30]))
    other = torch.cat([log_probs, torch.full((1, 11, 5), torch.nan)], 1)
    padded, padded_start = scorer(
        torch.cat([other, posteriors(1, 41, 5, 9)]), torch.tensor([30, 41])
    )
    assert torch.equal(padded[0, :, :30], alone[0])
    assert torch.equal(padded_start[0, :, :30], alone_start[0])
    assert padded[0, :, 30:].eq(0).all() and padded_start[0, :, 30:].eq(0).all()


def test_hand_worked_confidence():
    # p(1)=0.8 at frame 0; p(2)=0.5 at frame 1, where blank is no better: the mean of both logs.
    # Frame 2: the path of [1, 2] stays in 2 (0.25 against 0.5): 0.4 * 0.25/0.5, its root.
    probs = torch.tensor([[[0.1, 0.8, 0.1], [0.5, 0.0, 0.5], [0.5, 0.25, 0.25]]])
    confidence, start = KeywordScorer([[1, 2], [1]])(probs.log())
    torch.testing.assert_close(confidence[0, 0], torch.tensor([0.0, 0.4**0.5, 0.2**0.5]))
    torch.testing.assert_close(confidence[0, 1], torch.tensor([0.8, 0.0, 0.25]))
    assert start[0, 0].tolist()[1:] == [0, 0]


def test_keyword_at_the_very_end_counts_in_full():
    probs = torch.full((1, 10, 4), 0.01)
    for t, token in enumerate([0, 0, 0, 0, 0, 0, 0, 1, 2, 3]):
        probs[0, t, token] = 0.97
    confidence, start = KeywordScorer([[1, 2, 3], [2, 3]])(probs.log())
    torch.testing.assert_close(confidence[0, :, -1], torch.tensor([0.97, 0.97]))
    assert start[0, :, -1].tolist() == [7, 8]


def test_blank_between_equal_tokens_is_mandatory():
    # SMART MIRROR: R R. Two frames of R are one R; with a blank frame between, two.
    probs = torch.full((2, 3, 2), 0.1)
    probs[0, :, 1] = 0.9
    probs[1, [0, 2], 1] = 0.9
    probs[1, 1, 0] = 0.9
    best = KeywordScorer([[1, 1]])(probs.log())[0].amax(-1)[:, 0]
    # first: the blank costs 0.1/0.9; second: nothing but the peaks
    torch.testing.assert_close(best, torch.tensor([(0.81 / 9) ** 0.5, 0.9]))


def test_keyword_longer_than_the_recording_is_zero():
    log_probs = posteriors(2, 3, 5)
    scorer = KeywordScorer([[1, 2, 3, 4], [1, 1], [1, 1, 1]])
    confidence, _ = scorer(log_probs)
    assert confidence[:, [0, 2]].eq(0).all()
    assert confidence[:, 1, 2].gt(0).all()


@pytest.mark.parametrize("num_frames", [0, 1, 4])
def test_empty_recordings(num_frames):
    scorer = KeywordScorer([[1], [1, 2]])
    confidence, start = scorer(posteriors(2, num_frames, 3), torch.tensor([0, num_frames]))
    assert confidence.shape == start.shape == (2, 2, num_frames)
    assert confidence[0].eq(0).all()
    events = find_events(confidence, start, 3)
    assert [len(row) for row in events[0]] == [1, 1]
    assert events[0][0][0] == (0.0, 0, 0)


def test_impossible_tokens_do_not_disturb_a_long_recording():
    log_probs = posteriors(1, 5000, 4)
    log_probs[:, :, 2] = -torch.inf
    confidence, start = KeywordScorer([[1, 2, 2, 3], [1, 3, 3]])(log_probs)
    assert confidence[0, 0].eq(0).all()
    late, late_start = KeywordScorer([[1, 3, 3]])(log_probs[:, 4000:])
    assert torch.equal(late[0, 0, 500:], confidence[0, 1, 4500:])
    assert torch.equal(late_start[0, 0, 500:] + 4000, start[0, 1, 4500:])


def test_confidence_never_exceeds_one():
    certain = torch.zeros(1, 4, 2)
    certain[..., 0] = -torch.inf
    assert KeywordScorer([[1]])(certain + 1e-6)[0].max() == 1.0


@pytest.mark.parametrize("ids", [[], [[]], [[0, 1]], [[-1]]])
def test_refuses_what_is_no_keyword(ids):
    with pytest.raises(ValueError, match="keyword_ids"):
        KeywordScorer(ids)


def stream(search, log_probs):
    """Confidence and first frame (B, K, T), each recording as a stream, frame by frame."""
    found = []
    for frames in log_probs:
        search.reset()
        steps = [search(frame) for frame in frames.numpy()[:, None]]
        found.append([torch.from_numpy(np.concatenate(v)).T for v in zip(*steps, strict=True)])
    return tuple(torch.stack(values) for values in zip(*found, strict=True))


def windows(log_probs, ids, max_frames):
    """Confidence and first frame (B, T): a search without limit in the last frames of each end."""
    scorer, values = KeywordScorer([ids]), []
    for end in range(log_probs.shape[1]):
        begin = max(0, end + 1 - max_frames)
        confidence, start = scorer(log_probs[:, begin : end + 1])
        values.append((confidence[:, 0, -1], start[:, 0, -1] + begin))
    return tuple(torch.stack(columns, -1) for columns in zip(*values, strict=True))


def quiet_posteriors(batch_size, num_frames, num_tokens):
    """Blank nearly everywhere, so that the best paths without limit are very long."""
    logits = posteriors(batch_size, num_frames, num_tokens, sharpness=3.0)
    logits[..., 0] += 14.0
    return logits.log_softmax(-1)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("num_tokens", "num_frames", "keywords"),
    [(2, 6, [[1], [1, 1], [1, 1, 1]]), (3, 5, [[1, 2], [2], [1, 1], [1, 2, 1], [2, 2, 1]])],
)
@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_limit_agrees_with_all_paths_within_it(num_tokens, num_frames, keywords, limit, bias):
    log_probs = posteriors(2, num_frames, num_tokens)
    log_probs[..., 0] += bias
    log_probs = log_probs.log_softmax(-1)
    limits = [max(1, limit - k % 2) for k in range(len(keywords))]
    scorer = KeywordScorer(keywords, max_frames=limits)
    confidence, start = scorer(log_probs)
    for found, expected in zip(
        stream(StreamSearch(keywords, max_frames=limits), log_probs),
        (confidence, start),
        strict=True,
    ):
        assert torch.equal(found, expected)
    for b, k in itertools.product(range(2), range(len(keywords))):
        expected, expected_start = brute_force(log_probs[b], keywords[k], limits[k])
        torch.testing.assert_close(confidence[b, k], expected, rtol=2e-5, atol=1e-9)
        assert torch.equal(confidence[b, k] > 0, expected > 0)
        reached = expected > 0
        assert torch.equal(start[b, k][reached], expected_start[reached])


@pytest.mark.parametrize("limit", [1, 3, 7, 20])
@pytest.mark.parametrize("searches_at_a_time", [3, 1024])
def test_limit_agrees_with_a_search_of_each_window(limit, searches_at_a_time, monkeypatch):
    # The fourth recording is constant: every start scores the same, so every path grows too old.
    # In the third a token is impossible. Pieces and groups are made small: many of them meet.
    monkeypatch.setattr(keyword_limit, "SEARCHES_AT_A_TIME", searches_at_a_time)
    monkeypatch.setattr(keyword_module, "PIECES_AT_A_TIME", 1000)
    log_probs = torch.cat(
        [
            quiet_posteriors(2, 130, 6),
            posteriors(1, 130, 6),
            torch.full((1, 130, 6), 1 / 6).log(),
        ]
    )
    log_probs[2, 20:90, 2] = -torch.inf
    keywords, limits = [[1, 2, 2, 3], [4], [5, 1]], [limit, max(1, limit // 2), limit + 3]
    scorer = KeywordScorer(keywords, max_frames=limits)
    confidence, start = scorer(log_probs)
    for found, expected in zip(
        stream(StreamSearch(keywords, max_frames=limits), log_probs),
        (confidence, start),
        strict=True,
    ):
        assert torch.equal(found, expected)
    for k, ids in enumerate(keywords):
        expected, expected_start = windows(log_probs, ids, limits[k])
        assert torch.equal(confidence[:, k], expected)
        reached = expected > 0
        assert torch.equal(start[:, k][reached], expected_start[reached])
    lengths = torch.tensor([0, 5, 110, 130])
    for b, length in enumerate(lengths.tolist()):
        log_probs[b, length:] = torch.nan
    padded, padded_start = scorer(log_probs, lengths)
    for b, length in enumerate(lengths.tolist()):
        assert torch.equal(padded[b, :, :length], confidence[b, :, :length])
        assert torch.equal(padded_start[b, :, :length], start[b, :, :length])
        assert padded[b, :, length:].eq(0).all() and padded_start[b, :, length:].eq(0).all()
    scorer(torch.full((1, 60, 6), torch.nan))  # has no meaning, but ends


def test_limit_that_does_not_bind_changes_no_bit():
    log_probs = torch.cat([quiet_posteriors(2, 90, 5), posteriors(2, 90, 5)])
    keywords = [[1, 2, 3], [4, 4]]
    confidence, start = KeywordScorer(keywords)(log_probs)
    age = torch.arange(90) - start + 1
    assert age.max() > 45
    for limits in ([90, 90], [int(age.max())] * 2, [1000, 400]):
        limited, limited_start = KeywordScorer(keywords, max_frames=limits)(log_probs)
        assert torch.equal(limited, confidence)
        assert torch.equal(limited_start[confidence > 0], start[confidence > 0])
    # where it binds, paths that are short enough anyway stay as they are
    limited, limited_start = KeywordScorer(keywords, max_frames=[30, 30])(log_probs)
    short = (age <= 30) & (confidence > 0)
    assert torch.equal(limited[short], confidence[short])
    assert torch.equal(limited_start[short], start[short])
    assert (limited[age > 30] < confidence[age > 30]).any()
    assert (limited <= confidence).all()
    assert (torch.arange(90) - limited_start)[limited > 0].max() == 29


def test_words_far_apart_are_no_keyword():
    # 1 at frame 5 and 2 at frame 60, each certain: without a limit one detection, with it none.
    probs = torch.full((1, 100, 3), 1e-4)
    labels = torch.zeros(100, dtype=torch.long)
    labels[5], labels[60] = 1, 2
    probs[0, torch.arange(100), labels] = 1 - 2e-4
    assert KeywordScorer([[1, 2]])(probs.log())[0].max() > 0.99
    assert KeywordScorer([[1, 2]], max_frames=[56])(probs.log())[0].max() > 0.99
    # the best that is left: one of them certain, the other at 1e-4 against the blank
    found = KeywordScorer([[1, 2]], max_frames=[55])(probs.log())[0].max()
    assert found == pytest.approx(1e-4**0.5, rel=1e-3)


def test_longest_limit_stays_within_64_bits():
    log_probs = quiet_posteriors(1, 2500, 4)
    log_probs[:, :, 2] = -torch.inf
    log_probs[:, 1200, 2] = 0.0
    keywords, limits = [[1, 2, 2, 3], [1, 2, 3]], [MAX_LIMIT_FRAMES] * 2
    scorer = KeywordScorer(keywords, max_frames=limits)
    confidence, start = scorer(log_probs)
    for found, expected in zip(
        stream(StreamSearch(keywords, max_frames=limits), log_probs),
        (confidence, start),
        strict=True,
    ):
        assert torch.equal(found, expected)
    assert confidence.isfinite().all() and confidence.max() <= 1.0
    assert confidence[0, 0].eq(0).all()
    assert confidence[0, 1, :1201].eq(0).all() and confidence[0, 1, 1201:2199].gt(0).all()
    assert confidence[0, 1, 2199:].eq(0).all()


@pytest.mark.parametrize("limits", [[], [5], [5, 0], [5, MAX_LIMIT_FRAMES + 1]])
def test_refuses_what_is_no_limit(limits):
    with pytest.raises(ValueError, match="max_frames: .* each of 2 keywords"):
        KeywordScorer([[1], [2]], max_frames=limits)


@pytest.mark.parametrize("num_frames", [0, 1, 4])
def test_empty_recordings_with_a_limit(num_frames):
    scorer = KeywordScorer([[1], [1, 2]], max_frames=[1, 2])
    confidence, start = scorer(posteriors(2, num_frames, 3), torch.tensor([0, num_frames]))
    assert confidence.shape == start.shape == (2, 2, num_frames)
    assert confidence[0].eq(0).all()
