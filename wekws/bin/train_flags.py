"""The flags that the two training commands share, and the options made of them."""

import argparse
import logging
from pathlib import Path
from typing import Any

from wekws.machine import usable_cores
from wekws.model.model import num_parameters, skeleton
from wekws.model.model_conf import config_beside, read_model_config
from wekws.runlog.trackers import trackers_from_text
from wekws.train.fake_quant import FINE_TUNING_LR
from wekws.train.options import TrainOptions
from wekws.train.train_config import load_distill_config

logger = logging.getLogger(__name__)


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that ``train`` and ``train_distill`` have in common."""
    add, path = parser.add_argument, Path
    add("--config", type=path, required=True, help="YAML of the model to train")
    add(
        "--overlay", type=path, action="append", default=[],
        help="YAML laid over the configuration; may be given several times",
    )  # fmt: skip
    add("--train_data", type=path, required=True, help="data.list of the training set")
    add("--cv_data", type=path, required=True, help="data.list of the dev set")
    add("--model_dir", type=path, required=True, help="folder of the run")
    add("--dict", type=path, required=True, help="dict.txt of the model's outputs")
    add("--lexicon", type=path, help="pronunciation lexicon (WORD unit unit ...)")
    add(
        "--keywords_file", type=path,
        help="keywords, one per line, for the dev accuracy on keywords",
    )  # fmt: skip
    add("--cmvn_file", type=path, help="global_cmvn, WeKWS's JSON or Kaldi's text")
    add("--cache_dir", type=path, help="feature cache [the folder cache beside --train_data]")
    add(
        "--feature_teacher", default="", metavar="YAML|BUNDLE",
        help="frozen model whose outputs are targets, see distill_conf.embedding: a description "
        "such as conf/feature_teachers/speech_embedding.yaml, or a bundle of "
        "torchaudio.pipelines, NAME or NAME:LAYER",
    )  # fmt: skip
    add("--checkpoint", type=path, help="weights to start from, of the same sizes")
    add("--resume", action="store_true", help="continue after the last finished epoch")
    add("--seed", type=int, default=777, help="seed of weights, order and masks [%(default)s]")
    add(
        "--num_workers", type=int, default=usable_cores(),
        help="processes that extract features; 0 = this process [all cores]",
    )  # fmt: skip
    add("--num_threads", type=int, default=0, help="CPU threads for training; 0 = all cores")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="[%(default)s]")
    add("--bf16", action="store_true", help="matrix products in bfloat16")
    add(
        "--tracker", default="tensorboard", metavar="NAME,NAME",
        help="services that show the run: tensorboard | wandb | swanlab | none [%(default)s]",
    )  # fmt: skip
    add(
        "--fake_quant", action="store_true",
        help="round weights and activations as int8 does, to fine-tune the model of --checkpoint "
        f"that loses in int8; the learning rate is then {FINE_TUNING_LR:g}, whatever configuration "
        "and overlays say, unless --override optim_conf.lr=VALUE sets it",
    )  # fmt: skip
    add(
        "--override", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="change the configuration; may be given several times",
    )  # fmt: skip


def train_options(
    args: argparse.Namespace,
    *,
    alpha: str | None = None,
    temperature: str | None = None,
    **more: Any,
) -> TrainOptions:
    """Return the options that the flags describe.

    alpha, temperature: of ``distill_conf``, on top of the files. more: fields of the options that
    only one command has flags for.
    """
    low_rate = [f"optim_conf.lr={FINE_TUNING_LR:g}"] if args.fake_quant else []
    config = load_distill_config(
        args.config, [*low_rate, *args.override], args.overlay, alpha=alpha, temperature=temperature
    )
    if args.fake_quant:
        logger.info(
            "--fake_quant: learning rate %g; --override optim_conf.lr=VALUE sets another",
            config.optim_conf.lr,
        )
    return TrainOptions(
        config=config,
        train_data=args.train_data,
        cv_data=args.cv_data,
        model_dir=args.model_dir,
        dict_path=args.dict,
        lexicon=args.lexicon,
        keywords_file=args.keywords_file,
        cmvn_file=args.cmvn_file,
        cache_dir=args.cache_dir,
        feature_teacher=args.feature_teacher,
        checkpoint=args.checkpoint,
        resume=args.resume,
        seed=args.seed,
        num_workers=args.num_workers,
        num_threads=args.num_threads,
        device=args.device,
        use_bf16=args.bf16,
        trackers=trackers_from_text(args.tracker),
        use_fake_quant=args.fake_quant,
        **more,
    )


def print_trained(checkpoint: Path) -> None:
    """Print a checkpoint's path and its number of parameters."""
    config = read_model_config(config_beside(checkpoint))
    print(f"{checkpoint}: {num_parameters(skeleton(config)):,} parameters")
