"""Detections of a stream as a ratio to the offline events, at several thresholds.

Offline events are chosen with the future known (`wekws.decode.events`); a stream follows
`wekws.decode.event_rule`. Both get the confidences of the same recordings.

python benchmarks/event_rule.py --model exp/X/student/avg_5.pt --list data/X/test/data.list
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from wekws.dataset.audio import read_audio
from wekws.dataset.manifest import read_data_list
from wekws.decode.event_rule import EventRule
from wekws.decode.events import find_events
from wekws.stream import KeywordSpotter, SpotterModel, load_model

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def curve(model: SpotterModel, samples: np.ndarray) -> np.ndarray:
    """Return the confidence of each keyword at each frame, (T, K)."""
    frames = []
    spotter = KeywordSpotter(model.with_thresholds(1.0), frames_per_step=10, observer=frames.append)
    spotter.accept(samples)
    spotter.flush()
    return np.concatenate([part.confidence for part in frames])


def count(confidence: np.ndarray, refractory_frames: int) -> np.ndarray:
    """Return (thresholds, 2): offline events and detections of a stream, of all keywords."""
    starts = np.zeros(confidence.shape, np.int64)
    curves = torch.from_numpy(confidence.T.copy())[None]
    events = find_events(curves, torch.zeros(curves.shape, dtype=torch.long), refractory_frames)[0]
    scores = np.array([float(f"{event.score:.6g}") for row in events for event in row])
    counts = np.zeros((len(THRESHOLDS), 2), np.int64)
    for i, threshold in enumerate(THRESHOLDS):
        rule = EventRule([threshold] * confidence.shape[1], refractory_frames)
        detections = rule(confidence, starts) + rule.flush()
        counts[i] = (scores >= threshold).sum(), len(detections)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="checkpoint or exported model")
    parser.add_argument("--list", type=Path, required=True, help="data.list of recordings")
    parser.add_argument("--every", type=int, default=1, help="take one recording of so many [1]")
    args = parser.parse_args()
    model = load_model(args.model)
    front_end = model.front_end
    refractory_frames = round(model.refractory_s / front_end.hop_s)
    seconds, counts, detected = 0.0, 0, 0
    for utterance in list(read_data_list(args.list))[:: args.every]:
        samples = read_audio(utterance.wav, front_end.sample_rate_hz)
        if front_end.num_frames(len(samples)):
            found = count(curve(model, samples), refractory_frames)
            seconds, counts, detected = (
                seconds + utterance.duration, counts + found, detected + (found > 0)
            )  # fmt: skip
    print(f"{seconds / 3600:.2f} h, {len(model.keywords)} keywords")
    print("threshold  offline events  detections  ratio  recordings: offline  stream")
    for row in zip(THRESHOLDS, counts, detected, strict=True):
        threshold, (offline, stream), (by_events, by_stream) = row
        ratio = stream / max(offline, 1)
        counts_text = f"{offline:14d}  {stream:10d}  {ratio:5.2f}  {by_events:19d}  {by_stream:6d}"
        print(f"{threshold:9.1f}  {counts_text}")


if __name__ == "__main__":
    main()
