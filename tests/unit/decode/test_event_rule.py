"""The causal rule of detections, step by step; test_events.py compares it with scores."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wekws.decode.event_rule import Event, EventRule


def detections(values, threshold, refractory_frames, sizes=(), **options):
    """Detections of one curve, cut into pieces."""
    rule = EventRule([threshold], refractory_frames, **options)
    curve = np.array(values, np.float32)[:, None]
    starts = np.maximum(np.arange(len(values)) - 2, 0)[:, None]
    found = []
    for part in np.split(np.arange(len(values)), np.cumsum(sizes).clip(max=len(values))):
        found += rule(curve[part], starts[part])
    return [event for _, event in found + rule.flush()]


def ends(*arguments, **options):
    return [event.end for event in detections(*arguments, **options)]


def test_first_peak_is_reported_and_silences_higher_ones():
    values = [0.1, 0.5, 0.2, 0.9, 0.1, 0.2, 0.4, 0.0]
    # peaks at 1, 3 and 6; 3 comes 2 frames after 1, and 6 comes 5 frames after it
    assert ends(values, 0.3, 3) == [1, 6]
    assert ends(values, 0.6, 3) == [3]
    assert ends(values, 0.3, 6) == [1]
    assert ends(values, 0.3, 0) == [1, 3, 6]


def test_a_peak_is_decided_one_frame_later():
    rule = EventRule([0.5], 10)
    starts = np.array([[0]])
    assert rule(np.float32([[0.6]]), starts) == []
    assert rule(np.float32([[0.8]]), starts) == []  # still rising
    ((keyword, event),) = rule(np.float32([[0.8]]), starts)
    assert (keyword, event.end) == (0, 1)
    assert rule.flush() == []


def test_a_curve_that_stays_high_after_the_refractory_time_does_not_fire_again():
    assert ends([0.9, 0.8, 0.7, 0.7, 0.6, 0.6], 0.5, 2) == [0]


def test_peak_in_the_last_frame():
    assert ends([0.1, 0.2, 0.9], 0.5, 5) == [2]
    assert ends([], 0.5, 5) == []


def test_confidences_are_rounded_as_in_score_files():
    # 0.6499996 is 0.65 with 6 digits, and a threshold chosen from a score file may be 0.65
    assert ends([0.0, 0.6499996, 0.0], 0.65, 1) == [1]
    assert ends([0.0, 0.649999, 0.0], 0.65, 1) == []


def test_short_paths_are_left_out_and_silence_nothing():
    values = [0.9, 0.1, 0.8, 0.1, 0.1]  # paths of 1 and 3 frames
    assert ends(values, 0.5, 10) == [0]
    assert ends(values, 0.5, 10, min_frames=[3]) == [2]


def test_keywords_do_not_silence_each_other():
    rule = EventRule([0.5, 0.7], 10)
    curve = np.float32([[0.6, 0.6], [0.1, 0.8], [0.0, 0.0]])
    assert [(k, e.end) for k, e in rule(curve, np.zeros((3, 2), np.int64))] == [(0, 0), (1, 1)]
    rule.reset()
    assert rule(curve[:2], np.zeros((2, 2), np.int64)) == [(0, Event(np.float32(0.6), 0, 0))]


curves = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), max_size=60)


@given(curves, st.sampled_from([0.1, 0.4, 0.7]), st.integers(0, 9), st.lists(st.integers(0, 9)))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_pieces_change_nothing(values, threshold, refractory_frames, sizes):
    whole = detections(values, threshold, refractory_frames)
    assert detections(values, threshold, refractory_frames, sizes) == whole
