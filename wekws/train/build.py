"""A training run, built from its options: data, teachers, model, loss, optimiser, resume.

``train_model`` reads like the table of contents; what it calls is below it, in the same order.
"""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wekws.config import to_mapping
from wekws.dataset.label_set import LabelSet
from wekws.dataset.opening import open_dataset
from wekws.dataset.speech_dataset import SpeechDataset
from wekws.distill.ensemble import TeacherEnsemble, TeachersConfig
from wekws.distill.methods import build_hooks, build_objective
from wekws.distill.transplant import TransplantConfig
from wekws.errors import ConfigError, DataError
from wekws.files import hold_folder
from wekws.machine import has_bf16_instructions
from wekws.model.checkpoint import load_model
from wekws.model.cmvn import load_cmvn
from wekws.model.model import KwsModel
from wekws.model.model_conf import ModelConfig, config_beside, ignored_keys
from wekws.runlog.metrics_writer import MetricsWriter
from wekws.train import distributed
from wekws.train.compatibility import (
    Cmvn,
    require_same_cmvn,
    require_same_front_end,
    require_same_vocabulary,
)
from wekws.train.distributed import Process, barrier, copy_from_first
from wekws.train.epoch_checkpoint import (
    load_epoch,
    read_state,
    require_fresh,
    unusable_state,
)
from wekws.train.fake_quant import add_fake_quant
from wekws.train.learning_rate import LearningRate
from wekws.train.loop import Run, fit
from wekws.train.optimizer import make_optimizer, require_modules
from wekws.train.options import TrainOptions
from wekws.train.run_record import RunRecord, changed_settings, write_run_files
from wekws.train.student_init import (
    fill_from_teacher,
    log_reports,
    model_from_checkpoint,
    random_model,
)
from wekws.train.train_config import TrainConfig

logger = logging.getLogger(__name__)


def train_model(options: TrainOptions) -> Path:
    """Train a model, or distil a student from the teachers of ``options``.

    Returns: the checkpoint of the last epoch, ``final.pt``.
    Raises: ConfigError or DataError before the first step if the parts do not fit together, or
    the folder holds another run or is in use.
    """
    process = distributed.start(options.device, options.num_threads)
    with hold_folder(options.model_dir) if process.is_first else contextlib.nullcontext():
        run = build_run(options, process)
        fit(run)
    distributed.stop(process)
    return options.model_dir / "final.pt"


def build_run(options: TrainOptions, process: Process) -> Run:
    """Build a run on its device, resume it if asked, and write the files that describe it."""
    labels = LabelSet.load(
        options.dict_path, lexicon=options.lexicon, keywords_file=options.keywords_file
    )
    config = options.config.with_output_dim(labels.size)
    warn_of_idle_settings(config, options)
    if options.use_bf16 and process.device.type == "cpu" and not has_bf16_instructions():
        logger.warning(
            "--bf16: this CPU has no instructions for bfloat16 and computes it slower than "
            "float32; leave it out"
        )
    state = read_state(options.model_dir) if options.resume else None
    if not options.resume:
        require_fresh(options.model_dir)
    teachers = load_teachers(options, config, labels)
    data = open_data(options, config, labels, process)
    record = RunRecord.of(options, config, labels, *data, process)
    if state is not None:
        require_same_run(options, config, labels, record)
        require_enough_epochs(options.model_dir, state["epoch"] + 1, config)
    data = data[0], without_unseen_tokens(options.cv_data, data[1], data[0])

    teacher = mix_teachers(teachers)
    # A student that grows has, on disk, the depth of its last finished epoch.
    start_config = config.at_epoch(0 if state is None else state["epoch"], teacher)
    model = make_model(options, start_config, labels, teacher)
    reports = []
    if options.init_from_teacher and state is None:
        source = teachers[0]
        if options.start_from is not None:
            path = options.start_from
            source = _load_teacher(path, config_beside(path), options, config, labels)
            require_same_cmvn(cmvn_of(source), cmvn_of(teachers[0]), str(path), "the teacher")
        reports = fill_from_teacher(
            model, start_config, labels.vocabulary, source, data[0], options.seed
        )
    last_epoch = None if state is None else int(state["epoch"])
    run = assemble(
        options, config, process, model=model, teacher=teacher, data=data, last_epoch=last_epoch
    )
    log_reports(reports)  # after the layer pairs and the direction of alpha
    if state is not None:
        resume(run, state)
    elif options.resume:
        logger.info("%s: no finished epoch yet; starting from the beginning", options.model_dir)
    for module in (run.model, run.kept_model, run.objective):
        copy_from_first(process, module)
    if process.is_first:
        cmvn = cmvn_of(run.kept_model)
        write_run_files(options, config, labels, record, cmvn, is_new=state is None)
    barrier(process)
    return run


def assemble(
    options: TrainOptions,
    config: TrainConfig,
    process: Process,
    *,
    model: KwsModel,
    teacher: KwsModel | None,
    data: tuple[SpeechDataset, SpeechDataset],
    last_epoch: int | None,
) -> Run:
    """Add loss, optimiser, hooks and log to the models, on the device of ``process``.

    data: train and cv sets. last_epoch: the last finished epoch of a run to resume; None: a new
    run.
    Raises: ConfigError if a stage names a module that the student lacks, or a method does not fit.
    """
    model.to(process.device)
    if teacher is not None:
        teacher.to(process.device)
    plan, training = config.stage_plan, config.training_config
    if plan is not None:
        require_modules(plan, config.model)
    labels = data[0].label_set
    embeddings = data[0].embeddings
    objective = build_objective(
        config,
        model,
        teacher,
        plan,
        labels,
        embedding_space=embeddings.space() if embeddings is not None else None,
        hop_ms=config.dataset_conf.front_end.hop_ms,
    ).to(process.device)
    optimizer = make_optimizer(config, model, objective)
    if options.use_fake_quant:
        add_fake_quant(model)
    hooks = build_hooks(
        config,
        model,
        plan=plan,
        num_layers=config.model.backbone.num_layers,
        max_epoch=training.max_epoch,
        lr=config.optim_conf.lr,
        ema_decay=training.ema_decay,
    )
    random_student = None
    if options.init_from_teacher and last_epoch is None:
        # Scored once, before the first step: what the transplant is measured against.
        random_student = random_model(model.config, cmvn_of(model), options.seed)
        random_student.to(process.device)
    learning_rate = LearningRate(
        optimizer, config.scheduler_conf, max_epoch=training.max_epoch, lr=config.optim_conf.lr
    )
    metrics = MetricsWriter(
        options.model_dir,
        last_epoch=-2 if last_epoch is None else last_epoch,
        is_first=process.is_first,
        trackers=options.trackers,
        settings=to_mapping(config),
    )
    return Run(
        process=process,
        config=config,
        model=model,
        kept_model=next((m for hook in hooks if (m := hook.kept_model()) is not None), model),
        teacher=teacher,
        objective=objective,
        optimizer=optimizer,
        learning_rate=learning_rate,
        hooks=hooks,
        train_set=data[0],
        cv_set=data[1],
        model_dir=options.model_dir,
        metrics=metrics,
        random_student=random_student,
        seed=options.seed,
        use_bf16=options.use_bf16,
    )


def warn_of_idle_settings(config: TrainConfig, options: TrainOptions) -> None:
    """Name the settings that have no effect on this run."""
    without_effect = ignored_keys(config.model)
    if without_effect:
        logger.warning("model: %s: no effect on an FSMN", ", ".join(without_effect))
    if len(options.teachers) == 1 and config.distill_conf.teachers != TeachersConfig():
        logger.warning("distill_conf.teachers: no effect with one teacher")
    if options.feature_teacher and not options.used_feature_teacher:
        logger.warning(
            "--feature_teacher: no effect, no term of it has a weight; see "
            "conf/overlays/embedding.yaml"
        )
    if not options.init_from_teacher and config.transplant != TransplantConfig():
        logger.warning("transplant: no effect without --init_from_teacher")


def load_teachers(options: TrainOptions, config: TrainConfig, labels: LabelSet) -> list[KwsModel]:
    """Return the frozen teachers, in the order of ``options.teachers``.

    Raises: ConfigError if one's vocabulary, frame rate, features or CMVN are not the student's.
    """
    teachers = [
        _load_teacher(path, options.teacher_config or config_beside(path), options, config, labels)
        for path in options.teachers
    ]
    for path, teacher in zip(options.teachers[1:], teachers[1:], strict=True):
        first = str(options.teachers[0])
        require_same_cmvn(cmvn_of(teacher), cmvn_of(teachers[0]), str(path), first)
    return teachers


def _load_teacher(
    path: Path, config_path: Path, options: TrainOptions, config: TrainConfig, labels: LabelSet
) -> KwsModel:
    require_same_front_end(config_path, config)
    require_same_vocabulary(path, labels.vocabulary)
    teacher = load_model(path, config_path)
    if teacher.config.output_dim != labels.size:
        raise ConfigError(
            f"{path}: {teacher.config.output_dim} outputs; {options.dict_path} has "
            f"{labels.size} tokens"
        )
    if teacher.cmvn is None:
        raise ConfigError(f"{path}: carries no CMVN, so its features cannot be the student's")
    cmvn = read_cmvn(options, config.model)
    if cmvn is not None:
        require_same_cmvn(teacher.cmvn, cmvn, str(path), "the run's CMVN")
    return teacher.requires_grad_(False).eval()


def mix_teachers(teachers: Sequence[KwsModel]) -> KwsModel | None:
    """Return the only teacher, or the mixture of several; None if there is none."""
    if len(teachers) < 2:
        return teachers[0] if teachers else None
    return TeacherEnsemble(teachers).eval()


def read_cmvn(options: TrainOptions, config: ModelConfig) -> Cmvn | None:
    """Return (mean, istd) of the file that the options, or else the configuration, name."""
    path = options.cmvn_file or config.cmvn.cmvn_file
    if not path:
        return None
    num_bins = options.config.dataset_conf.fbank_conf.num_mel_bins
    return load_cmvn(path, config.input_dim, config.cmvn.norm_var, num_bins=num_bins)


def cmvn_of(model: KwsModel) -> Cmvn:
    """Return copies of a model's (mean, istd)."""
    assert model.cmvn is not None, "models without CMVN are refused when they are loaded"
    mean, istd = model.cmvn
    return mean.clone(), istd.clone()


def open_data(
    options: TrainOptions, config: TrainConfig, labels: LabelSet, process: Process
) -> tuple[SpeechDataset, SpeechDataset]:
    """Return train and cv sets; the first process extracts missing features, the others wait."""
    if not process.is_first:
        barrier(process)
    cache_dir = options.cache_dir or options.train_data.parent / "cache"
    train_set, cv_set = (
        open_dataset(
            path,
            config.dataset_conf,
            labels,
            cache_dir=cache_dir,
            is_training=is_training,
            seed=options.seed,
            num_workers=options.num_workers,
            feature_teacher=options.used_feature_teacher,
        )
        for path, is_training in ((options.train_data, True), (options.cv_data, False))
    )
    if process.is_first:
        barrier(process)
    return train_set, cv_set


def without_unseen_tokens(
    cv_list: Path, cv_set: SpeechDataset, train_set: SpeechDataset
) -> SpeechDataset:
    """Return the cv set without utterances that have a token unseen in training; log how many.

    A model learns that such a token does not occur, so that their loss rises in every run and hides
    the others': recordings of unknown words (filler), where only synthesised speech is learnt.
    Raises: DataError if none is left.
    """
    kept = cv_set.with_labels_of(train_set)
    if num_left_out := len(cv_set) - len(kept):
        logger.info("%s: %d left out: a token unseen in training", cv_list, num_left_out)
    if not len(kept):
        raise DataError(
            f"{cv_list}: every utterance has a token unseen in training; give --cv_data with the "
            "tokens of --train_data"
        )
    return kept


def make_model(
    options: TrainOptions, config: TrainConfig, labels: LabelSet, teacher: KwsModel | None
) -> KwsModel:
    """Return the model with a checkpoint's weights, or with random ones, on the CPU.

    A student normalises its features as its teacher does.
    Raises: ConfigError if there is no CMVN, or the checkpoint's dictionary or CMVN differ.
    """
    cmvn = read_cmvn(options, config.model)
    if options.checkpoint is not None:
        name = str(options.cmvn_file or config.model.cmvn.cmvn_file)
        vocabulary = labels.vocabulary
        return model_from_checkpoint(options.checkpoint, config.model, vocabulary, cmvn, name)
    if teacher is not None:
        return random_model(config.model, cmvn_of(teacher), options.seed)
    if cmvn is None:
        raise ConfigError("--cmvn_file: missing; make one with wekws.bin.compute_cmvn")
    return random_model(config.model, cmvn, options.seed)


def require_same_run(
    options: TrainOptions, config: TrainConfig, labels: LabelSet, record: RunRecord
) -> None:
    """Compare a run to resume with what it began with, before any weights are loaded.

    Raises: ConfigError naming everything that differs.
    """
    path = options.model_dir / "config.yaml"
    if changed := changed_settings(options.model_dir, config):
        raise ConfigError(
            f"{path}: the run to resume differs in {', '.join(changed)}; restore these or start "
            "another --model_dir"
        )
    require_same_vocabulary(path, labels.vocabulary)
    record.require_same(options.model_dir)


def require_enough_epochs(model_dir: Path, num_epochs: int, config: TrainConfig) -> None:
    """Raise ConfigError if a run to resume has more epochs than it is to have in all."""
    max_epoch = config.training_config.max_epoch
    if num_epochs > max_epoch:
        raise ConfigError(
            f"{model_dir}: has {num_epochs} epochs already, but training_config.max_epoch is "
            f"{max_epoch}; set it to {num_epochs} at least, or start another --model_dir"
        )


def resume(run: Run, state: dict[str, Any]) -> None:
    """Load the last finished epoch and the state after it.

    Raises: ConfigError if the epoch's CMVN is not the one the run is given now.
    """
    given = cmvn_of(run.kept_model)
    load_epoch(run.model_dir, state["epoch"], run.kept_model)
    require_same_cmvn(
        cmvn_of(run.kept_model), given, f"{run.model_dir}: the run to resume", "its CMVN now"
    )
    try:
        run.restore(state)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise unusable_state(run.model_dir, repr(error)) from error
    logger.info("%s: continuing with epoch %d", run.model_dir, run.counters.start_epoch)
