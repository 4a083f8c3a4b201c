"""Time forms of the FSMN's memory, and a whole step against its matrix products alone.

OMP_NUM_THREADS=1 python benchmarks/memory_block.py [--device cuda] [--batch_size 64]

Milliseconds (of processor time on a CPU), least of the repetitions, forward + backward. Forms of
the memory, all exact:
rows       ``wekws.model.fsmn``: valid frames as rows, one channels-last convolution
conv_nchw  WeKWS's: ``nn.Conv2d`` on (B, P, T, 1), left and right apart, transposed there and back
slices     twelve shifted slices of (B, T, P), multiplied and added
"""

import argparse
import time

import torch
import torch.nn.functional as F

from wekws.model.fsmn import FSMNConfig, Memory, pack
from wekws.model.model import KwsModel, ModelConfig

TEACHER = FSMNConfig(
    input_affine_dim=140,
    num_layers=4,
    linear_dim=250,
    proj_dim=128,
    left_order=10,
    right_order=2,
    output_affine_dim=140,
)


def rows(memory, x):
    lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
    return memory(x.flatten(0, 1), pack(lengths, x.shape[1], 9)).view_as(x)


def conv_nchw(memory, x):
    image = x.unsqueeze(1).permute(0, 3, 2, 1)
    taps = memory.conv_left.weight, memory.conv_right.weight
    left = F.conv2d(F.pad(image, (0, 0, 9, 0)), taps[0], groups=x.shape[2])
    right = F.conv2d(F.pad(image, (0, 0, 0, 2))[:, :, 1:], taps[1], groups=x.shape[2])
    return (image + left + right).permute(0, 3, 2, 1).squeeze(1)


def slices(memory, x):
    taps = torch.cat([memory.conv_left.weight, memory.conv_right.weight], 2).flatten(1).t()
    padded = F.pad(x, (0, 0, 9, 2))
    for k in range(12):
        x = torch.addcmul(x, padded[:, k : k + x.shape[1]], taps[k])
    return x


def least_ms(work, device, repetitions=15):
    # Processor time where it can be had: other processes disturb it less.
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = []
    for _ in range(repetitions + 3):
        start = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (clock() - start))
    return min(times[3:])


def products(num_rows, dtype, device):
    """The matrix products of a teacher's step: output, weight gradient, input gradient."""
    shapes = [(400, 140), (140, 250)] + 4 * [(250, 128), (128, 250)] + [(250, 140), (140, 20)]
    tensors = [
        (torch.randn(num_rows, i), torch.randn(o, i), torch.randn(num_rows, o)) for i, o in shapes
    ]
    tensors = [[tensor.to(device, dtype) for tensor in row] for row in tensors]

    def work():
        for index, (x, weight, grad) in enumerate(tensors):
            x @ weight.t()
            grad.t() @ x
            if index > 0:
                grad @ weight

    return work


def bench_memories(args, dtype):
    memory = Memory(TEACHER).to(args.device, dtype)
    shape = args.batch_size, args.num_frames, TEACHER.proj_dim
    x = torch.randn(shape).to(args.device, dtype).requires_grad_()
    grad = torch.randn(shape).to(args.device, dtype)
    expected = conv_nchw(memory, x)
    for form in (rows, conv_nchw, slices):
        error = (form(memory, x) - expected).abs().max().item()

        def work(form=form):
            form(memory, x).backward(grad)

        print(f"{dtype} {form.__name__:<10} {least_ms(work, args.device):8.2f}  off {error:.0e}")


def bench_step(args, dtype):
    config = ModelConfig(output_dim=20, backbone=TEACHER)
    cmvn = torch.zeros(400), torch.ones(400)
    model = KwsModel(config, cmvn).to(args.device)
    x = torch.randn(args.batch_size, args.num_frames, 400, device=args.device)
    full = torch.full((args.batch_size,), args.num_frames, device=args.device)
    ragged = torch.linspace(0.4, 1, args.batch_size, device=args.device)
    ragged = (ragged * args.num_frames).long()
    for name, lengths in (("full", full), ("ragged", ragged)):
        num_rows = int(lengths.sum())

        def work(lengths=lengths):
            model.zero_grad()
            with torch.autocast(args.device, torch.bfloat16, enabled=dtype is torch.bfloat16):
                logits = model(x, lengths)
            logits.backward(torch.ones_like(logits))

        floor = least_ms(products(num_rows, dtype, args.device), args.device)
        taken = least_ms(work, args.device)
        share = num_rows / (args.batch_size * args.num_frames)
        print(
            f"{dtype} teacher step, {name} ({share:.0%} valid): {taken:.2f}, "
            f"products alone {floor:.2f}, ratio {taken / floor:.2f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_frames", type=int, default=97)
    args = parser.parse_args()
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        bench_memories(args, dtype)
        bench_step(args, dtype)


if __name__ == "__main__":
    main()
