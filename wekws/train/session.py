"""What the two training commands share: their flags, and the parts a run is built from."""

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from wekws.config import parse_section
from wekws.dataset.label_set import LabelSet
from wekws.dataset.loader import SpeechDataset, open_dataset
from wekws.dataset.vocabulary import Vocabulary
from wekws.distill.ensemble import restore_weights
from wekws.distill.objective import Objective
from wekws.errors import ConfigError
from wekws.files import read_yaml
from wekws.machine import usable_cores
from wekws.model.checkpoint import load_weights
from wekws.model.cmvn import load_cmvn
from wekws.model.model import KwsModel, ModelConfig, ignored_keys
from wekws.train.discriminator_step import Rival
from wekws.train.distributed import Process, barrier, copy_from_first
from wekws.train.ema import WeightAverage
from wekws.train.epoch_checkpoint import load_state, require_fresh
from wekws.train.learning_rate import LearningRate
from wekws.train.parameters import parameter_groups, require_plan
from wekws.train.run_folder import describe_run, require_same_inputs
from wekws.train.step import Run
from wekws.train.train_config import ExperimentConfig, changed_keys, load_experiment

logger = logging.getLogger(__name__)

CMVN_KEYS = ("global_cmvn.mean", "global_cmvn.istd")
# What a run may change between its start and its resume without becoming another run.
RESUMABLE_CHANGES = tuple(
    f"training_config.{key}" for key in ("max_epoch", "log_interval", "gradient_interval")
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that ``train`` and ``train_distill`` have in common."""
    path = Path
    parser.add_argument("--config", type=path, required=True, help="YAML of the model to train")
    parser.add_argument(
        "--overlay", type=path, action="append", default=[], help="YAML laid over it; repeatable"
    )
    parser.add_argument("--train_data", type=path, required=True, help="data.list")
    parser.add_argument("--cv_data", type=path, required=True, help="data.list of the dev split")
    parser.add_argument("--model_dir", type=path, required=True, help="folder of the run")
    parser.add_argument("--dict", type=path, required=True, help="dict.txt of the outputs")
    parser.add_argument("--lexicon", type=path, help="word to units, where letters will not do")
    parser.add_argument("--keywords_file", type=path, help="one keyword a line, for cv accuracy")
    parser.add_argument("--cmvn_file", type=path, help="global_cmvn, WeKWS's JSON or Kaldi's text")
    parser.add_argument("--cache_dir", type=path, help="feature cache [beside --train_data]")
    parser.add_argument("--checkpoint", type=path, help="weights to start from, same shapes")
    parser.add_argument("--resume", action="store_true", help="go on after the last epoch")
    parser.add_argument("--seed", type=int, default=777)
    cores = usable_cores()
    parser.add_argument("--num_workers", type=int, default=cores, help="of feature extraction")
    parser.add_argument("--num_threads", type=int, default=0, help="of the step; 0: all cores")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    parser.add_argument(
        "--override", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="change the configuration; may be given several times",
    )  # fmt: skip


def read_experiment(args: argparse.Namespace, vocabulary: Vocabulary) -> ExperimentConfig:
    """Read the configuration, sized for the vocabulary; name WeKWS's keys that change nothing."""
    experiment = load_experiment(args.config, args.override, args.overlay)
    without_effect = ignored_keys(experiment.model)
    if without_effect:
        logger.warning("model: %s: no effect on an FSMN", ", ".join(without_effect))
    return experiment.with_output_dim(vocabulary.size)


def open_data(
    args: argparse.Namespace, experiment: ExperimentConfig, outputs: LabelSet, process: Process
) -> tuple[SpeechDataset, SpeechDataset]:
    """Return train and cv sets; the first process extracts what is missing, the others wait."""
    if not process.is_first:
        barrier(process)
    cache_dir = args.cache_dir or args.train_data.parent / "cache"
    train_set, cv_set = (
        open_dataset(
            path,
            experiment.dataset_conf,
            outputs,
            cache_dir=cache_dir,
            is_training=is_training,
            seed=args.seed,
            num_workers=args.num_workers,
        )
        for path, is_training in ((args.train_data, True), (args.cv_data, False))
    )
    if process.is_first:
        barrier(process)
    return train_set, cv_set


def read_cmvn(args: argparse.Namespace, config: ModelConfig) -> tuple[Tensor, Tensor] | None:
    """Return (mean, istd) of the file that the flags, or else the configuration, name."""
    path = args.cmvn_file or config.cmvn.cmvn_file
    return load_cmvn(path, config.input_dim, config.cmvn.norm_var) if path else None


def make_model(args: argparse.Namespace, config: ModelConfig, vocabulary: Vocabulary) -> KwsModel:
    """Return the model to train: a random start from the seed, or ``--checkpoint``'s weights.

    Raises: ConfigError if there is no CMVN, or the checkpoint's dictionary or CMVN are not the
    run's.
    """
    torch.manual_seed(args.seed)
    cmvn = read_cmvn(args, config)
    if args.checkpoint is None:
        if cmvn is None:
            raise ConfigError("--cmvn_file: missing; make one with wekws.bin.compute_cmvn")
        return KwsModel(config, cmvn)
    weights = load_weights(args.checkpoint)
    require_same_vocabulary(args.checkpoint, vocabulary)
    theirs = tuple(weights.get(key) for key in CMVN_KEYS)
    if theirs[0] is None and cmvn is None:
        raise ConfigError(f"{args.checkpoint}: carries no CMVN; give its --cmvn_file")
    if theirs[0] is not None and cmvn is not None:
        source = str(args.cmvn_file or config.cmvn.cmvn_file)
        require_same_cmvn(theirs, cmvn, str(args.checkpoint), source)
    model = KwsModel(config, theirs if cmvn is None else cmvn)
    own = model.state_dict()
    model.load_weights({k: own[k] for k in CMVN_KEYS} | weights, source=str(args.checkpoint))
    logger.info("weights of %s", args.checkpoint)
    return model


def require_same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> None:
    """Compare a checkpoint's dict.txt, where it has one, with the run's.

    Raises: ConfigError naming both, if they differ.
    """
    path = checkpoint.parent / "dict.txt"
    if not path.exists():
        logger.warning("%s: no dict.txt beside it; taken to have the run's tokens", checkpoint)
        return
    other = Vocabulary.load(path)
    if other.fingerprint != vocabulary.fingerprint:
        raise ConfigError(
            f"{path}: {other.size} tokens, fingerprint {other.fingerprint}; the run's dictionary "
            f"has {vocabulary.size}, {vocabulary.fingerprint}; cut the checkpoint's output layer "
            "with `python -m wekws.bin.surgery` or train with its dictionary"
        )


def require_same_cmvn(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], first_name: str, second_name: str
) -> None:
    """Raise ConfigError if two normalisations (mean, istd) differ by more than rounding."""
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape or not torch.allclose(a.cpu(), b.cpu(), rtol=1e-4, atol=1e-5):
            raise ConfigError(
                f"{first_name} and {second_name} normalise features differently; use the CMVN "
                "that the checkpoint was trained with"
            )


def build_run(
    args: argparse.Namespace,
    process: Process,
    experiment: ExperimentConfig,
    outputs: LabelSet,
    *,
    model: KwsModel,
    teacher: KwsModel | None,
    data: tuple[SpeechDataset, SpeechDataset],
) -> Run:
    """Put a run together on its device, resume it if asked, and write what describes it.

    teacher: None for plain CTC. data: train and cv sets.
    Raises: ConfigError if the folder holds another run.
    """
    model.to(process.device)
    configs = (experiment.distill_conf, experiment.ctc_conf)
    plan = experiment.stage_plan
    if plan is not None:
        require_plan(plan, experiment.model)
    if teacher is None:
        objective = Objective(*configs, has_teacher=False, plan=plan)
    else:
        objective = Objective.between(*configs, model, teacher.to(process.device), plan)
    objective.to(process.device)
    optimizer = make_optimizer(experiment, model, objective)
    run = Run(
        process=process,
        experiment=experiment,
        model=model,
        teacher=teacher,
        objective=objective,
        optimizer=optimizer,
        learning_rate=LearningRate.of(optimizer, experiment),
        train_set=data[0],
        cv_set=data[1],
        model_dir=args.model_dir,
        seed=args.seed,
        use_bf16=args.bf16,
    )
    if experiment.training_config.ema_decay:
        run.average = WeightAverage(run.model, experiment.training_config.ema_decay)
    if objective.rivals is not None:
        run.rival = Rival(run)
    if args.resume:
        _resume(run, args, outputs)
    else:
        require_fresh(args.model_dir)
    for module in (run.model, run.kept_model, run.objective):
        copy_from_first(process, module)
    if process.is_first:
        describe_run(run, args, outputs)
    barrier(process)
    return run


def _resume(run: Run, args: argparse.Namespace, outputs: LabelSet) -> None:
    cmvn = cmvn_of(run.kept_model)
    state = load_state(run.model_dir, run.kept_model)
    if state is None:
        logger.info("%s: no finished epoch yet; starting from the beginning", run.model_dir)
        return
    path = run.model_dir / "config.yaml"
    before = parse_section(ExperimentConfig, read_yaml(path), str(path))
    resumable = RESUMABLE_CHANGES
    if before.stages or before.progressive.is_used:
        # Stages and growth are laid over the length: what is done would belong elsewhere.
        resumable = [key for key in resumable if key != "training_config.max_epoch"]
    changed = [key for key in changed_keys(before, run.experiment) if key not in resumable]
    if changed:
        raise ConfigError(
            f"{path}: the run to resume differs in {', '.join(changed)}; restore these or start "
            "another --model_dir"
        )
    require_same_vocabulary(path, outputs.vocabulary)
    require_same_inputs(run, args)
    require_same_cmvn(
        cmvn_of(run.kept_model), cmvn, f"{run.model_dir}: the run to resume", "what it is given now"
    )
    restore_weights(run.teacher, state.get("teacher_weights", []))
    if run.average is not None:
        run.model.load_state_dict(state["raw_model"])
    run.objective.load_state_dict(state["objective"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.learning_rate.load_state_dict(state["learning_rate"])
    if run.rival is not None:
        run.rival.load_state_dict(state["rival"])
    run.start_epoch, run.step = state["epoch"] + 1, state["step"]
    logger.info("%s: going on with epoch %d", run.model_dir, run.start_epoch)


def cmvn_of(model: KwsModel) -> tuple[Tensor, Tensor]:
    """Return copies of a model's (mean, istd)."""
    state = model.state_dict()
    return tuple(state[key].clone() for key in CMVN_KEYS)


def make_optimizer(
    experiment: ExperimentConfig, model: nn.Module, objective: Objective
) -> torch.optim.Optimizer:
    """Return Adam(W), one fused step a group of parameters; see ``parameter_groups``."""
    conf = experiment.optim_conf
    groups = parameter_groups(experiment.stage_plan, model, objective)
    rule = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[experiment.optim]
    return rule(groups, lr=conf.lr, weight_decay=conf.weight_decay, fused=True)
