"""Recordings of a keyword that a detector still finds after exact zeros, as a ratio to all.

A muted microphone delivers zeros. They are far below any noise that a model has been trained on,
and a model that has never heard them may take a while to recover.

python benchmarks/digital_silence.py --models student=exp/X/student/avg_5.onnx \
    --list data/X/test/data.list
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wekws.dataset.audio import read_pieces
from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import contains_keyword
from wekws.score.sets import transcript
from wekws.stream import KeywordSpotter, SpotterModel, load_model

SILENCES_S = (0.0, 0.1, 0.3, 1.0)


def found(model: SpotterModel, positives: Sequence[tuple[str, np.ndarray]], zeros: int) -> int:
    """Return how many recordings have their keyword detected after so many zero samples."""
    count = 0
    for keyword, samples in positives:
        spotter = KeywordSpotter(model)
        detections = spotter.accept(np.concatenate([np.zeros(zeros, samples.dtype), samples]))
        detections += spotter.flush()
        count += any(detection.keyword == keyword for detection in detections)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="+", required=True, metavar="NAME=FILE", help="checkpoints or .onnx")
    add("--list", type=Path, required=True, help="data.list with the keywords")
    add("--num_recordings", type=int, default=200, help="recordings of keywords [%(default)s]")
    add("--threshold", type=float, default=0.3, help="of every keyword [%(default)s]")
    args = parser.parse_args()
    print(f"| model | {' | '.join(f'{seconds:g} s' for seconds in SILENCES_S)} |")
    print("|---|" + "---|" * len(SILENCES_S))
    for text in args.models:
        name, _, path = text.partition("=")
        model = load_model(path).with_thresholds(args.threshold)
        rate = model.front_end.sample_rate_hz
        keywords = [keyword.text for keyword in model.keywords]
        spoken = [
            (keyword, utterance.wav)
            for utterance in read_data_list(args.list)
            for keyword in keywords
            if contains_keyword(transcript(utterance), keyword)
        ]
        step = max(len(spoken) // args.num_recordings, 1)
        positives = [
            (keyword, np.concatenate(list(read_pieces(path, rate))))
            for keyword, path in spoken[::step][: args.num_recordings]
        ]
        counts = [found(model, positives, round(seconds * rate)) for seconds in SILENCES_S]
        cells = [f"{count} of {len(positives)} ({count / len(positives):.2f})" for count in counts]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
