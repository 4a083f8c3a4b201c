"""Options of a training run, as a command or a Python program gives them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wekws.errors import ConfigError
from wekws.model.checkpoint import require_other_folder
from wekws.runlog.trackers import TrackerName, require_trackers
from wekws.train.seeds import MAX_SEED
from wekws.train.train_config import TrainConfig

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Everything that a training run is built from.

    Without teachers the run is plain CTC training.
    """

    config: TrainConfig
    """The configuration; its output_dim is set to the size of the dictionary."""
    train_data: Path
    """data.list of the training set."""
    cv_data: Path
    """data.list of the dev set."""
    model_dir: Path
    """Folder of the run: checkpoints, log, and a record of its inputs."""
    dict_path: Path
    """dict.txt of the model's outputs."""
    lexicon: Path | None = None
    """Pronunciation lexicon (WORD unit unit ...); None: characters and letters."""
    keywords_file: Path | None = None
    """Keywords, one per line, for the accuracy on keywords; None: no such figure."""
    cmvn_file: Path | None = None
    """global_cmvn; None: that of the configuration, the checkpoint or the teacher."""
    cache_dir: Path | None = None
    """Feature cache; None: the folder ``cache`` beside train_data."""
    checkpoint: Path | None = None
    """Weights to start from, of the same sizes; None: random weights."""
    teachers: tuple[Path, ...] = ()
    """Checkpoints to distil from; several are mixed as distill_conf.teachers says."""
    teacher_config: Path | None = None
    """Configuration of a single teacher; None: config.yaml beside each checkpoint."""
    feature_teacher: str = ""
    """Frozen model whose outputs are targets besides the labels, see
    ``wekws.dataset.feature_teacher.load_feature_teacher``; empty: none."""
    init_from_teacher: bool = False
    """Start from the (first) teacher's weights, as section ``transplant`` says."""
    start_from: Path | None = None
    """Model with the same outputs to start from in the same way, such as the base after output
    surgery; None: the first teacher."""
    resume: bool = False
    """Continue after the last finished epoch, if there is one."""
    seed: int = 777
    """Seed of weights, order and masks."""
    num_workers: int = 0
    """Processes that extract features; 0: this process."""
    num_threads: int = 0
    """CPU threads for training; 0: all cores."""
    device: DeviceName = "auto"
    """``auto``: a GPU per process where there are enough, otherwise the CPU."""
    use_bf16: bool = False
    """Matrix products in bfloat16; losses stay in float32."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Services that show the run while it is trained, see ``wekws.runlog.trackers``."""
    use_fake_quant: bool = False
    """Round weights and inputs of the layers as int8 does, to fine-tune ``checkpoint``; see
    ``wekws.train.fake_quant``, also for the learning rate."""
    command: str = ""
    """Command line to record in run.json; empty: that of this process."""

    def __post_init__(self) -> None:
        """Refuse options that exclude each other, and trackers that are not installed."""
        require_trackers(self.trackers)
        if self.init_from_teacher and self.checkpoint:
            raise ConfigError("--init_from_teacher and --checkpoint: two starts; give one")
        if self.start_from and not self.init_from_teacher:
            raise ConfigError("--start_from: no effect without --init_from_teacher; add it")
        if self.init_from_teacher and not self.teachers:
            raise ConfigError("--init_from_teacher: no teacher is given; add --teacher_checkpoint")
        if self.config.distill_conf.needs_feature_teacher and not self.feature_teacher:
            raise ConfigError(
                "distill_conf: a term has the outputs of a feature teacher as targets; give "
                "--feature_teacher, or set its weight to 0"
            )
        if self.use_fake_quant and self.checkpoint is None:
            raise ConfigError(
                "--fake_quant: fine-tunes a trained model, but none is given; add --checkpoint"
            )
        if self.use_fake_quant and self.config.progressive.is_used:
            raise ConfigError("--fake_quant and progressive: fine-tune the model that has grown")
        if len(self.teachers) > 1 and self.teacher_config:
            raise ConfigError(
                f"--teacher_config {self.teacher_config}: given for {len(self.teachers)} teachers; "
                "leave it out and have a config.yaml beside each checkpoint"
            )
        if self.seed < 0 or self.num_workers < 0 or self.num_threads < 0:
            raise ConfigError("--seed, --num_workers and --num_threads: expected at least 0")
        if self.seed >= MAX_SEED:
            raise ConfigError(f"--seed {self.seed}: expected below {MAX_SEED}")
        for checkpoint in (self.checkpoint, *self.teachers):
            if checkpoint is not None:
                require_other_folder(self.model_dir, checkpoint)

    @property
    def used_feature_teacher(self) -> str:
        """The feature teacher; empty where the configuration gives no such term a weight."""
        return self.feature_teacher if self.config.distill_conf.needs_feature_teacher else ""

    @property
    def start(self) -> str:
        """Origin of the first weights: ``teacher``, ``checkpoint`` or ``random``."""
        if self.init_from_teacher:
            return "teacher"
        return "checkpoint" if self.checkpoint else "random"
