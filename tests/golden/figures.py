"""Golden figures: results that no change of the code may move without a review.

`python tests/golden/figures.py` writes the golden files again; review the diff. Tests only read
them.
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tones import make_tone_corpus  # noqa: E402

from wekws.bin import train, train_distill  # noqa: E402
from wekws.decode.keyword import KeywordScorer  # noqa: E402
from wekws.decode.prefix_beam import PrefixBeamDecoder  # noqa: E402
from wekws.runlog.metrics_reader import read_metrics  # noqa: E402
from wekws.score.det import Budget, det_points  # noqa: E402
from wekws.score.thresholds import as_they_are, choose_threshold  # noqa: E402

KEYWORDS = [[2, 3, 4], [3, 3], [4]]


def log_probs() -> torch.Tensor:
    """Return (1, 40, 5) log-posteriors, made without a random generator: versions change those."""
    frames, tokens = torch.arange(40.0)[:, None], torch.arange(5.0)
    logits = 4.0 * torch.sin(0.7 * frames * (tokens + 1.0) + tokens.square())
    return logits.log_softmax(dim=-1)[None]


def decoder_rows() -> list[str]:
    """Confidence and first frame of each keyword's best end; the beam's events."""
    confidence, start = KeywordScorer(KEYWORDS)(log_probs())
    rows = []
    for number, ids in enumerate(KEYWORDS):
        end = int(confidence[0, number].argmax())
        value, first = float(confidence[0, number, end]), int(start[0, number, end])
        rows.append(f"keyword {ids} frames {first} to {end} confidence {value:.6f}")
    beam = PrefixBeamDecoder(KEYWORDS).events(log_probs(), torch.tensor([40]), 10)[0]
    for ids, events in zip(KEYWORDS, beam, strict=True):
        found = [f"{e.start} to {e.end} {e.score:.6f}" for e in events]
        rows.append(f"beam {ids} {'; '.join(found) or 'nothing'}")
    return rows


def det_rows() -> list[str]:
    """FRR and false alarms per hour at the operating points of a made-up set of 2 h."""
    positives = np.array([math.sin(i) ** 2 for i in range(1, 60)])
    negatives = np.array([math.sin(0.5 * i) ** 8 for i in range(1, 40)])
    points = det_points(positives, negatives, hours=2.0)
    rows = []
    for per_hour in (0.5, 1.0, 5.0):
        pooled = as_they_are(negatives, 2.0)
        threshold = choose_threshold(pooled, Budget(per_hour), "count").threshold
        place = int(np.searchsorted(points.thresholds, threshold))
        alarms, frr = points.fa_per_hour[place], points.frr[place]
        rows.append(
            f"budget {per_hour:g} threshold {threshold:.6f} per_hour {alarms:.6f} frr {frr:.6f}"
        )
    return rows


def loss_rows() -> list[str]:
    """Every loss term of the first steps of a teacher and of its student, on the tone corpus."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        corpus = make_tone_corpus(root)
        flags = [
            *("--config", str(corpus.config_path), "--dict", str(corpus.dict_path)),
            *("--train_data", str(corpus.train_list), "--cv_data", str(corpus.dev_list)),
            *("--keywords_file", str(corpus.keywords_path)),
            *("--cmvn_file", str(corpus.cmvn_path), "--cache_dir", str(root / "cache")),
            *("--num_workers", "1", "--num_threads", "1", "--device", "cpu", "--seed", "1"),
            *("--override", "training_config.max_epoch=1"),
            *("--override", "training_config.log_interval=1"),
        ]
        train.main([*flags, "--model_dir", str(root / "teacher")])
        terms = "{hidden: {weight: 1}, inner: {weight: 0.2}}"
        train_distill.main(
            [
                *flags,
                *("--model_dir", str(root / "student"), "--init_from_teacher"),
                *("--teacher_checkpoint", str(root / "teacher/final.pt")),
                *("--override", "model.backbone.linear_dim=16"),
                *("--override", f"distill_conf={terms}"),
            ]
        )
        return [row for name in ("teacher", "student") for row in _losses(name, root / name)]


def _losses(name: str, model_dir: Path) -> list[str]:
    skipped = ("utt_per_s", "eta_s", "kind", "epoch", "step")
    rows = []
    for row in read_metrics(model_dir):
        if row["kind"] == "step":
            figures = [f"{k} {v:.5g}" for k, v in row.items() if k not in skipped]
            rows.append(f"{name} step {row['step']} {' '.join(figures)}")
    return rows


FIGURES = {"decoders.txt": decoder_rows, "det.txt": det_rows, "losses.txt": loss_rows}


def main() -> None:
    """Write all golden files."""
    torch.set_num_threads(1)
    for name, rows in FIGURES.items():
        (HERE / name).write_text("\n".join(rows()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
