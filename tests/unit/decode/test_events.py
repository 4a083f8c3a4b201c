"""Peaks of a confidence curve that count as detections, against the rule of a stream."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wekws.decode.event_rule import Event, EventRule
from wekws.decode.events import counting_events, find_events


def events_of(values, refractory_frames):
    confidence = torch.tensor(values, dtype=torch.float64)
    starts = torch.arange(len(values))
    return find_events(confidence[None, None], starts[None, None], refractory_frames)[0][0]


def test_a_peak_counts_if_one_more_fits():
    # peaks at 1 (0.5), 3 (0.9), 6 (0.4). From 0.9 down: 3; then 1 and 3 are too close, still one
    # detection; then 1 and 6.
    found = events_of([0.1, 0.5, 0.2, 0.9, 0.1, 0.2, 0.4, 0.0], 3)
    assert found == [Event(0.9, 3, 3), Event(0.4, 6, 6)]
    # six frames apart: 1 silences 6 as well
    assert len(events_of([0.1, 0.5, 0.2, 0.9, 0.1, 0.2, 0.4, 0.0], 6)) == 1


def test_an_earlier_peak_makes_room_for_a_later_one():
    # At 0.9 the peak at 4 is the only one. At 0.7 the peak at 2 is taken first, and 6 is outside
    # its refractory time, but not outside that of 4: two detections, 2 and 6.
    assert [e.end for e in events_of([0.0, 0.0, 0.7, 0.0, 0.9, 0.0, 0.8], 4)] == [2, 4]


def test_flat_and_empty_curves_have_one_event():
    assert events_of([0.0, 0.0, 0.0], 2) == [Event(0.0, 0, 0)]
    assert events_of([], 2) == [Event(0.0, 0, 0)]
    assert events_of([0.5, 0.5, 0.5], 2) == [Event(0.5, 0, 0)]
    assert events_of([0.3], 0) == [Event(0.3, 0, 0)]


def test_peak_at_either_edge():
    assert [e.end for e in events_of([0.9, 0.1, 0.1, 0.8], 2)] == [0, 3]


def test_curves_of_a_batch_are_independent():
    generator = torch.Generator().manual_seed(0)
    curves = torch.rand(3, 2, 200, generator=generator)
    starts = torch.arange(200).expand(3, 2, 200)
    batch = find_events(curves, starts, 9)
    for b in range(3):
        for k in range(2):
            assert batch[b][k] == find_events(curves[b, k][None, None], starts[:1, :1], 9)[0][0]


curves = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), max_size=80)


@given(curves, st.integers(0, 12))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_as_many_events_as_a_stream_has_detections(values, refractory_frames):
    curve = np.array(values, np.float32)
    starts = np.zeros(len(values), np.int64)
    events = find_events(
        torch.from_numpy(curve)[None, None], torch.from_numpy(starts)[None, None], refractory_frames
    )[0][0]
    for threshold in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        rule = EventRule([threshold], refractory_frames)
        detections = rule(curve[:, None], starts[:, None]) + rule.flush()
        assert sum(float(f"{e.score:.6g}") >= threshold for e in events) == len(detections)


def test_peaks_in_any_order_and_at_one_place():
    peaks = [Event(0.2, 0, 5), Event(0.9, 0, 40), Event(0.5, 0, 7), Event(0.4, 3, 40)]
    assert counting_events(peaks, 10) == [Event(0.5, 0, 7), Event(0.9, 0, 40)]
    assert counting_events([], 10) == []
