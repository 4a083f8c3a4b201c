"""List the presets with size, cost and training time, ask which one to train, or compare runs.

python -m wekws.bin.presets list --lists data/synth_small
python -m wekws.bin.presets show --preset balanced
python -m wekws.bin.presets results --exp_dir exp/synth_small

`results` makes one table of the presets that run_distill.sh (--preset NAME, and with another --seed
--student_name student_NAME_2) or conf/ablation/presets.yaml has trained.
"""

import argparse
import sys
from pathlib import Path

from wekws.dataset.vocabulary import Vocabulary
from wekws.errors import ConfigError
from wekws.log import run
from wekws.machine import threads_of_process
from wekws.model.model_conf import read_model_config
from wekws.report.document import Block, to_markdown
from wekws.score.det import budgets_from_text
from wekws.sweep.preset_files import preset_paths, preset_purpose
from wekws.sweep.preset_info import (
    PresetContext,
    choose,
    format_presets,
    preset_info,
    preset_infos,
    preset_row,
    read_corpus,
)
from wekws.sweep.preset_results import find_preset_runs, preset_results_blocks
from wekws.sweep.step_time import StepTimer
from wekws.train import distributed
from wekws.train.train_config import load_train_config


def main(argv: list[str] | None = None) -> int:
    """Measure and print; ``ask`` prints only the chosen name to standard output."""
    args = _parser().parse_args(argv)
    paths = preset_paths(args.preset_dir)
    if args.what == "show" and args.preset not in paths:
        raise ConfigError(f"--preset {args.preset}: expected one of {', '.join(paths)}")
    if args.what == "results":
        print(to_markdown(_results(args, list(paths)), Path()), end="")
        return 0
    if args.what == "ask" and not sys.stdin.isatty():
        raise ConfigError(
            f"--preset ask: no terminal to ask on; name one of {', '.join(paths)} instead"
        )
    threads = threads_of_process(args.num_threads, args.num_processes)
    device = distributed.start(args.device, threads).device
    context = read_context(args)
    with StepTimer(device, num_processes=args.num_processes, num_threads=args.num_threads) as timer:
        if args.what == "show":
            info = preset_info(args.preset, paths[args.preset], context, timer)
            print("\n".join(f"{name:<15}{value}" for name, value in preset_row(info).items()))
            return 0
        infos = preset_infos(args.preset_dir, context, timer)
    purposes = {name: preset_purpose(path) for name, path in paths.items()}
    if args.what == "list":
        print(format_presets(infos, purposes))
        return 0
    _say(format_presets(infos, purposes) + "\n\n")
    print(choose([info.name for info in infos], sys.stdin.readline, _say))
    return 0


def read_context(args: argparse.Namespace) -> PresetContext:
    """Return the models and the corpus that the flags name.

    The number of tokens is that of the corpus's dictionary if there is one, otherwise
    ``--num_tokens``, otherwise the teacher's.
    """
    teacher, num_tokens = read_model_config(args.teacher_config), args.num_tokens
    dict_path = args.lists / "dict" / "dict.txt" if args.lists else None
    if dict_path is not None and dict_path.exists():
        num_tokens = Vocabulary.load(dict_path).size
    if not num_tokens:
        num_tokens = teacher.output_dim
    if num_tokens < 1:
        raise ConfigError(f"{args.teacher_config}: model.output_dim: not set; give --num_tokens")
    corpus = read_corpus(args.lists, args.lexicon) if args.lists else None
    first = None
    if not args.teacher_is_given:
        first = load_train_config(args.teacher_config, overlays=args.overlay)
    return PresetContext(
        student_config=args.student_config,
        overlays=tuple(args.overlay),
        teacher=teacher,
        num_tokens=num_tokens,
        corpus=corpus,
        first_config=first,
        base_epochs=args.base_epochs,
        teacher_epochs=args.teacher_epochs,
    )


def _results(args: argparse.Namespace, presets: list[str]) -> list[Block]:
    if args.exp_dir is None:
        raise ConfigError("results: needs --exp_dir, the folder with the presets' runs")
    budgets = budgets_from_text(args.budget, "--budget")
    if len(budgets) != 1:
        raise ConfigError(f"--budget {args.budget}: expected one number of false alarms per hour")
    found = find_preset_runs(args.exp_dir, presets, args.dataset)
    return preset_results_blocks(found, presets, budgets[0])


def _say(text: str) -> None:
    """Print to standard error: standard output carries the answer alone."""
    print(text, end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "what", choices=("list", "show", "ask", "results"),
        help="list: a table of all presets; show: one of them; ask: let the user choose; results: "
        "a table of those that are trained and scored",
    )  # fmt: skip
    add("--preset", help="name of the preset to show")
    add(
        "--preset_dir", type=Path, default=Path("conf/presets"),
        help="folder of the presets [%(default)s]",
    )  # fmt: skip
    add(
        "--student_config", type=Path, default=Path("conf/fsmn_ctc_student_mini.yaml"),
        help="configuration that a preset changes [%(default)s]",
    )  # fmt: skip
    add(
        "--overlay", type=Path, action="append", default=[],
        help="YAML laid over --student_config before the preset; may be repeated",
    )  # fmt: skip
    add(
        "--teacher_config", type=Path, default=Path("conf/fsmn_ctc_teacher.yaml"),
        help="configuration with the teacher's sizes [%(default)s]",
    )  # fmt: skip
    add(
        "--teacher_is_given", action="store_true",
        help="base and teacher are not trained: leave them out of the whole time",
    )  # fmt: skip
    for model in ("base", "teacher"):
        add(
            f"--{model}_epochs", type=int,
            help=f"epochs of the {model} [those of the preset, or of --teacher_config]",
        )  # fmt: skip
    add(
        "--num_tokens", type=int, default=0,
        help="outputs of both models [size of the dictionary in --lists, else the teacher's]",
    )  # fmt: skip
    add(
        "--exp_dir", type=Path,
        help="results: exp/NAME of run_distill.sh, or the folder of an ablation over the presets",
    )  # fmt: skip
    add("--dataset", default="test", help="results: the scored set in exp/NAME [%(default)s]")
    add("--budget", default="1", help="results: false alarms per hour [%(default)s]")
    add("--lists", type=Path, help="data/NAME, whose utterances are counted [1,000 short commands]")
    add("--lexicon", type=Path, help="pronunciations, `WORD unit unit ...`")
    add(
        "--num_threads", type=int, default=0,
        help="CPU threads of each training process; 0 = its share of the cores",
    )  # fmt: skip
    add("--num_processes", type=int, default=1, help="training processes [%(default)s]")
    add(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="device of a measured step [%(default)s]",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
