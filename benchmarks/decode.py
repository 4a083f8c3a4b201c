"""Speed of the keyword scorer and of the prefix beam decoder on one thread, and their ratio.

    python benchmarks/decode.py [--device cuda]

The posteriors are random, with peaks as sharp as a trained CTC model's.
"""

import argparse
import time
from collections.abc import Callable

import torch

from wekws.decode.keyword import KeywordScorer
from wekws.decode.prefix_beam import PrefixBeamDecoder

NUM_TOKENS = 26
HOP_S = 0.03
KEYWORDS = [  # letters of COMPUTER, JARVIS, SMART MIRROR, SNOWBOY, VIEW GLASS, ALEXA as token ids
    [2, 3, 4, 5, 6, 7, 8, 9],
    [10, 11, 9, 12, 13, 14],
    [14, 4, 11, 9, 7, 4, 13, 9, 9, 3, 9],
    [14, 15, 3, 16, 17, 3, 18],
    [12, 13, 8, 16, 19, 20, 11, 14, 14],
    [11, 20, 8, 21, 11],
]


def peaky_posteriors(batch_size: int, num_frames: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, num_frames)
    tokens = torch.randint(1, NUM_TOKENS, shape, generator=generator)
    is_peak = torch.rand(shape, generator=generator) < 0.25
    labels = torch.where(is_peak, tokens, 0)
    logits = torch.randn(*shape, NUM_TOKENS, generator=generator) * 2
    logits.scatter_add_(2, labels[..., None], torch.full((*shape, 1), 8.0))
    return logits.log_softmax(-1).to(device)


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """Return the time of the fastest run."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--num_threads", type=int, default=1, help="CPU threads (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    scorer, beam = KeywordScorer(KEYWORDS), PrefixBeamDecoder(KEYWORDS)
    refractory = round(1 / HOP_S)
    for name, batch_size, num_frames in (
        ("3 s utterances, 256 at once", 256, 100),
        ("one utterance of 3 s", 1, 100),
        ("one recording of an hour", 1, round(3600 / HOP_S)),
    ):
        log_probs = peaky_posteriors(batch_size, num_frames, args.device)
        lengths = torch.full((batch_size,), num_frames, device=args.device)
        scorer_s = 0.0
        for decoder in (scorer, beam):
            inputs = (log_probs, lengths, refractory)
            took = seconds(lambda d=decoder, i=inputs: d.events(*i), args.device, 3)
            scorer_s = scorer_s or took
            audio_s = batch_size * num_frames * HOP_S
            print(
                f"{name:28s} {type(decoder).__name__:18s} {took:8.3f} s "
                f"{batch_size / took:9.4g} utterances per s {audio_s / took:9.0f} x real time  "
                f"{took / scorer_s:6.1f} x the keyword scorer"
            )
    num_frames = 3000
    log_probs = peaky_posteriors(1, num_frames, args.device)
    lengths = torch.full((1,), num_frames, device=args.device)

    def stream() -> None:
        state = scorer.initial_state(1, args.device)
        for frame in log_probs.unbind(1):
            scorer.step(state, frame)

    stream_s = seconds(stream, args.device, 3)
    whole_s = seconds(lambda: scorer.events(log_probs, lengths, refractory), args.device, 3)
    print(
        f"stream of {num_frames} frames, frame by frame: {stream_s / num_frames * 1e6:.0f} us per "
        f"frame, {num_frames * HOP_S / stream_s:.0f} x real time, "
        f"{stream_s / whole_s:.1f} x the same frames as one utterance"
    )


if __name__ == "__main__":
    main()
