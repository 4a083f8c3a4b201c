"""Utterances per second of the keyword scorer and the prefix beam decoder on one thread.

    python benchmarks/decode.py [--device cuda]

Posteriors are random walks between tokens and blanks, as peaky as a trained model's.
"""

import argparse
import time

import torch

from wekws.decode.keyword import KeywordScorer
from wekws.decode.prefix_beam import PrefixBeamDecoder

NUM_TOKENS = 26
HOP_S = 0.03
KEYWORDS = [  # letters of COMPUTER, JARVIS, SMART MIRROR, SNOWBOY, VIEW GLASS, ALEXA
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


def seconds(run, device: str, repeats: int) -> float:
    """Return the best of several runs."""
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_threads", type=int, default=1)
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
        for decoder in (scorer, beam):
            inputs = (log_probs, lengths, refractory)
            took = seconds(lambda d=decoder, i=inputs: d.events(*i), args.device, 3)
            audio_s = batch_size * num_frames * HOP_S
            print(
                f"{name:28s} {type(decoder).__name__:18s} {took:8.3f} s "
                f"{batch_size / took:8.0f} utt/s {audio_s / took:9.0f} times real time"
            )
    log_probs = peaky_posteriors(1, 3000, args.device)

    def stream() -> None:
        state = scorer.initial_state(1, args.device)
        for frame in log_probs.unbind(1):
            scorer.step(state, frame)

    print(
        f"a stream, frame by frame: {seconds(stream, args.device, 3) / 3000 * 1e6:.0f} us a frame"
    )


if __name__ == "__main__":
    main()
