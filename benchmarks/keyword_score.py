"""Time of the keyword term's score and gradient, by frame and by token, and their ratio.

python benchmarks/keyword_score.py [--device cuda] [--frames 100 300]

Batches of 32 recordings and six keywords with as many tokens as six English words have letters.
Wall-clock time, since a GPU is waited for; one CPU thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from train_step import KEYWORD_LENGTHS

from wekws.distill import soft_score

NUM_OUTPUTS = 20
BATCH_SIZE = 32
REPEATS = 7


def milliseconds(score: Callable[..., Tensor], log_probs: Tensor, device: str) -> float:
    """Return the median time of score and gradient with one way to the scores of the ends."""
    soft_score.end_scores_by_frame = soft_score.end_scores_by_token = score
    keywords = [[1 + i % (NUM_OUTPUTS - 1) for i in range(n)] for n in KEYWORD_LENGTHS]
    module = soft_score.SoftKeywordScore(keywords, softness=0.1).to(device)
    lengths = torch.full((BATCH_SIZE,), log_probs.shape[1], device=device)
    times = []
    for _ in range(REPEATS + 1):
        inputs = log_probs.clone().requires_grad_()
        began = time.perf_counter()
        module(inputs, lengths).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def main() -> None:
    """Print one line per number of frames."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 300])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as in training
    ways = (soft_score.end_scores_by_frame, soft_score.end_scores_by_token)
    for num_frames in args.frames:
        generator = torch.Generator().manual_seed(0)
        logits = 4 * torch.randn(BATCH_SIZE, num_frames, NUM_OUTPUTS, generator=generator)
        log_probs = logits.log_softmax(-1).to(args.device)
        by_frame, by_token = (milliseconds(way, log_probs, args.device) for way in ways)
        print(
            f"{args.device}, {num_frames} frames: by frame {by_frame:.1f} ms, by token "
            f"{by_token:.1f} ms, ratio {by_frame / by_token:.2f}"
        )


if __name__ == "__main__":
    main()
