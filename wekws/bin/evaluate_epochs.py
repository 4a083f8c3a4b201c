"""Score several epochs of a run: FRR by epoch, the mean of the five best, the best as best_frr.pt.

evaluate.sh --epochs calls it.
"""

import argparse
import sys
from pathlib import Path

from wekws.bin.threshold_flags import add_threshold_flags, threshold_options
from wekws.decode.duration import max_duration_from_text
from wekws.log import run
from wekws.plot.epochs import plot_epochs
from wekws.report.document import to_markdown
from wekws.report.epoch_review import (
    best_epochs,
    chosen_epochs,
    epoch_blocks,
    review_epochs,
    write_epoch_review,
)
from wekws.score.det import budgets_from_text
from wekws.score.evaluation_plan import plan_evaluation
from wekws.score.results import headline_budget, read_result
from wekws.score.scoring import DECODERS, score_list
from wekws.score.summary import summarise


def main(argv: list[str] | None = None) -> int:
    """Score what is not scored yet, write table and figure, print the table."""
    args = _parser().parse_args(argv)
    epochs = chosen_epochs(args.model_dir, args.epochs)
    for epoch in epochs:
        _evaluate(args, args.model_dir / f"{epoch}.pt")
    tag = "" if args.decoder == "keyword" else f"_{args.decoder}"
    first = args.model_dir / f"{args.dataset}_{epochs[0]}{tag}"
    budget = headline_budget([read_result("first", first)])
    scores = review_epochs(args.model_dir, epochs, args.dataset, tag, budget)
    out_dir = args.model_dir / f"epochs_{args.dataset}{tag}"
    best_path = write_epoch_review(scores, args.model_dir, out_dir, budget)
    rates: list[tuple[str, list[float | None]]] = [(args.dataset, [score.frr for score in scores])]
    if args.dataset != "dev":
        rates.append(("dev", [score.dev_frr for score in scores]))
    best = [score.epoch for score in best_epochs(scores)]
    plot_epochs(epochs, rates, best, out_dir / "epochs.png", budget)
    print(to_markdown(epoch_blocks(scores, budget), out_dir))
    print(f"{out_dir}/epochs.png\n{best_path}: epoch {best[0]}")
    return 0


def _evaluate(args: argparse.Namespace, checkpoint: Path) -> None:
    duration = max_duration_from_text(args.max_duration_s)
    plan = plan_evaluation(
        checkpoint,
        dataset=args.dataset,
        lists=args.lists,
        decoder=args.decoder,
        budgets=args.budgets,
        max_duration_s=duration,
        options=threshold_options(args),
    )
    todo = [(args.dataset, plan.result_dir, plan.is_scored)]
    if plan.dev_dir is not None:
        todo.append(("dev", plan.dev_dir, plan.is_dev_scored))
    for name, folder, is_done in todo:
        if not is_done:
            score_list(
                checkpoint,
                plan.lists / name / "data.list",
                folder,
                decoder=args.decoder,
                cache_dir=args.cache_dir,
                batch_size=args.batch_size,
                max_duration_s=duration,
                num_workers=args.num_workers,
                device=args.device,
            )
    summarise(
        plan.result_dir,
        dev_result_dir=plan.dev_dir,
        budgets=budgets_from_text(args.budgets),
        options=threshold_options(args),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model_dir", type=Path, required=True, help="folder of the run")
    add("--epochs", default="all", help="FIRST-LAST, such as 60-79, or all [%(default)s]")
    add("--dataset", choices=("test", "dev"), default="test", help="set to report on [%(default)s]")
    add("--lists", type=Path, help="folder of dev/ and test/ [that of the run's training list]")
    add("--cache_dir", type=Path, help="folder of cached features [beside each list]")
    add("--budgets", default="0.5,1", help="false alarms per hour [%(default)s]")
    add_threshold_flags(parser)
    add("--decoder", choices=DECODERS, default="keyword", help="decoder [%(default)s]")
    add(
        "--max_duration_s", default="auto",
        help="longest duration of a keyword in seconds; 0 = no limit [%(default)s]",
    )  # fmt: skip
    add("--batch_size", type=int, default=256, help="most utterances per batch [%(default)s]")
    add("--num_workers", type=int, default=0, help="processes for extraction [%(default)s]")
    add("--device", default="auto", help="auto | cpu | cuda [%(default)s]")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
