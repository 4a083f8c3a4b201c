"""Peaks of a confidence curve, with their refractory time."""

import torch

from wekws.decode.event_rule import Event
from wekws.decode.events import find_events, suppress


def events_of(values, refractory_frames):
    confidence = torch.tensor(values, dtype=torch.float64)
    starts = torch.arange(len(values))
    return find_events(confidence[None, None], starts[None, None], refractory_frames)[0][0]


def test_higher_peak_silences_its_neighbourhood():
    # peaks at 1 (0.5), 3 (0.9), 6 (0.4); 3 silences 1 and leaves 6, three frames on
    found = events_of([0.1, 0.5, 0.2, 0.9, 0.1, 0.2, 0.4, 0.0], 3)
    assert found == [Event(0.9, 3, 3), Event(0.4, 6, 6)]
    assert len(events_of([0.1, 0.5, 0.2, 0.9, 0.1, 0.2, 0.4, 0.0], 4)) == 1


def test_a_silenced_peak_silences_nothing():
    # 0.9 at 4 silences 0.8 at 2, which therefore does not silence 0.7 at 0
    assert [e.end for e in events_of([0.7, 0.0, 0.8, 0.0, 0.9], 3)] == [0, 4]


def test_flat_and_empty_curves_have_one_event():
    assert events_of([0.0, 0.0, 0.0], 2) == [Event(0.0, 0, 0)]
    assert events_of([], 2) == [Event(0.0, 0, 0)]
    assert events_of([0.5, 0.5, 0.5], 2) == [Event(0.5, 0, 0)]
    assert events_of([0.3], 0) == [Event(0.3, 0, 0)]


def test_peak_at_either_edge():
    assert [e.end for e in events_of([0.9, 0.1, 0.1, 0.8], 2)] == [0, 3]


def test_a_batch_of_curves_equals_a_slow_reference():
    generator = torch.Generator().manual_seed(0)
    curves = torch.rand(3, 2, 200, generator=generator)
    starts = torch.arange(200).expand(3, 2, 200)
    batch = find_events(curves, starts, 9)
    for b in range(3):
        for k in range(2):
            curve = curves[b, k].tolist()
            padded = [0.0, *curve, 0.0]
            peaks = [t for t in range(200) if padded[t] < curve[t] >= padded[t + 2]]
            kept = []
            for t in sorted(peaks, key=lambda t: -curve[t]):
                if all(abs(t - other) >= 9 for other in kept):
                    kept.append(t)
            assert [e.end for e in batch[b][k]] == sorted(kept)


def test_suppress_keeps_time_order():
    events = [Event(0.2, 0, 5), Event(0.9, 0, 40), Event(0.5, 0, 7)]
    assert suppress(events, 10) == [Event(0.5, 0, 7), Event(0.9, 0, 40)]
    assert suppress([], 10) == []
