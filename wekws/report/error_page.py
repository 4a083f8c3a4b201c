"""``errors.html``: the errors of a model with audio, features, posteriors and confidences.

The page holds all figures itself; the audio files lie in ``errors/`` beside it.
"""

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wekws.dataset.audio import read_audio
from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path
from wekws.report.document import inline_html
from wekws.report.error_cases import (
    NEGATIVE_SHARE,
    ErrorCase,
    ErrorReview,
    as_row,
    shown_cases,
)
from wekws.report.error_page_template import PAGE
from wekws.score.results import Result
from wekws.score.scores import read_score_info
from wekws.score.system import load_system
from wekws.score.trace import Trace, Tracer

logger = logging.getLogger(__name__)

PAGE_NAME, AUDIO_DIR = "errors.html", "errors"
# Longer recordings are shown around the event only.
MARGIN_S, WHOLE_S = 1.5, 6.0
NUM_WAVE_POINTS = 400
# Tokens that are drawn: those of the keyword, and the highest others.
NUM_OTHER_TOKENS = 3


@dataclass(frozen=True)
class TracedModel:
    """A scored model, loaded to trace recordings."""

    name: str
    """Name on the page."""
    tracer: Tracer
    """The model with its decoder."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the samples that it takes."""
        return self.tracer.system.dataset_config.front_end.sample_rate_hz


def load_traced(result: Result) -> TracedModel:
    """Load the model of a result, with the decoder settings of its scores.

    Raises: ConfigError or DataError if its checkpoint or a file beside it is missing.
    """
    info = read_score_info(result.result_dir)
    checkpoint = Path(info["checkpoint"])
    if not checkpoint.is_file():
        # The run's folder may have been moved: results lie in the folder of the checkpoint.
        checkpoint = result.result_dir.parent / checkpoint.name
    if not checkpoint.is_file():
        raise ConfigError(f"{info['checkpoint']}: no such file; expected the scored checkpoint")
    system = load_system(checkpoint)
    return TracedModel(result.name, Tracer(system, info.get("keyword_durations_s")))


def write_error_page(
    review: ErrorReview, models: Sequence[TracedModel], out_dir: Path, *, num_per_kind: int = 40
) -> Path:
    """Write ``errors.html`` and the audio of the cases it shows; return its path.

    models: the student, then the teacher if there is one.
    num_per_kind: misses, false alarms and confusions that are shown, the worst of each.
    """
    audio_dir = out_dir / AUDIO_DIR
    audio_dir.mkdir(parents=True, exist_ok=True)
    for old in audio_dir.glob("*.wav"):
        old.unlink()
    shown = shown_cases(review, num_per_kind)
    rows = [_row(case, models, audio_dir / f"{i:04d}.wav") for i, case in enumerate(shown)]
    content = {
        "models": [model.name for model in models],
        "budget": review.budget,
        "cases": rows,
    }
    # "<" would end the script element if a transcript had </script>.
    data = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    page = PAGE.replace("{{summary}}", _summary(review, len(shown)))
    page = page.replace("{{groups}}", _groups(review)).replace("{{data}}", data)
    path = out_dir / PAGE_NAME
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _summary(review: ErrorReview, num_shown: int) -> str:
    kinds = {"miss": "misses", "false alarm": "false alarms", "confusion": "confusions"}
    numbers = {k: sum(case.kind == k for case in review.cases) for k in kinds}
    suspected = sum(case.is_suspected for case in review.cases)
    text = ", ".join(f"**{numbers[k]}** {name}" for k, name in kinds.items())
    return inline_html(
        f"{text} at the {review.threshold_name}. Shown: {num_shown}, the worst of each kind first. "
        f"Suspected labels: **{suspected}**, where both models contradict the label: a keyword of "
        f"which neither is surer than of {100 * NEGATIVE_SHARE:.0f} % of the audio without one, or "
        "audio without it of which both are surer than of half of the keywords."
    )


def _groups(review: ErrorReview) -> str:
    items = [f"<li>{inline_html(group.sentence())}</li>" for group in review.groups]
    if not items:
        return "<p>No speaker, condition or text holds most of the errors.</p>"
    return f"<ul>{''.join(items)}</ul>"


def _row(case: ErrorCase, models: Sequence[TracedModel], audio_path: Path) -> dict[str, Any]:
    """Return a case for the page; without what its audio would give if that cannot be read."""
    row = as_row(case)
    rate = models[0].sample_rate_hz
    try:
        samples = read_audio(case.wav, rate)
        traces = [(model, model.tracer(samples)) for model in models]
    except DataError as error:
        logger.warning("utterance %s: %s", case.key, error)
        return {**row, "problem": str(error)}
    begin_s, end_s = _window(case, len(samples) / rate)
    piece = samples[round(begin_s * rate) : round(end_s * rate)]
    soundfile.write(audio_path, piece, rate, subtype="PCM_16")
    row |= {
        "audio": f"{AUDIO_DIR}/{audio_path.name}",
        "begin": round(begin_s, 3),
        "end": round(end_s, 3),
        "event": [round(case.start_s, 3), round(case.end_s, 3)],
        "wave": _envelope(piece),
        "fbank": _fbank(traces[0], begin_s, end_s),
        "traces": [_trace(*traced, case.keyword, begin_s, end_s) for traced in traces],
    }
    return row


def _window(case: ErrorCase, duration_s: float) -> tuple[float, float]:
    if duration_s <= WHOLE_S:
        return 0.0, duration_s
    begin_s = max(0.0, case.start_s - MARGIN_S)
    end_s = min(duration_s, max(case.end_s + MARGIN_S, begin_s + 2 * MARGIN_S))
    return begin_s, end_s


def _envelope(samples: np.ndarray) -> list[list[int]]:
    """Return the lowest and highest sample of each piece, in percent of full scale."""
    pieces = np.array_split(samples, min(NUM_WAVE_POINTS, len(samples)))
    return [[round(100 * float(x.min())), round(100 * float(x.max()))] for x in pieces]


def _fbank(traced: tuple[TracedModel, Trace], begin_s: float, end_s: float) -> Mapping[str, Any]:
    """Return the log-mel energies of a window as bytes: frames after each other, low bins first."""
    model, trace = traced
    shift_s = model.tracer.system.dataset_config.front_end.frame_shift_ms / 1000
    energies = trace.fbank[round(begin_s / shift_s) : max(round(end_s / shift_s), 1)]
    if not len(energies):
        energies = trace.fbank[-1:]
    low, high = np.percentile(energies, [2, 99.5])
    scaled = np.clip((energies - low) / max(float(high - low), 1e-6), 0, 1)
    levels = np.round(255 * scaled).astype(np.uint8)
    data = base64.b64encode(levels.tobytes()).decode("ascii")
    return {"frames": len(levels), "bins": levels.shape[1], "levels": data}


def _trace(
    model: TracedModel, trace: Trace, keyword: str, begin_s: float, end_s: float
) -> Mapping[str, Any]:
    """Return posteriors (percent) of some tokens, and confidences, within a window."""
    system = model.tracer.system
    first = int(begin_s / system.hop_s)
    last = max(int(np.ceil(end_s / system.hop_s)), first + 1)
    posteriors = trace.posteriors[first:last]
    labels = system.label_set
    wanted = list(dict.fromkeys(labels.scorable_ids(keyword)))
    others = [int(i) for i in np.argsort(-posteriors.max(axis=0)) if i not in wanted and i > 0]
    tokens = labels.vocabulary.tokens
    curves = [
        {
            "token": tokens[i],
            "of_keyword": i in wanted,
            "values": np.round(100 * posteriors[:, i]).astype(int).tolist(),
        }
        for i in [*wanted, *others[:NUM_OTHER_TOKENS]]
    ]
    row = system.label_set.keywords.index(keyword)
    confidence = np.round(trace.confidence[row, first:last], 4)
    return {
        "model": model.name,
        "hop": system.hop_s,
        "offset": first * system.hop_s,
        "tokens": curves,
        "confidence": confidence.tolist(),
    }
