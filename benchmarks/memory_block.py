"""Time of the FSMN memory block in three implementations, and of a step against its floor.

OMP_NUM_THREADS=1 python benchmarks/memory_block.py [--device cuda] [--batch_size 64]

Prints milliseconds (CPU time where the device is the CPU) of the fastest repetition, forward and
backward pass, and ratios. All implementations of the memory give the same result:
rows       ``wekws.model.fsmn``: valid frames as rows, one channels-last convolution
conv_nchw  WeKWS: ``nn.Conv2d`` on (B, P, T, 1), left and right separately, with two transposes
slices     twelve shifted slices of (B, T, P), multiplied and added
The floor of a step is the time of its matrix products alone.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wekws.model.fsmn import Memory, pack
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig

TEACHER = FSMNConfig(
    input_affine_dim=140,
    num_layers=4,
    linear_dim=250,
    proj_dim=128,
    left_order=10,
    right_order=2,
    output_affine_dim=140,
)


def rows(memory: Memory, x: Tensor) -> Tensor:
    lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
    return memory(x.flatten(0, 1), pack(lengths, x.shape[1], 9)).view_as(x)


def conv_nchw(memory: Memory, x: Tensor) -> Tensor:
    image = x.unsqueeze(1).permute(0, 3, 2, 1)
    taps = memory.conv_left.weight, memory.conv_right.weight
    left = F.conv2d(F.pad(image, (0, 0, 9, 0)), taps[0], groups=x.shape[2])
    right = F.conv2d(F.pad(image, (0, 0, 0, 2))[:, :, 1:], taps[1], groups=x.shape[2])
    return (image + left + right).permute(0, 3, 2, 1).squeeze(1)


def slices(memory: Memory, x: Tensor) -> Tensor:
    taps = torch.cat([memory.conv_left.weight, memory.conv_right.weight], 2).flatten(1).t()
    padded = F.pad(x, (0, 0, 9, 2))
    for k in range(12):
        x = torch.addcmul(x, padded[:, k : k + x.shape[1]], taps[k])
    return x


def least_ms(work: Callable[[], None], device: str, repetitions: int = 15) -> float:
    # CPU time on a CPU: other processes disturb it less than wall-clock time.
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = []
    for _ in range(repetitions + 3):
        start = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (clock() - start))
    return min(times[3:])


def products(num_rows: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """Matrix products of a teacher's step: output, weight gradient, input gradient."""
    shapes = [(400, 140), (140, 250)] + 4 * [(250, 128), (128, 250)] + [(250, 140), (140, 20)]
    tensors = [
        (torch.randn(num_rows, i), torch.randn(o, i), torch.randn(num_rows, o)) for i, o in shapes
    ]
    tensors = [[tensor.to(device, dtype) for tensor in row] for row in tensors]

    def work() -> None:
        for index, (x, weight, grad) in enumerate(tensors):
            x @ weight.t()
            grad.t() @ x
            if index > 0:
                grad @ weight

    return work


def bench_memories(args: argparse.Namespace, dtype: torch.dtype) -> None:
    memory = Memory(TEACHER).to(args.device, dtype)
    shape = args.batch_size, args.num_frames, TEACHER.proj_dim
    x = torch.randn(shape).to(args.device, dtype).requires_grad_()
    grad = torch.randn(shape).to(args.device, dtype)
    expected = conv_nchw(memory, x)
    ours_ms = 0.0
    for form in (rows, conv_nchw, slices):
        error = (form(memory, x) - expected).abs().max().item()

        def work(form: Callable[[Memory, Tensor], Tensor] = form) -> None:
            form(memory, x).backward(grad)

        taken = least_ms(work, args.device)
        ours_ms = ours_ms or taken
        print(
            f"{dtype} memory, {form.__name__:<10} {taken:8.2f} ms, {taken / ours_ms:5.2f} x rows, "
            f"largest difference from conv_nchw {error:.0e}"
        )


def bench_step(args: argparse.Namespace, dtype: torch.dtype) -> None:
    config = ModelConfig(output_dim=20, backbone=TEACHER)
    cmvn = torch.zeros(400), torch.ones(400)
    model = KwsModel(config, cmvn).to(args.device)
    x = torch.randn(args.batch_size, args.num_frames, 400, device=args.device)
    full = torch.full((args.batch_size,), args.num_frames, device=args.device)
    ragged = torch.linspace(0.4, 1, args.batch_size, device=args.device)
    ragged = (ragged * args.num_frames).long()
    for name, lengths in (("full", full), ("ragged", ragged)):
        num_rows = int(lengths.sum())

        def work(lengths: Tensor = lengths) -> None:
            model.zero_grad()
            with torch.autocast(args.device, torch.bfloat16, enabled=dtype is torch.bfloat16):
                logits = model(x, lengths)
            logits.backward(torch.ones_like(logits))

        floor = least_ms(products(num_rows, dtype, args.device), args.device)
        taken = least_ms(work, args.device)
        share = num_rows / (args.batch_size * args.num_frames)
        print(
            f"{dtype} teacher step, {name} batch ({share:.0%} of frames valid): {taken:.2f} ms, "
            f"floor {floor:.2f} ms, ratio {taken / floor:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu", choices=["cpu", "cuda"], help="device (%(default)s)")
    add("--batch_size", type=int, default=64, help="utterances per batch (%(default)s)")
    add("--num_frames", type=int, default=97, help="frames per utterance (%(default)s)")
    args = parser.parse_args()
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        bench_memories(args, dtype)
        bench_step(args, dtype)


if __name__ == "__main__":
    main()
