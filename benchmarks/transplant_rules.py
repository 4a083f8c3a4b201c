"""How near to its teacher a student starts, by transplant rule: cv loss before the first step.

    python benchmarks/transplant_rules.py --config conf/fsmn_ctc_student_mini.yaml \
        --teacher_checkpoint exp/synth_small/teacher/final.pt \
        --train_data data/synth_small/train/data.list --cv_data data/synth_small/dev/data.list \
        --dict data/synth_small/dict/dict.txt --keywords_file data/synth_small/dict/keywords.txt \
        --cache_dir data/synth_small/cache --model_dir /tmp/unused --blocks 0 1 3 \
        --base_checkpoint exp/synth_small/base/final.pt

Prints Markdown. ``random`` and ``constant`` (the best output that ignores its input, the
teacher's mean posterior at every frame) are what a rule is measured against.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch

from wekws.bin.train_distill import load_teacher
from wekws.dataset.label_set import Outputs, read_outputs
from wekws.dataset.loader import SpeechDataset
from wekws.distill.objective import Objective
from wekws.distill.transplant import Sample, TransplantConfig, transplant
from wekws.distill.transplant.sample import trace
from wekws.log import run as run_command
from wekws.model.model import KwsModel
from wekws.train import distributed, session
from wekws.train.step import Run, evaluate
from wekws.train.student_init import draw_sample, load_source, random_student
from wekws.train.train_config import ExperimentConfig

Rule = dict[str, object]
ACTIVATION: Rule = {"channels": "activation"}
PAIRS: Rule = {**ACTIVATION, "pairs": "data_svd"}
QUICK: Rule = {**PAIRS, "compensation": "least_squares", "head": "project"}
FITTED: Rule = {**PAIRS, "compensation": "sequential", "head": "project"}
RULES: dict[str, Rule] = {
    "first": {},
    "uniform": {"channels": "uniform"},
    "activation": ACTIVATION,
    "first, svd": {"pairs": "svd"},
    "activation, svd": {**ACTIVATION, "pairs": "svd"},
    "activation, data_svd": PAIRS,
    "first, mean": {"compensation": "mean"},
    "activation, data_svd, mean": {**PAIRS, "compensation": "mean"},
    "first, slice, least_squares": {"compensation": "least_squares"},
    "activation, data_svd, least_squares": {**PAIRS, "compensation": "least_squares"},
    "first, projected head only": {"head": "project"},
    "activation, data_svd, least_squares, projected head": QUICK,
    "activation, data_svd, sequential": {**PAIRS, "compensation": "sequential"},
    "activation, data_svd, sequential, projected head": FITTED,
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the flags of training, and what is compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    session.add_arguments(parser)
    parser.add_argument("--teacher_checkpoint", type=Path, required=True)
    parser.add_argument("--teacher_config", type=Path)
    parser.add_argument("--base_checkpoint", default="", help="a source with another vocabulary")
    parser.add_argument("--seeds", type=int, nargs="+", default=[777, 1, 2])
    parser.add_argument("--blocks", type=int, nargs="+", help="block map of the mapped rows")
    parser.add_argument("--only", default="", help="rules whose name holds this text")
    return parser.parse_args(argv)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """What a comparison is made of."""

    args: argparse.Namespace
    experiment: ExperimentConfig
    outputs: Outputs
    process: distributed.Process
    teacher: KwsModel
    data: tuple[SpeechDataset, SpeechDataset]

    def cv_loss(self, model: KwsModel) -> float:
        run = Run(
            process=self.process,
            experiment=self.experiment,
            model=model,
            teacher=None,
            objective=Objective(self.experiment.distill_conf, has_teacher=False),
            optimizer=None,
            learning_rate=None,
            train_set=self.data[0],
            cv_set=self.data[1],
            model_dir=self.args.model_dir,
            seed=self.args.seed,
        )
        return evaluate(run, model)["cv_loss"]

    def random(self, seed: int) -> KwsModel:
        return random_student(seed, self.experiment, self.teacher)

    def sample(self, source: KwsModel, num_batches: int, seed: int) -> Sample:
        return draw_sample(source, self.experiment, self.data[0], num_batches, seed)

    def constant(self) -> KwsModel:
        sample = self.sample(self.teacher, TransplantConfig().num_batches, self.args.seed)
        seen = trace(self.teacher.backbone, sample.rows, sample.packing(self.teacher))
        model = self.random(self.args.seed).requires_grad_(False)
        head = model.backbone.out_linear2.linear
        head.weight.zero_()
        head.bias.copy_(seen.logits.softmax(dim=-1).mean(dim=0).log())
        return model

    def transplanted(self, rule: Rule, seed: int) -> tuple[float, float]:
        """Return cv loss and seconds of one transplant. seed: of the sample."""
        config = TransplantConfig(**rule)
        vocabulary = self.outputs.vocabulary
        started = time.monotonic()
        source = load_source(config, self.experiment, vocabulary, self.teacher)
        sample = self.sample(source, config.num_batches, seed) if config.needs_data else None
        student = self.random(seed)
        transplant(student, source, config, sample, self.teacher)
        seconds = time.monotonic() - started
        return self.cv_loss(student), seconds


def rules_of(args: argparse.Namespace) -> dict[str, tuple[Rule, list[int]]]:
    """Return each rule with the sample seeds that it is measured with."""
    rules = {name: (rule, args.seeds[:1]) for name, rule in RULES.items()}
    mapped = {"blocks": tuple(args.blocks)} if args.blocks else {}
    where = f"blocks {' '.join(map(str, args.blocks))}" if args.blocks else "blocks in order"
    quick, fitted = {**QUICK, **mapped}, {**FITTED, **mapped}
    rules[f"{where}: least_squares, projected head"] = (quick, args.seeds)
    if args.base_checkpoint:
        base = {"source": args.base_checkpoint}
        rules["from the base: first"] = (base, args.seeds[:1])
        name = f"from the base, {where}: least_squares, projected head"
        rules[name] = ({**quick, **base}, args.seeds[:1])
    rules[f"{where}: sequential, projected head"] = (fitted, args.seeds[:2])
    more = {**fitted, "num_batches": 2 * TransplantConfig().num_batches}
    rules[f"{where}: sequential, projected head, twice the data"] = (more, args.seeds[:1])
    return {name: rule for name, rule in rules.items() if args.only in name}


def main(argv: list[str] | None = None) -> int:
    """Measure the references, then each rule; one row each."""
    args = parse_arguments(argv)
    process = distributed.start("cpu", args.num_threads)
    outputs = read_outputs(args)
    experiment = session.read_experiment(args, outputs.vocabulary)
    teacher = load_teacher(args, experiment, outputs)
    data = session.open_data(args, experiment, outputs, process)
    bench = Bench(
        args=args, experiment=experiment, outputs=outputs, process=process, teacher=teacher,
        data=data,
    )  # fmt: skip
    random = [bench.cv_loss(bench.random(seed)) for seed in args.seeds]
    constant, end = bench.cv_loss(bench.constant()), bench.cv_loss(teacher)
    first = sum(random) / len(random)
    print("| start | cv loss | gap to random closed | gap to constant closed | seconds |")
    print("|---|---|---|---|---|")

    def row(name: str, losses: list[float], seconds: float | None = None) -> None:
        mean = sum(losses) / len(losses)
        shares = [f"{100 * (top - mean) / (top - end):.1f} %" for top in (first, constant)]
        spread = f" ({min(losses):.2f} to {max(losses):.2f})" if len(losses) > 1 else ""
        took = "" if seconds is None else f"{seconds:.0f}"
        print(f"| {name} | {mean:.2f}{spread} | {' | '.join(shares)} | {took} |", flush=True)

    row("random", random)
    row("constant output", [constant])
    for name, (rule, seeds) in rules_of(args).items():
        results = [bench.transplanted(rule, seed) for seed in seeds]
        row(name, [loss for loss, _ in results], results[0][1])
    row("teacher", [end])
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(run_command(main))
