"""Cv loss of a student before its first step, for every rule of the transplant.

    python benchmarks/transplant_rules.py --config conf/fsmn_ctc_student_mini.yaml \
        --teacher_checkpoint exp/synth_small/teacher/final.pt \
        --train_data data/synth_small/train/data.list --cv_data data/synth_small/dev/data.list \
        --dict data/synth_small/dict/dict.txt --keywords_file data/synth_small/dict/keywords.txt \
        --cache_dir data/synth_small/cache --num_threads 1 \
        --blocks 0 1 3 --base_checkpoint exp/synth_small/base/final.pt

Prints Markdown: cv loss and two ratios, the shares of the gap to the teacher that a rule closes,
from a random start and from the best constant output (the teacher's mean posterior at every frame).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from wekws.dataset.dataset_conf import load_dataset_config
from wekws.dataset.features import expand_context
from wekws.dataset.label_set import LabelSet
from wekws.dataset.loader import batches
from wekws.dataset.opening import open_dataset
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.dataset.vocabulary import Vocabulary
from wekws.distill.output_surgery import select_outputs
from wekws.distill.transplant import TransplantConfig, transplant
from wekws.distill.transplant.sample import compute_activations, draw_sample
from wekws.log import run as run_command
from wekws.model.checkpoint import load_model, model_of
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig, read_model_config

FIRST = TransplantConfig()
ACTIVATION = TransplantConfig(channels="activation")
PAIRS = replace(ACTIVATION, pairs="data_svd")
LEAST_SQUARES = replace(PAIRS, compensation="least_squares")
SEQUENTIAL = replace(PAIRS, compensation="sequential")
QUICK = replace(LEAST_SQUARES, head="project")
FITTED = replace(SEQUENTIAL, head="project")
RULES = {
    "first": FIRST,
    "uniform": replace(FIRST, channels="uniform"),
    "activation": ACTIVATION,
    "first, svd": replace(FIRST, pairs="svd"),
    "activation, svd": replace(ACTIVATION, pairs="svd"),
    "activation, data_svd": PAIRS,
    "first, mean": replace(FIRST, compensation="mean"),
    "activation, data_svd, mean": replace(PAIRS, compensation="mean"),
    "first, slice, least_squares": replace(FIRST, compensation="least_squares"),
    "activation, data_svd, least_squares": LEAST_SQUARES,
    "first, projected head only": replace(FIRST, head="project"),
    "activation, data_svd, least_squares, projected head": QUICK,
    "activation, data_svd, sequential": SEQUENTIAL,
    "activation, data_svd, sequential, projected head": FITTED,
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    path = Path
    parser.add_argument("--config", type=path, required=True, help="YAML of the student")
    parser.add_argument(
        "--teacher_checkpoint", type=path, required=True, help="weights of the teacher"
    )
    parser.add_argument(
        "--teacher_config", type=path, help="[config.yaml beside the teacher's checkpoint]"
    )
    parser.add_argument(
        "--base_checkpoint", type=path,
        help="another model to start from, with its dict.txt beside it; its vocabulary may differ",
    )  # fmt: skip
    parser.add_argument("--train_data", type=path, required=True, help="data.list to sample from")
    parser.add_argument("--cv_data", type=path, required=True, help="data.list for the cv loss")
    parser.add_argument("--dict", type=path, required=True, help="dict.txt of the teacher")
    parser.add_argument("--lexicon", type=path, help="pronunciation lexicon (WORD unit unit ...)")
    parser.add_argument("--keywords_file", type=path, help="keywords, one per line")
    parser.add_argument("--cache_dir", type=path, help="feature cache [beside --train_data]")
    parser.add_argument("--num_workers", type=int, default=1, help="feature extraction processes")
    parser.add_argument("--num_threads", type=int, default=1, help="CPU threads for the fits")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[777, 1, 2],
        help="seeds of the random starts and of the samples of training data [777 1 2]",
    )  # fmt: skip
    parser.add_argument("--blocks", type=int, nargs="+", help="block map of the mapped rows")
    parser.add_argument("--only", default="", help="only rules whose name contains this text")
    return parser.parse_args(argv)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything that a rule is measured with."""

    config: ModelConfig
    """The student."""
    vocabulary: Vocabulary
    """Tokens of teacher and student."""
    teacher: KwsModel
    """The model whose cv loss closes the gap."""
    train_set: SpeechDataset
    """Utterances to sample from."""
    cv_set: SpeechDataset
    """Utterances of the cv loss."""
    seed: int
    """Seed of the sample for the constant output."""

    def cv_loss(self, model: KwsModel) -> float:
        """Return CTC in nats per utterance."""
        total = 0.0
        dataset_conf = self.cv_set.config
        for batch in batches(self.cv_set, batch_size=dataset_conf.batch_conf.batch_size):
            inputs, lengths = expand_context(
                batch.feats, batch.feat_lengths, dataset_conf.front_end
            )
            log_probs = model(inputs, lengths).log_softmax(dim=-1).transpose(0, 1)
            labels = (batch.labels, lengths, batch.label_lengths)
            total += float(F.ctc_loss(log_probs, *labels, reduction="sum"))
        return total / len(self.cv_set)

    def random(self, seed: int) -> KwsModel:
        torch.manual_seed(seed)
        return KwsModel(self.config, self.teacher.cmvn).eval()

    def constant(self) -> KwsModel:
        """Return a model that gives the teacher's mean posterior at every frame."""
        num_batches = FIRST.num_batches
        sample = draw_sample(self.teacher, self.train_set, num_batches=num_batches, seed=self.seed)
        packing = sample.packing(self.teacher)
        logits = compute_activations(self.teacher.backbone, sample.rows, packing).logits
        model = self.random(self.seed).requires_grad_(False)
        head = model.backbone.out_linear2.linear
        head.weight.zero_()
        head.bias.copy_(logits.softmax(dim=-1).mean(dim=0).log())
        return model

    def source(self, rule: TransplantConfig) -> KwsModel:
        if not rule.source:
            return self.teacher
        base, path = load_model(rule.source), Path(rule.source).parent / "dict.txt"
        state = select_outputs(base.state_dict(), Vocabulary.load(path), self.vocabulary)
        config = base.config.with_output_dim(self.vocabulary.size)
        return model_of(config, state, source=rule.source)

    def transplanted(self, rule: TransplantConfig, seed: int) -> tuple[float, float]:
        """Return cv loss and seconds of one transplant. seed: of the sample."""
        started = time.monotonic()
        source, sample = self.source(rule), None
        if rule.needs_data:
            sample = draw_sample(source, self.train_set, num_batches=rule.num_batches, seed=seed)
        student = self.random(seed)
        transplant(student, source, rule, sample=sample, teacher=self.teacher)
        seconds = time.monotonic() - started
        return self.cv_loss(student), seconds


def make_bench(args: argparse.Namespace) -> Bench:
    label_set = LabelSet.load(args.dict, lexicon=args.lexicon, keywords_file=args.keywords_file)
    dataset_conf = load_dataset_config(args.config)
    train_set, cv_set = (
        open_dataset(
            path,
            dataset_conf,
            label_set,
            cache_dir=args.cache_dir or args.train_data.parent / "cache",
            is_training=is_training,
            seed=args.seeds[0],
            num_workers=args.num_workers,
        )
        for path, is_training in ((args.train_data, True), (args.cv_data, False))
    )
    return Bench(
        config=read_model_config(args.config).with_output_dim(label_set.size),
        vocabulary=label_set.vocabulary,
        teacher=load_model(args.teacher_checkpoint, args.teacher_config),
        train_set=train_set,
        cv_set=cv_set,
        seed=args.seeds[0],
    )


def rules_of(args: argparse.Namespace) -> dict[str, tuple[TransplantConfig, list[int]]]:
    """Return each rule with the sample seeds that it is measured with."""
    rules = {name: (rule, args.seeds[:1]) for name, rule in RULES.items()}
    blocks = tuple(args.blocks or ())
    where = f"blocks {' '.join(map(str, blocks))}" if blocks else "blocks in order"
    quick, fitted = replace(QUICK, blocks=blocks), replace(FITTED, blocks=blocks)
    rules[f"{where}: least_squares, projected head"] = (quick, args.seeds)
    if args.base_checkpoint:
        base = str(args.base_checkpoint)
        rules["from the base: first"] = (replace(FIRST, source=base), args.seeds[:1])
        name = f"from the base, {where}: least_squares, projected head"
        rules[name] = (replace(quick, source=base), args.seeds[:1])
    rules[f"{where}: sequential, projected head"] = (fitted, args.seeds[:2])
    more = replace(fitted, num_batches=2 * fitted.num_batches)
    rules[f"{where}: sequential, projected head, twice the data"] = (more, args.seeds[:1])
    return {name: rule for name, rule in rules.items() if args.only in name}


def print_row(
    name: str, losses: Sequence[float], gaps: Sequence[float], end: float, seconds: str = ""
) -> None:
    """Print a table row. gaps: losses that the gaps to the teacher's, ``end``, begin at."""
    mean = sum(losses) / len(losses)
    shares = " | ".join(f"{100 * (top - mean) / (top - end):.1f} %" for top in gaps)
    spread = f" ({min(losses):.2f} to {max(losses):.2f})" if len(losses) > 1 else ""
    print(f"| {name} | {mean:.2f}{spread} | {shares} | {seconds} |", flush=True)


@torch.no_grad()
def main(argv: list[str] | None = None) -> int:
    """Measure the references, then each rule; one row each."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.num_threads)
    bench = make_bench(args)
    random = [bench.cv_loss(bench.random(seed)) for seed in args.seeds]
    constant, end = bench.cv_loss(bench.constant()), bench.cv_loss(bench.teacher)
    gaps = (sum(random) / len(random), constant)
    print("| start | cv loss | gap to random closed | gap to constant closed | seconds |")
    print("|---|---|---|---|---|")
    print_row("random", random, gaps, end)
    print_row("constant output", [constant], gaps, end)
    for name, (rule, seeds) in rules_of(args).items():
        results = [bench.transplanted(rule, seed) for seed in seeds]
        losses = [loss for loss, _ in results]
        print_row(name, losses, gaps, end, f"{results[0][1]:.0f}")
    print_row("teacher", [end], gaps, end)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
