"""The presets of ``conf/presets``, with their size, arithmetic and training time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wekws.dataset.dataset_conf import FilterConfig
from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import Tokenizer, Vocabulary
from wekws.distill.schedule import Scheduled, as_schedule
from wekws.errors import ConfigError
from wekws.model.cost import model_cost
from wekws.model.model_conf import ModelConfig
from wekws.report.format import duration
from wekws.sweep.preset_files import SHORT_TEACHERS, preset_paths
from wekws.sweep.step_time import StepTimer, TimedStep
from wekws.train.train_config import TrainConfig, load_train_config

DEFAULT = "balanced"
# Durations on which a step is measured as long as there is no corpus: short commands.
USUAL_DURATIONS_S = (1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Corpus:
    """Durations and label counts of a training set."""

    durations_s: tuple[float, ...]
    """Duration of each utterance."""
    num_labels: tuple[int, ...]
    """Number of labels of each utterance."""

    def num_trained(self, config: FilterConfig) -> int:
        """Return about how many utterances the filters leave for training."""
        longest = config.max_label_length or math.inf
        return math.ceil(config.data_share * sum(num <= longest for num in self.num_labels))


@dataclass(frozen=True)
class PresetContext:
    """The models and the corpus that a preset would be used with."""

    student_config: Path
    """Configuration of the student, below the preset."""
    overlays: tuple[Path, ...]
    """YAML files laid over it before the preset."""
    teacher: ModelConfig
    """Sizes of the teacher."""
    num_tokens: int
    """Outputs of teacher and student."""
    corpus: Corpus | None
    """The training set; None as long as there are no lists."""
    first_config: TrainConfig | None = None
    """Training of base and teacher, which comes first; None: the teacher is given."""
    base_epochs: int | None = None
    """Epochs of the base; None: those of the preset or of its configuration."""
    teacher_epochs: int | None = None
    """Epochs of the teacher; None: those of the preset or of its configuration."""

    @property
    def durations_s(self) -> tuple[float, ...]:
        """Durations on which a step is measured."""
        return self.corpus.durations_s if self.corpus else USUAL_DURATIONS_S

    def first_epochs(self, preset: str) -> int:
        """Return the epochs of base and teacher together; 0 where the teacher is given."""
        if self.first_config is None:
            return 0
        usual = self.first_config.training_config.max_epoch
        short = SHORT_TEACHERS.get(preset) if self.teacher_epochs is None else None
        base, teacher = short or (usual, usual)
        return (self.base_epochs or base) + (self.teacher_epochs or teacher)


@dataclass(frozen=True, kw_only=True)
class PresetInfo:
    """A preset with its figures."""

    name: str
    """Its name."""
    config: TrainConfig
    """The whole configuration of the student."""
    cost: Mapping[str, Any]
    """Cost of the student, see ``model_cost``."""
    teacher_cost: Mapping[str, Any]
    """Cost of the teacher."""
    num_trained: int | None
    """Utterances per epoch; None without a corpus."""
    step_s: float
    """Measured time of an optimiser step, per utterance."""
    first_s: float
    """Time of all steps of base and teacher; without a corpus as in ``training_s``."""

    @property
    def training_s(self) -> float:
        """Time of all steps; without a corpus, with 1,000 utterances per epoch."""
        num = 1000 if self.num_trained is None else self.num_trained
        return self.step_s * num * self.config.training_config.max_epoch


def preset_info(
    name: str,
    path: Path,
    context: PresetContext,
    timer: StepTimer,
    first_step_s: float | None = None,
) -> PresetInfo:
    """Read a preset and measure a few steps of it.

    first_step_s: time of a step of base and teacher, per utterance; None: it is measured.
    """
    if first_step_s is None:
        first_step_s = _first_step_s(context, timer)
    config = load_train_config(context.student_config, overlays=[*context.overlays, path])
    config = config.with_output_dim(context.num_tokens)
    sizes, corpus = context.teacher.with_output_dim(context.num_tokens), context.corpus
    filters, front_end = config.dataset_conf.filter_conf, config.dataset_conf.front_end
    return PresetInfo(
        name=name,
        config=config,
        cost=model_cost(config.model, front_end),
        teacher_cost=model_cost(sizes, front_end),
        num_trained=corpus.num_trained(filters) if corpus else None,
        step_s=timer.seconds_per_utterance(
            TimedStep(experiment=config, teachers=(sizes,), durations_s=context.durations_s)
        ),
        first_s=first_step_s * context.first_epochs(name) * _first_utterances(context),
    )


def _first_step_s(context: PresetContext, timer: StepTimer) -> float:
    if context.first_config is None:
        return 0.0
    config = context.first_config.with_output_dim(context.num_tokens)
    step = TimedStep(experiment=config, durations_s=context.durations_s)
    return timer.seconds_per_utterance(step, repeats=2)


def _first_utterances(context: PresetContext) -> int:
    if context.corpus is None or context.first_config is None:
        return 1000
    return context.corpus.num_trained(context.first_config.dataset_conf.filter_conf)


def preset_infos(folder: Path, context: PresetContext, timer: StepTimer) -> list[PresetInfo]:
    """Return all presets with their figures, the shortest training first."""
    step_s, paths = _first_step_s(context, timer), preset_paths(folder)
    infos = [preset_info(n, p, context, timer, step_s) for n, p in paths.items()]
    return sorted(infos, key=lambda info: info.config.training_config.max_epoch)


def read_corpus(lists: Path, lexicon: Path | None) -> Corpus | None:
    """Return durations and label counts of ``lists/train/data.list``, None if there is none."""
    data_list, dict_path = lists / "train" / "data.list", lists / "dict" / "dict.txt"
    needed = (data_list, dict_path, *([lexicon] if lexicon is not None else []))
    if not all(path.exists() for path in needed):
        return None
    vocabulary, tokenizer = Vocabulary.load(dict_path), Tokenizer(lexicon)
    utterances = read_data_list(data_list)
    return Corpus(
        tuple(utterance.duration for utterance in utterances),
        tuple(len(vocabulary.encode_utterance(u, tokenizer)) for u in utterances),
    )


def preset_row(info: PresetInfo) -> dict[str, str]:
    """Return the row of the table for a preset, by heading."""
    config = info.config
    training, sizes = config.training_config, config.model.backbone
    batch = str(config.dataset_conf.batch_conf.batch_size)
    batch += f" x {training.accum_grad}" if training.accum_grad > 1 else ""
    filters, (params, macs) = config.dataset_conf.filter_conf, _ratios(info)
    trained = "-" if info.num_trained is None else f"{info.num_trained:,}"
    share = f"{filters.data_share:.0%}".replace("%", " %")
    return {
        "preset": info.name,
        "epochs": str(training.max_epoch),
        "batch": batch,
        "lr": f"{config.optim_conf.lr:g}",
        "T": _shown(config.distill_conf.temperature),
        "alpha": _shown(config.distill_conf.alpha),
        "data": share,
        "longest label": str(filters.max_label_length or "any"),
        "utterances": trained,
        "linear/proj": f"{sizes.linear_dim}/{sizes.proj_dim}",
        "parameters": f"{info.cost['params']:,}",
        "compression": f"{params:.1f} x",
        "MACs/s": f"{info.cost['macs_per_second'] / 1e6:.2f} M",
        "fewer MACs": f"{macs:.1f} x",
        "time": duration(info.training_s),
        "whole time": duration(info.training_s + info.first_s),
    }


def _ratios(info: PresetInfo) -> tuple[float, float]:
    keys = ("params", "macs_per_second")
    params, macs = (info.teacher_cost[key] / info.cost[key] for key in keys)
    return params, macs


def _shown(value: Scheduled) -> str:
    """Return a weight or temperature: a number, or the shape of its schedule with its ends."""
    schedule = as_schedule(value)
    low, high = schedule.extremes
    return f"{low:g}" if low == high else f"{schedule.shape} {low:g} to {high:g}"


def format_presets(infos: Sequence[PresetInfo], purposes: Mapping[str, str]) -> str:
    """Return a table of the presets, what each is for, and an explanation of the columns."""
    rows = [preset_row(info) for info in infos]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = [{key: key for key in widths}, *rows]
    table = ["  ".join(line[key].rjust(width) for key, width in widths.items()) for line in lines]
    teacher = infos[0].teacher_cost
    has_corpus = infos[0].num_trained is not None
    per = "of all training steps" if has_corpus else "of all steps for every 1,000 utterances"
    return "\n".join(
        [
            *table,
            "",
            *(
                f"{number} {info.name}: {purposes[info.name]}"
                + (" (recommended)" if info.name == DEFAULT else "")
                for number, info in enumerate(infos, start=1)
            ),
            "",
            "alpha: weight of CTC (the labels); distillation has 1 - alpha. compression, fewer "
            f"MACs: relative to the teacher's {teacher['params']:,} parameters and "
            f"{teacher['macs_per_second'] / 1e6:.2f} M MACs/s.",
            f"time: {per}, estimated from a few steps on this machine; whole time: with base and "
            "teacher, which are trained first unless a teacher is given (--teacher_checkpoint). "
            "Features, cv and averaging are not counted.",
        ]
    )


def choose(names: Sequence[str], read_line: Callable[[], str], say: Callable[[str], None]) -> str:
    """Ask for one of the presets until one is named and confirmed; return its name.

    read_line: gives an answer with its line end, empty at the end of the input. Nothing but a
    line end takes the default, and means yes. Raises: ConfigError at the end of the input.
    """
    default = DEFAULT if DEFAULT in names else names[0]
    while True:
        numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1))
        say(f"Which preset? {numbered} [{default}]: ")
        answer = _answer(read_line) or default
        if answer.isdigit() and 1 <= int(answer) <= len(names):
            answer = names[int(answer) - 1]
        if answer not in names:
            say(f"{answer}: no such preset.\n")
            continue
        say(f"Train {answer}? [Y/n]: ")
        if _answer(read_line).lower() in ("", "y", "yes"):
            return answer


def _answer(read_line: Callable[[], str]) -> str:
    line = read_line()
    if not line:
        raise ConfigError("--preset ask: no answer; name a preset instead: --preset NAME")
    return line.strip()
