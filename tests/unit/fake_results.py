"""Result folders as scoring and training leave them, with made-up but plausible numbers."""

import json
import math
from pathlib import Path

import numpy as np
import yaml

BUDGETS = {"0.5/h": 0.5, "1/h": 1.0, "1 in all": None}


def wilson(misses, n, z=1.959964):
    share, spread = misses / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def make_scores(rng, positives, negatives, quality):
    """Confidences in (0, 1]: positives heaped near 1, negatives near 0 with a thin tail."""
    good = 1 / (1 + np.exp(-rng.normal(quality, 1.3, positives)))
    bad = 1 / (1 + np.exp(-rng.normal(-quality - 0.5, 1.3, negatives)))
    return np.round(good, 6), np.round(bad, 6)


def det_table(good, bad, hours):
    """Rows threshold, false alarms per hour, FRR: every score, 0 and one above all."""
    thresholds = np.unique(np.concatenate([[0.0], good, bad, [1.000001]]))
    false_alarms = (bad[None, :] >= thresholds[:, None]).sum(1) if len(bad) else 0 * thresholds
    misses = (good[None, :] < thresholds[:, None]).sum(1)
    return np.stack([thresholds, false_alarms / hours, misses / max(len(good), 1)], axis=1)


def operating_points(table, positives, hours, chosen_on):
    points = []
    for name, budget in BUDGETS.items():
        allowed = 1 / hours if budget is None else budget
        row = table[np.argmax(table[:, 1] <= allowed + 1e-12)]
        count, misses = round(row[1] * hours), round(row[2] * positives)
        low, high = wilson(misses, positives)
        points.append(
            {
                "budget": name,
                "threshold": float(row[0]),
                "chosen_on": chosen_on,
                "false_alarms": {
                    "count": count,
                    "per_hour": count / hours,
                    "low": max(0.0, count - 1.9 * math.sqrt(count)) / hours,
                    "high": (count + 1.9 * math.sqrt(count) + 3) / hours,
                },
                "misses": {
                    "count": misses, "rate": misses / positives, "low": low, "high": high,
                },
                "confusions": {"count": 2, "per_hour": 2 / 1.5},
            }
        )  # fmt: skip
    return points


def make_result(
    folder,
    keywords,
    *,
    quality=3.0,
    seed=0,
    positives=600,
    negatives=3000,
    hours=3.2,
    params=135636,
    chosen_on="dev",
    checkpoint="exp/student/avg_30.pt",
):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries = []
    for keyword in keywords:
        good, bad = make_scores(rng, positives, negatives, quality + rng.normal(0, 0.2))
        table = det_table(good, bad, hours)
        rows = "\n".join(f"{t:.6f} {fa:.6f} {frr:.8f}" for t, fa, frr in table) + "\n"
        (folder / f"stats.{keyword.replace(' ', '_')}.txt").write_text(rows, encoding="utf-8")
        entries.append(
            {
                "keyword": keyword,
                "positives": positives,
                "negative_hours": hours,
                "negatives": negatives,
                "confusions": {"utterances": positives, "hours": 0.4},
                "operating_points": operating_points(table, positives, hours, chosen_on)
                if positives
                else [],
            }
        )
    summary = {
        "checkpoint": str(checkpoint), "params": params, "decoder": "keyword",
        "dataset": "test", "keywords": entries,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return folder


def make_run(
    exp_dir, *, epochs=12, start=188.0, floor=2.7, has_kd=True, seed=0, params=135636,
    start_from="random", max_epoch=None, model=None,
):  # fmt: skip
    """A training run: metrics.jsonl, config.yaml, run.json."""
    exp_dir = Path(exp_dir)
    exp_dir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for epoch in range(-1, epochs):
        ctc = start if epoch < 0 else floor + 18 * math.exp(-0.5 * epoch) + rng.normal(0, 0.05)
        kd = 0.7 * ctc if has_kd else 0.0
        accuracy = 0.02 if epoch < 0 else 0.86 * (1 - math.exp(-0.4 * (epoch + 0.5)))
        row = {
            "kind": "cv", "epoch": epoch, "cv_loss": ctc, "cv_kd": kd,
            "cv_accuracy": accuracy, "cv_keyword_accuracy": min(1.0, accuracy * 1.12), "lr": 1e-3,
        }  # fmt: skip
        if epoch >= 0:
            row["seconds"] = 21.5
            row |= {"train_ctc": 1.1 * ctc, "train_kd": 1.1 * kd, "train_loss": ctc}
            rows.append({"kind": "step", "epoch": epoch, "step": 10 * epoch, "ctc": ctc})
        rows.append(row)
    lines = "\n".join(json.dumps(row) for row in rows) + "\n"
    (exp_dir / "metrics.jsonl").write_text(lines, encoding="utf-8")
    config = {
        "model": model or {},
        "optim_conf": {"lr": 1e-3},
        "training_config": {"max_epoch": max_epoch or epochs},
    }
    (exp_dir / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run = {
        "command": "python -m wekws.bin.train_distill",
        "start": start_from,
        "seed": seed,
        "num_parameters": params,
        "train_data": "data/x",
    }
    write_json(exp_dir / "run.json", run)
    return exp_dir


def make_validation(path, long_recordings=False):
    rng = np.random.default_rng(5)
    splits = {}
    for name, count in (("train", 4000), ("dev", 700), ("test", 1800)):
        durations = np.round(rng.gamma(9, 0.25, count) + 0.4, 3)
        if long_recordings and name == "test":
            durations = np.append(durations, [612.0, 845.5])
        splits[name] = {
            "num_utterances": len(durations),
            "hours": float(durations.sum() / 3600),
            "durations": durations.tolist(),
            "keywords": {"嗨小问": count // 6, "你好问问": count // 6},
        }
    write_json(path, {"problems": [], "splits": splits})
    return path


def write_json(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
