"""FRR of single epochs of a run: chosen on dev, reported on the set, the mean of the five best."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wekws.errors import ConfigError
from wekws.files import write_json
from wekws.report.document import Block, Heading, Paragraph, Table, write_document
from wekws.report.format import percent
from wekws.score.det import budget_from_label
from wekws.score.results import read_result
from wekws.score.sets import KeywordSet
from wekws.score.summary import read_scored_folder
from wekws.score.thresholds import as_they_are, choose_threshold
from wekws.train.epoch_checkpoint import comparable_epochs, copy_epoch, read_epoch_info

NUM_BEST = 5


@dataclass(frozen=True, kw_only=True)
class EpochScore:
    """One epoch's figures; FRRs are means over the keywords, each set at its own curve."""

    epoch: int
    """The epoch."""
    cv_loss: float
    """CTC on dev, nats per utterance."""
    dev_frr: float | None
    """FRR on dev at the budget; None if dev was not scored."""
    frr: float
    """FRR on the set at the budget."""


def chosen_epochs(model_dir: Path, text: str) -> list[int]:
    """Return the epochs that ``FIRST-LAST`` or ``all`` names; those of earlier stages are left out.

    Raises: ConfigError for another text, or if there is no such epoch, the last one included.
    """
    first, _, last = text.partition("-")
    if text != "all" and not (first.isdigit() and last.isdigit()):
        raise ConfigError(f"--epochs {text}: expected FIRST-LAST, such as 60-79, or all")
    if text != "all" and int(first) > int(last):
        raise ConfigError(f"--epochs {text}: the first is after the last; expected {last}-{first}?")
    there = comparable_epochs(model_dir)
    found = there if text == "all" else [e for e in there if int(first) <= e <= int(last)]
    if not found or (text != "all" and int(last) > there[-1]):
        span = f"{there[0]} to {there[-1]}" if there else "none"
        raise ConfigError(
            f"--epochs {text}: no such epoch in {model_dir}; there are {span} (those of earlier "
            "stages and of a student that had yet to grow do not count)"
        )
    return found


def review_epochs(
    model_dir: Path, epochs: Sequence[int], dataset: str, tag: str, budget: str
) -> list[EpochScore]:
    """Return the figures of scored epochs.

    tag: end of the names of the result folders, such as ``_prefix_beam``.
    Raises: DataError if an epoch was not scored.
    """
    scores = []
    for epoch in epochs:
        result = read_result(str(epoch), model_dir / f"{dataset}_{epoch}{tag}")
        points = [result.own_curve(keyword, budget) for keyword in result.keywords]
        scores.append(
            EpochScore(
                epoch=epoch,
                cv_loss=read_epoch_info(model_dir, epoch)["cv_loss"],
                dev_frr=_dev_frr(model_dir / f"dev_{epoch}{tag}", budget),
                frr=statistics.fmean(point.frr for point in points if point is not None),
            )
        )
    return scores


def _dev_frr(folder: Path, budget: str) -> float | None:
    if not folder.is_dir():
        return None
    sets = read_scored_folder(folder).scores.keywords
    rates = [_own_frr(keyword, budget) for keyword in sets if keyword.problem is None]
    return statistics.fmean(rates) if rates else None


def _own_frr(keyword: KeywordSet, budget: str) -> float:
    negatives = as_they_are(keyword.negatives, keyword.negative_hours)
    chosen = choose_threshold(negatives, budget_from_label(budget), "count")
    return float(np.mean(keyword.positives < chosen.threshold))


def best_epochs(scores: Sequence[EpochScore]) -> list[EpochScore]:
    """Return the five best epochs by FRR on dev (without dev, by cv loss), the best first."""

    def rank(score: EpochScore) -> tuple[float, float, int]:
        return score.dev_frr if score.dev_frr is not None else 0.0, score.cv_loss, score.epoch

    return sorted(scores, key=rank)[:NUM_BEST]


def write_epoch_review(
    scores: Sequence[EpochScore], model_dir: Path, out_dir: Path, budget: str
) -> Path:
    """Write ``epochs.md``, ``epochs.html`` and ``epochs.json``, and copy the best epoch.

    Returns: ``best_frr.pt``, the epoch of lowest FRR on dev.
    """
    best = best_epochs(scores)
    content: dict[str, Any] = {
        "budget": budget,
        "epochs": [vars(score) for score in scores],
        "best": [score.epoch for score in best],
        "mean_frr_of_best": statistics.fmean(score.frr for score in best),
    }
    write_json(out_dir / "epochs.json", content)
    write_document(epoch_blocks(scores, budget), out_dir, "epochs")
    return copy_epoch(model_dir, best[0].epoch, "best_frr")


def epoch_blocks(scores: Sequence[EpochScore], budget: str) -> list[Block]:
    """Return the table of the epochs, and the mean of the best."""
    best = best_epochs(scores)
    rows = [
        [
            f"{score.epoch}{' *' if score in best else ''}",
            f"{score.cv_loss:.3f}",
            "-" if score.dev_frr is None else percent(score.dev_frr),
            percent(score.frr),
        ]
        for score in scores
    ]
    header = ["Epoch", "cv loss", f"FRR on dev at {budget}", f"FRR on the set at {budget}"]
    names = ", ".join(str(score.epoch) for score in best)
    mean = statistics.fmean(score.frr for score in best)
    chosen = "FRR on dev" if best[0].dev_frr is not None else "cv loss"
    text = (
        f"The {len(best)} best epochs by {chosen}: {names}. Their mean FRR on the set is "
        f"{percent(mean)}, that of the best one {percent(best[0].frr)}."
    )
    caption = "Means over the keywords, on each set's own curve. *: the best by dev."
    return [Heading("FRR by epoch", 1), Paragraph(text), Table(header, rows, caption)]
