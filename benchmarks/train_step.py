"""CPU time of a training step per utterance, as a ratio to its matrix products alone.

python benchmarks/train_step.py [--num_threads 1] [--batch_size 64] [--seconds 2.9] [--options]

The floor is the time of all matrix products of the step (forward pass, gradient of the input,
gradient of the weight) at the model's shapes and nothing else, measured in the same run. Times are
CPU times of the process: other work on the machine does not count. With ``--options`` it prints the
cost of each distillation or training option relative to plain CTC. The options run in turn, so that
a change of the machine's speed affects all of them alike.
"""

import argparse
import dataclasses
import math
import time
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from wekws.dataset.batch import Batch
from wekws.dataset.label_set import LabelSet
from wekws.dataset.vocabulary import BLANK_TOKEN, FILLER_TOKEN, Tokenizer, Vocabulary
from wekws.distill.adversarial import AdversarialConfig
from wekws.distill.consistency import ConsistencyConfig
from wekws.distill.ctc import CtcConfig
from wekws.distill.gate import GateConfig
from wekws.distill.guide import GuideConfig
from wekws.distill.hidden import HiddenConfig
from wekws.distill.inner_head import InnerConfig
from wekws.distill.kd import KdConfig
from wekws.distill.keyword_loss import KeywordConfig
from wekws.distill.methods import DistillConfig, build_objective
from wekws.distill.weight_average import WeightAverage
from wekws.model.model import KwsModel
from wekws.model.model_conf import read_model_config
from wekws.train.build import mix_teachers
from wekws.train.distributed import Process
from wekws.train.gradient_probe import GradientProbe
from wekws.train.loop import StepParts, backward, step_inputs
from wekws.train.train_config import load_train_config

CONFIGS = {
    "teacher": "conf/fsmn_ctc_teacher.yaml",
    "student": "conf/fsmn_ctc_student_mini.yaml",
}


# Tokens of the keywords, those of six English words in letters.
KEYWORD_LENGTHS = (8, 6, 11, 7, 9, 5)


def make_label_set() -> LabelSet:
    """Return labels of 18 letters, and keywords that are pieces of the alphabet."""
    letters = "ABCDEFGHIJKLMNOPQR"
    return LabelSet(
        vocabulary=Vocabulary((BLANK_TOKEN, FILLER_TOKEN, *letters)),
        tokenizer=Tokenizer(),
        keywords=tuple(letters[i : i + length] for i, length in enumerate(KEYWORD_LENGTHS)),
    )


def make_model(name: str) -> KwsModel:
    config = read_model_config(CONFIGS[name]).with_output_dim(20)
    return KwsModel(config, (torch.zeros(400), torch.ones(400)))


def make_batch(batch_size: int, num_frames: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(batch_size, num_frames, 80, generator=generator)
    lengths = torch.randint(
        num_frames * 6 // 10, num_frames + 1, (batch_size,), generator=generator
    )
    return Batch(
        keys=[f"utterance{i}" for i in range(batch_size)],
        feats=feats,
        feat_lengths=lengths,
        labels=torch.randint(1, 20, (batch_size, 4), generator=generator),
        label_lengths=torch.full((batch_size,), 4),
        holds_keyword=torch.rand(batch_size, len(KEYWORD_LENGTHS), generator=generator) < 0.1,
        indices=torch.arange(batch_size),
        places=torch.arange(batch_size),
        num_global=batch_size,
    )


@dataclass(frozen=True)
class Option:
    """Settings of one training step."""

    distill: DistillConfig | None = None
    """Distillation; None: plain CTC."""
    ctc: CtcConfig = CtcConfig()
    """CTC loss."""
    keyword: KeywordConfig = KeywordConfig()
    """Keyword term, for the keywords of ``make_label_set``."""
    num_keywords: int = len(KEYWORD_LENGTHS)
    """How many of them, the first ones."""
    accum_grad: int = 1
    """Number of parts that a batch is split into for gradient accumulation."""
    use_ema: bool = False
    """Whether a moving average of the weights is kept."""
    use_probe: bool = False
    """Whether the gradient of each loss term is measured."""
    num_teachers: int = 1
    """Number of teachers, each of the teacher configuration's size."""


def with_kd(**values) -> Option:
    return Option(DistillConfig(kd=KdConfig(**values)))


def with_keyword(num_keywords: int, softness: float = 0.1) -> Option:
    config = KeywordConfig(weight=1.0, softness=softness)
    return Option(keyword=config, num_keywords=num_keywords)


def with_hidden(**values) -> Option:
    return Option(DistillConfig(hidden=HiddenConfig(weight=1.0, **values)))


FULL = DistillConfig()
OPTIONS = {
    "CTC": Option(),
    "CTC, label smoothing": Option(ctc=CtcConfig(label_smoothing=0.01)),
    "CTC + keyword, 2 words": with_keyword(2),
    "CTC + keyword, 6 words": with_keyword(6),
    "CTC + keyword, 6 words, best path": with_keyword(6, softness=0.0),
    "CTC, 4 parts": Option(accum_grad=4),
    "CTC, EMA": Option(use_ema=True),
    "CTC + KD": Option(FULL),
    "... non-blank frames": with_kd(frames="non_blank"),
    "... widened by 2": with_kd(frames="widened", num_neighbours=2),
    "... blank decoupled": with_kd(blank_weight=0.5),
    "... clean teacher": Option(DistillConfig(teacher_view="clean")),
    "... guide": Option(DistillConfig(guide=GuideConfig(weight=1.0))),
    "... hidden, mse, 3 blocks": with_hidden(),
    "... hidden, normalised mse": with_hidden(distance="normalised_mse"),
    "... hidden, cosine": with_hidden(distance="cosine"),
    "... hidden, last block": with_hidden(blocks="second_half"),
    "... hidden, gate per frame": with_hidden(gate=GateConfig(openness=0.3)),
    "... hidden, gate per channel": with_hidden(gate=GateConfig(openness=0.3, per="channel")),
    "... adversarial": Option(DistillConfig(adversarial=AdversarialConfig(weight=0.1))),
    "... two teachers": Option(FULL, num_teachers=2),
    "... inner CTC head": Option(DistillConfig(inner=InnerConfig(weight=0.3))),
    "... two views": Option(DistillConfig(consistency=ConsistencyConfig(weight=0.2))),
    "... gradients of each term": Option(FULL, use_probe=True),
}


class Step:
    """One whole training step: SpecAugment, context, forward, loss, backward, clip, Adam."""

    def __init__(self, model_name: str, batch: Batch, option: Option, *, use_bf16: bool) -> None:
        model, teacher = make_model(model_name), None
        if option.distill:
            teachers = [make_model("teacher").eval() for _ in range(option.num_teachers)]
            teacher = mix_teachers(teachers)
        config = load_train_config(CONFIGS[model_name]).with_output_dim(20)
        config = dataclasses.replace(
            config,
            ctc_conf=option.ctc,
            keyword_conf=option.keyword,
            distill_conf=option.distill or FULL,
            training_config=dataclasses.replace(
                config.training_config, accum_grad=option.accum_grad
            ),
        )
        labels = make_label_set()
        labels = labels.with_keywords(labels.keywords[: option.num_keywords])
        objective = build_objective(config, model, teacher, label_set=labels)
        parameters = [*model.parameters(), *objective.trained_parameters]
        self.parts = StepParts(
            process=Process(0, 1, torch.device("cpu")),
            config=config,
            model=model,
            teacher=teacher,
            objective=objective,
            optimizer=torch.optim.Adam(parameters, lr=1e-6, fused=True),
            seed=0,
            use_bf16=use_bf16,
        )
        self.average = WeightAverage(model, 0.999) if option.use_ema else None
        self.use_probe = option.use_probe
        held = batch.holds_keyword[:, : option.num_keywords]
        batch = dataclasses.replace(batch, holds_keyword=held)
        self.batch, self.generator = batch, torch.Generator().manual_seed(0)

    def __call__(self) -> None:
        parts, probe = self.parts, None
        if self.use_probe:
            probe = GradientProbe(parts.model, parts.objective.task_terms)
        inputs = step_inputs(parts, self.batch, self.generator, 0.0)
        backward(parts, inputs, 0.0, probe)
        torch.nn.utils.clip_grad_norm_(parts.parameters, 5.0)
        parts.optimizer.step()
        if self.average:
            self.average.update(parts.model, 1)
        if probe:
            probe.figures(parts.process)


class Floor:
    """Matrix products of a step: three per trained layer, one per teacher layer."""

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
                # The input of the first layer needs no gradient.
                yield products[:2] if "in_linear1" in name else products

    def __call__(self) -> None:
        for layer in self.products:
            for a, b in layer:
                a @ b


def cpu_ms(function, repeats: int) -> float:
    """Return the CPU time of the fastest call in ms, after three warm-up calls."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def compare_options(batch: Batch, repeats: int) -> None:
    """Print the cost of each option relative to plain CTC; the options run in turn."""
    steps = {n: Step("student", batch, option, use_bf16=False) for n, option in OPTIONS.items()}
    times = {name: math.inf for name in steps}
    for _ in range(repeats + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name] = min(times[name], time.process_time() - start)
    each = {name: 1000 * least / batch.num_global for name, least in times.items()}
    print("| student step | CPU ms per utterance | ratio to CTC | ratio to CTC + KD |")
    print("|---|---|---|---|")
    for name, value in each.items():
        kd = f"{value / each['CTC + KD']:.2f}" if name.startswith("...") else ""
        print(f"| {name} | {value:.3f} | {value / each['CTC']:.2f} | {kd} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--num_threads", type=int, default=1, help="CPU threads of the step (%(default)s)")
    add("--batch_size", type=int, default=64, help="utterances per batch (%(default)s)")
    add("--seconds", type=float, default=2.9, help="longest utterance in s (%(default)s)")
    add("--repeats", type=int, default=15, help="runs; the fastest one counts (%(default)s)")
    add("--options", action="store_true", help="print the cost of each option against plain CTC")
    add("--profile", action="store_true", help="also print a profile of the teacher's step")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    batch = make_batch(args.batch_size, int(100 * args.seconds) - 2)
    num_rows = int((-(-batch.feat_lengths // 3)).sum())
    print(f"batch {args.batch_size}, longest {args.seconds} s, {num_rows} valid frames of 30 ms")
    print(f"{args.num_threads} thread(s), fastest of {args.repeats} runs; CPU ms per utterance\n")
    if args.options:
        compare_options(batch, args.repeats)
        return
    print("| step | floor fp32 | step fp32 | ratio to floor | step bf16 | bf16 / fp32 |")
    print("|---|---|---|---|---|---|")
    for label, model_name, has_teacher in (
        ("teacher, CTC", "teacher", False),
        ("student, CTC", "student", False),
        ("student, CTC + KD", "student", True),
    ):
        option = Option(FULL) if has_teacher else Option()
        floor = cpu_ms(Floor(model_name, num_rows, has_teacher=has_teacher), args.repeats)
        exact, halved = (
            cpu_ms(Step(model_name, batch, option, use_bf16=b), args.repeats) for b in (False, True)
        )
        each = [value / args.batch_size for value in (floor, exact, halved)]
        print(
            f"| {label} | {each[0]:.3f} | {each[1]:.3f} | {exact / floor:.2f} "
            f"| {each[2]:.3f} | {halved / exact:.2f} |"
        )
    if args.profile:
        step = Step("teacher", batch, Option(), use_bf16=False)
        step()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


if __name__ == "__main__":
    main()
