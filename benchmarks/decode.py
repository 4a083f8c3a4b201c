"""Speed of the keyword scorer, with and without a longest duration, and of the prefix beam decoder.

    python benchmarks/decode.py [--device cuda]

One thread. The posteriors are random: `speech` has peaks as sharp as a trained CTC model's in a
quarter of its frames, `quiet` in 3 % of them and the blank elsewhere, so that most paths without a
limit are too long. In `silence` all frames are alike, which is the worst case of the limit.
"""

import argparse
import time
from collections.abc import Callable

import torch

from wekws.decode.duration import duration_frames
from wekws.decode.keyword import KeywordScorer
from wekws.decode.prefix_beam import PrefixBeamDecoder
from wekws.decode.stream_search import StreamSearch

NUM_TOKENS = 26
HOP_S = 0.03
MAX_DURATION_S = 2.0
PEAKS = {"speech": 0.25, "quiet": 0.03, "silence": 0.0}
KEYWORDS = [  # letters of COMPUTER, JARVIS, SMART MIRROR, SNOWBOY, VIEW GLASS, ALEXA as token ids
    [2, 3, 4, 5, 6, 7, 8, 9],
    [10, 11, 9, 12, 13, 14],
    [14, 4, 11, 9, 7, 4, 13, 9, 9, 3, 9],
    [14, 15, 3, 16, 17, 3, 18],
    [12, 13, 8, 16, 19, 20, 11, 14, 14],
    [11, 20, 8, 21, 11],
]


def posteriors(kind: str, batch_size: int, num_frames: int, device: str) -> torch.Tensor:
    """Return log-posteriors (B, T, V) of a kind, see above."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, num_frames)
    tokens = torch.randint(1, NUM_TOKENS, shape, generator=generator)
    is_peak = torch.rand(shape, generator=generator) < PEAKS[kind]
    labels = torch.where(is_peak, tokens, 0)
    logits = torch.randn(*shape, NUM_TOKENS, generator=generator) * (2 if PEAKS[kind] else 0)
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
    max_frames = [duration_frames(MAX_DURATION_S, HOP_S)] * len(KEYWORDS)
    scorer, limited = KeywordScorer(KEYWORDS), KeywordScorer(KEYWORDS, max_frames=max_frames)
    decoders = {"no limit": scorer, "limit": limited, "prefix beam": PrefixBeamDecoder(KEYWORDS)}
    refractory = round(1 / HOP_S)
    for name, batch_size, num_frames in (
        ("3 s utterances, 256 at once", 256, 100),
        ("one utterance of 3 s", 1, 100),
        ("one recording of an hour", 1, round(3600 / HOP_S)),
    ):
        for kind in PEAKS:
            log_probs = posteriors(kind, batch_size, num_frames, args.device)
            lengths = torch.full((batch_size,), num_frames, device=args.device)
            base_s = 0.0
            for label, decoder in decoders.items():
                if kind != "speech" and label == "prefix beam":
                    continue
                inputs = (log_probs, lengths, refractory)
                took = seconds(lambda d=decoder, i=inputs: d.events(*i), args.device, 3)
                base_s = base_s or took
                audio_s = batch_size * num_frames * HOP_S
                print(
                    f"{name:28s} {kind:8s} {label:12s} {took:8.3f} s {audio_s / took:8.0f} x real "
                    f"time {took / base_s:6.2f} x the search without limit",
                    flush=True,
                )
    num_frames = 3000
    frames = posteriors("quiet", 1, num_frames, "cpu")[0].numpy()
    for label, limits in (("no limit", None), ("limit", max_frames)):
        search = StreamSearch(KEYWORDS, max_frames=limits)

        def stream(search: StreamSearch = search) -> None:
            for frame in frames[:, None]:
                search(frame)

        stream_s = seconds(stream, "cpu", 3)
        print(
            f"stream of {num_frames} frames, frame by frame, {label}: "
            f"{stream_s / num_frames * 1e6:.0f} us per frame, "
            f"{num_frames * HOP_S / stream_s:.0f} x real time"
        )


if __name__ == "__main__":
    main()
