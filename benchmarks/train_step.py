"""Milliseconds of CPU per utterance of a training step, beside the matrix products alone.

python benchmarks/train_step.py [--num_threads 1] [--batch_size 64] [--seconds 2.9]

The floor is every matrix product of the step (forward, gradient of input, gradient of weight) at
the model's shapes, nothing else, measured in the same run. Times are CPU times of the process:
other work on the machine does not count.
"""

import argparse
import time

import torch
from torch.profiler import ProfilerActivity, profile

from wekws.dataset.augment import SpecAugConfig, spec_augment
from wekws.dataset.features import expand_context
from wekws.distill.objective import DistillConfig, Objective
from wekws.distill.taps import Output
from wekws.model.checkpoint import read_model_config
from wekws.model.model import KwsModel

CONFIGS = {
    "teacher": "conf/fsmn_ctc_teacher.yaml",
    "student": "conf/fsmn_ctc_student_mini.yaml",
}


def make_model(name: str) -> KwsModel:
    config = read_model_config(CONFIGS[name]).with_output_dim(20)
    return KwsModel(config, (torch.zeros(400), torch.ones(400)))


def make_batch(batch_size: int, num_frames: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(batch_size, num_frames, 80, generator=generator)
    lengths = torch.randint(
        num_frames * 6 // 10, num_frames + 1, (batch_size,), generator=generator
    )
    labels = torch.randint(1, 20, (batch_size, 4), generator=generator)
    return feats, lengths, labels, torch.full((batch_size,), 4)


class Step:
    """One whole training step: SpecAugment, context, forward, loss, backward, clip, Adam."""

    def __init__(self, model_name: str, batch: tuple, *, has_teacher: bool, use_bf16: bool) -> None:
        self.model = make_model(model_name)
        self.teacher = make_model("teacher").eval() if has_teacher else None
        self.objective = Objective(DistillConfig(), has_teacher=has_teacher)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-6, fused=True)
        self.batch, self.use_bf16 = batch, use_bf16
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> None:
        feats, lengths, labels, label_lengths = self.batch
        feats = spec_augment(feats, lengths, SpecAugConfig(), self.generator, torch.zeros(80))
        inputs, lengths = expand_context(feats, lengths, 2, 2, 3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.use_bf16):
            logits = self.model(inputs, lengths)
            with torch.no_grad():
                taught = Output(self.teacher(inputs, lengths)) if self.teacher else None
        loss = self.objective(
            Output(logits), taught, lengths, labels, label_lengths, len(labels), 0.0
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()


class Floor:
    """The matrix products of a step: three for each trained layer, one for each teacher layer."""

    def __init__(self, model_name: str, num_rows: int, *, has_teacher: bool) -> None:
        self.products = list(self._trained(make_model(model_name), num_rows))
        if has_teacher:
            self.products += [p[:1] for p in self._trained(make_model("teacher"), num_rows)]

    @staticmethod
    def _trained(model: KwsModel, num_rows: int):
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                x, g = torch.randn(num_rows, weight.shape[1]), torch.randn(num_rows, len(weight))
                w = weight.detach()
                products = [(x, w.T), (g.T, x), (g, w)]
                # The first layer's input wants no gradient.
                yield products[:2] if "in_linear1" in name else products

    def __call__(self) -> None:
        for layer in self.products:
            for a, b in layer:
                a @ b


def cpu_ms(function, repeats: int) -> float:
    """Return the least CPU time of a call over the repeats, in ms, after three warm-up calls."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.9, help="of the longest utterance")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="where the teacher's step goes")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    batch = make_batch(args.batch_size, int(100 * args.seconds) - 2)
    num_rows = int((-(-batch[1] // 3)).sum())
    print(f"batch {args.batch_size}, longest {args.seconds} s, {num_rows} valid frames of 30 ms,")
    print(f"{args.num_threads} thread(s), least of {args.repeats}; CPU ms an utterance\n")
    print("| step | floor fp32 | step fp32 | ratio | step bf16 | bf16 / fp32 |")
    print("|---|---|---|---|---|---|")
    for label, model_name, has_teacher in (
        ("teacher, CTC", "teacher", False),
        ("student, CTC", "student", False),
        ("student, CTC + KD", "student", True),
    ):
        floor = cpu_ms(Floor(model_name, num_rows, has_teacher=has_teacher), args.repeats)
        exact, halved = (
            cpu_ms(Step(model_name, batch, has_teacher=has_teacher, use_bf16=b), args.repeats)
            for b in (False, True)
        )
        each = [value / args.batch_size for value in (floor, exact, halved)]
        print(
            f"| {label} | {each[0]:.3f} | {each[1]:.3f} | {exact / floor:.2f} "
            f"| {each[2]:.3f} | {halved / exact:.2f} |"
        )
    if args.profile:
        step = Step("teacher", batch, has_teacher=False, use_bf16=False)
        step()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


if __name__ == "__main__":
    main()
