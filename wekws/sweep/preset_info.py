"""The presets of ``conf/presets``: what each one trains, what that costs, how long it takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wekws.dataset.dataset_conf import FilterConfig
from wekws.dataset.manifest import read_data_list
from wekws.dataset.vocabulary import Tokenizer, Vocabulary
from wekws.distill.schedule import Scheduled, as_schedule
from wekws.errors import ConfigError
from wekws.model.cost import model_cost
from wekws.model.model import KwsModel, ModelConfig
from wekws.report.format import duration
from wekws.sweep.step_time import seconds_per_utterance
from wekws.train.train_config import TrainConfig, load_train_config

DEFAULT = "balanced"
# What a step is measured on where there is no corpus yet: short commands.
USUAL_DURATIONS_S = (1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Corpus:
    """A training set's utterances: how long they are, and how many labels each has."""

    durations_s: tuple[float, ...]
    num_labels: tuple[int, ...]

    def num_trained(self, config: FilterConfig) -> int:
        """Return about how many are trained on, by the longest label and the share of the data."""
        longest = config.max_label_length or math.inf
        return math.ceil(config.data_share * sum(num <= longest for num in self.num_labels))


@dataclass(frozen=True)
class Place:
    """Where a preset would be used. overlays: laid over the student's configuration before it.

    teacher: its sizes. num_tokens: of both. corpus: None as long as there are no lists.
    """

    student_config: Path
    overlays: tuple[Path, ...]
    teacher: ModelConfig
    num_tokens: int
    corpus: Corpus | None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A preset with its figures. num_trained: utterances an epoch, None without a corpus.

    cost, teacher_cost: as ``model_cost`` gives them. step_s: time of a step for each utterance.
    """

    name: str
    experiment: TrainConfig
    cost: Mapping[str, Any]
    teacher_cost: Mapping[str, Any]
    num_trained: int | None
    step_s: float

    @property
    def training_s(self) -> float:
        """Time of all steps; without a corpus, of 1,000 utterances an epoch."""
        num = 1000 if self.num_trained is None else self.num_trained
        return self.step_s * num * self.experiment.training_config.max_epoch


def preset_paths(folder: Path) -> dict[str, Path]:
    """Return the presets by name, the shortest training first.

    Raises: ConfigError if there are none.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not paths:
        raise ConfigError(f"{folder}: no presets in it; expected NAME.yaml")
    return paths


def make_offer(name: str, path: Path, place: Place, device: torch.device) -> Offer:
    """Read a preset and measure a few steps of it."""
    experiment = load_train_config(place.student_config, overlays=[*place.overlays, path])
    experiment = experiment.with_output_dim(place.num_tokens)
    sizes, dim = place.teacher.with_output_dim(place.num_tokens), experiment.model.input_dim
    teacher = KwsModel(sizes, (torch.zeros(dim), torch.ones(dim)))
    corpus = place.corpus
    durations_s = corpus.durations_s if corpus else USUAL_DURATIONS_S
    filters, front_end = experiment.dataset_conf.filter_conf, experiment.dataset_conf.front_end
    return Offer(
        name=name,
        experiment=experiment,
        cost=model_cost(experiment.model, front_end),
        teacher_cost=model_cost(sizes, front_end),
        num_trained=corpus.num_trained(filters) if corpus else None,
        step_s=seconds_per_utterance(experiment, teacher, durations_s, device),
    )


def make_offers(folder: Path, place: Place, device: torch.device) -> list[Offer]:
    """Return all presets with their figures, the shortest training first."""
    offers = [make_offer(n, p, place, device) for n, p in preset_paths(folder).items()]
    return sorted(offers, key=lambda offer: offer.experiment.training_config.max_epoch)


def read_corpus(lists: Path, lexicon: Path | None) -> Corpus | None:
    """Return the shape of ``lists/train/data.list``, None if it is not there yet."""
    data_list, dict_path = lists / "train" / "data.list", lists / "dict" / "dict.txt"
    if not (data_list.exists() and dict_path.exists()):
        return None
    vocabulary, tokenizer = Vocabulary.load(dict_path), Tokenizer(lexicon)
    utterances = read_data_list(data_list)
    return Corpus(
        tuple(utterance.duration for utterance in utterances),
        tuple(len(vocabulary.encode_utterance(u, tokenizer)) for u in utterances),
    )


def figures(offer: Offer) -> dict[str, str]:
    """Return what is shown of an offer, by heading."""
    config = offer.experiment
    training, sizes = config.training_config, config.model.backbone
    batch = str(config.dataset_conf.batch_conf.batch_size)
    batch += f" x {training.accum_grad}" if training.accum_grad > 1 else ""
    filters, (params, macs) = config.dataset_conf.filter_conf, _ratios(offer)
    trained = "-" if offer.num_trained is None else f"{offer.num_trained:,}"
    share = f"{filters.data_share:.0%}".replace("%", " %")
    return {
        "preset": offer.name,
        "epochs": str(training.max_epoch),
        "batch": batch,
        "lr": f"{config.optim_conf.lr:g}",
        "T": _shown(config.distill_conf.temperature),
        "labels": _shown(config.distill_conf.alpha),
        "data": share,
        "longest label": str(filters.max_label_length or "any"),
        "utterances": trained,
        "linear/proj": f"{sizes.linear_dim}/{sizes.proj_dim}",
        "parameters": f"{offer.cost['params']:,}",
        "compression": f"{params:.1f} x",
        "MACs/s": f"{offer.cost['macs_per_second'] / 1e6:.2f} M",
        "fewer MACs": f"{macs:.1f} x",
        "time": duration(offer.training_s),
    }


def _ratios(offer: Offer) -> tuple[float, float]:
    keys = ("params", "macs_per_second")
    params, macs = (offer.teacher_cost[key] / offer.cost[key] for key in keys)
    return params, macs


def _shown(value: Scheduled) -> str:
    """Return a weight or temperature: a number, or the shape of its schedule with its ends."""
    schedule = as_schedule(value)
    low, high = schedule.extremes
    return f"{low:g}" if low == high else f"{schedule.shape} {low:g} to {high:g}"


def format_offers(offers: Sequence[Offer]) -> str:
    """Lay the offers out as a table, and say what its columns mean."""
    rows = [figures(offer) for offer in offers]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = [{key: key for key in widths}, *rows]
    table = ["  ".join(line[key].rjust(width) for key, width in widths.items()) for line in lines]
    teacher = offers[0].teacher_cost
    has_corpus = offers[0].num_trained is not None
    per = "of all training steps" if has_corpus else "of all steps for every 1,000 utterances"
    return "\n".join(
        [
            *table,
            "",
            "labels: weight of the labels against the teacher, which has the rest. compression, "
            f"fewer MACs: against the teacher's {teacher['params']:,} parameters and "
            f"{teacher['macs_per_second'] / 1e6:.2f} M MACs/s.",
            f"time: {per}, from a few measured here and now; features, cv and averaging not "
            "counted.",
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
