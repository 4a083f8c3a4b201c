"""CPU time of training epochs and of scoring, as ratios to an epoch from cached features.

python benchmarks/epoch_speed.py [--utterances 1024] [--seconds 2.4] [--repeats 3]

The utterances take half to one and a half times ``--seconds``.

Everything is measured in this process on one thread, extraction included, importing torch (2 s)
not; the variants run in turn and the fastest of the repeats counts, so that other work on the
machine changes little. The column
beside WeKWS uses its own figures from a comparison on one machine, in which our cached epoch took
``OUR_CACHED_EPOCH_S``: the ratio there, times the ratio measured here.
"""

import argparse
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from wekws.config import to_mapping
from wekws.dataset.cmvn_stats import compute_cmvn, write_cmvn
from wekws.dataset.feature_view import AugmentConfig
from wekws.dataset.manifest import Utterance, write_data_list
from wekws.dataset.vocabulary import write_keywords
from wekws.score.scoring import score_list
from wekws.train.build import build_run
from wekws.train.distributed import start
from wekws.train.loop import Run, train_epoch
from wekws.train.options import TrainOptions
from wekws.train.train_config import TrainConfig, load_train_config
from wekws.yaml_files import write_yaml

# WeKWS 5a14b35 and this project, one thread each, CPU seconds of 1,024 utterances of 2.4 s (its
# epoch is without speed changes), and of 1,000 in scoring, of which importing torch takes 2.9.
WEKWS_EPOCH_S, OUR_CACHED_EPOCH_S, WEKWS_SCORING_S_PER_1000 = 14.9, 3.5, 23.5 - 2.9
RATE = 16000
CONFIG = "conf/fsmn_ctc_teacher.yaml"
LETTERS = "ABCDEFGHIJKLMNOPQR"
ONLINE = AugmentConfig(speeds=(0.9, 1.0, 1.1))
NOISY = AugmentConfig(speeds=(0.9, 1.0, 1.1), gain_db=(-6.0, 6.0), noise_prob=0.5, reverb_prob=0.3)


class Corpus:
    """Utterances of noise with random letters, and what a run needs beside them."""

    def __init__(self, folder: Path, num: int, seconds: float) -> None:
        self.folder, rng = folder, np.random.default_rng(0)
        utterances = []
        for i in range(num):
            path = folder / f"utt{i:05d}.wav"
            # As in real corpora, no two batches have the same number of frames.
            duration = seconds * (0.5 + (i + 0.5) / num)
            samples = rng.normal(0, 0.1, round(duration * RATE)).clip(-1, 1)
            soundfile.write(path, samples, RATE, subtype="PCM_16")
            text = " ".join(rng.choice(list(LETTERS), 4))
            utterances.append(Utterance(key=path.stem, wav=str(path), txt=text, duration=duration))
        self.train, self.cv = folder / "train.list", folder / "cv.list"
        write_data_list(self.train, utterances)
        write_data_list(self.cv, utterances[:2])
        self.dict, self.cmvn = folder / "dict.txt", folder / "global_cmvn"
        tokens = ["<blk>", "<filler>", *LETTERS]
        self.dict.write_text("".join(f"{t} {i}\n" for i, t in enumerate(tokens)), encoding="utf-8")
        self.keywords = folder / "keywords.txt"
        write_keywords(self.keywords, ["ABC"])
        config = load_train_config(CONFIG).dataset_conf
        config = dataclasses.replace(config, cache="none")
        write_cmvn(self.cmvn, compute_cmvn(self.cv, config, cache_dir=folder / "cache"))

    def run(self, name: str, dataset: dict, use_bf16: bool) -> Run:
        """Build a run; its features are extracted into a cache of its own where it has one."""
        config: TrainConfig = load_train_config(CONFIG)
        changed = dataclasses.replace(config.dataset_conf, **dataset)
        options = TrainOptions(
            config=dataclasses.replace(config, dataset_conf=changed),
            train_data=self.train,
            cv_data=self.cv,
            model_dir=self.folder / name,
            dict_path=self.dict,
            cmvn_file=self.cmvn,
            cache_dir=self.folder / f"cache_{name}",
            num_threads=1,
            device="cpu",
            use_bf16=use_bf16,
        )
        return build_run(options, start("cpu", 1))


def cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure_training(corpus: Corpus, repeats: int, precisions: list[bool]) -> dict[str, float]:
    """Return the CPU seconds of an epoch of each variant."""
    variants = {
        "cached features": {},
        "from audio, `cache: none`": {"cache": "none"},
        "speed changed online, `copies: 0`": {"augment_conf": ONLINE},
        "speed, noise, rooms online": {"augment_conf": NOISY},
    }
    runs, times = {}, {}
    corpus.run("warm-up", {}, False)
    for bf16 in precisions:
        for label, dataset in variants.items():
            name = f"{label}{', bf16' if bf16 else ''}"
            folder = str(len(runs))
            began = time.process_time()
            runs[name] = corpus.run(folder, dataset, bf16)
            if not dataset:
                extracted = time.process_time() - began
                # All else that building a run takes is no part of an epoch.
                shutil.rmtree(corpus.folder / folder)
                again = cpu_s(lambda f=folder, b=bf16: corpus.run(f, {}, b))
                times[f"cold: features extracted first{', bf16' if bf16 else ''}"] = (
                    extracted - again
                )
    for epoch in range(repeats):
        for name, run in runs.items():
            seconds = cpu_s(lambda run=run, epoch=epoch: train_epoch(run, epoch))
            times[name] = min(seconds, times.get(name, np.inf))
    for name in list(times):
        if name.startswith("cold"):
            times[name] += times["cached features" + (", bf16" if "bf16" in name else "")]
    return times


def measure_scoring(corpus: Corpus, repeats: int) -> dict[str, float]:
    """Return the CPU seconds of scoring the training list, with and without cached features."""
    run = corpus.run("scored", {}, False)
    model_dir = corpus.folder / "model"
    model_dir.mkdir()
    torch.save(run.model.state_dict(), model_dir / "final.pt")
    write_yaml(model_dir / "config.yaml", to_mapping(run.config))
    shutil.copy(corpus.dict, model_dir / "dict.txt")
    times = {}
    for repeat in range(repeats):
        for name in ("cold", "warm"):
            cache = corpus.folder / f"cache_scoring{repeat}"
            seconds = cpu_s(
                lambda cache=cache: score_list(
                    model_dir / "final.pt",
                    corpus.train,
                    corpus.folder / "scores",
                    keywords_file=corpus.keywords,
                    cache_dir=cache,
                    device="cpu",
                )
            )
            times[name] = min(seconds, times.get(name, np.inf))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--utterances", type=int, default=1024, help="training utterances (%(default)s)")
    add("--seconds", type=float, default=2.4, help="length of each in s (%(default)s)")
    add("--repeats", type=int, default=3, help="epochs; the fastest counts (%(default)s)")
    add("--no_bf16", action="store_true", help="leave out bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(Path(folder), args.utterances, args.seconds)
        times = measure_training(corpus, args.repeats, [False] if args.no_bf16 else [False, True])
        scoring = measure_scoring(corpus, args.repeats)
    base = times["cached features"]
    print(f"{args.utterances} utterances of {args.seconds} s, teacher, batch 64, one thread\n")
    print("| epoch | CPU ms per utterance | ratio to cached | times WeKWS's speed |")
    print("|---|---|---|---|")
    for name, value in times.items():
        speed = WEKWS_EPOCH_S / OUR_CACHED_EPOCH_S * base / value
        print(
            f"| {name} | {1000 * value / args.utterances:.2f} | {value / base:.2f} | {speed:.1f} |"
        )
    print("\n| scoring | CPU ms per utterance | ratio to a cached epoch | times WeKWS's speed |")
    print("|---|---|---|---|")
    for name, value in scoring.items():
        wekws_ratio = WEKWS_SCORING_S_PER_1000 * 1.024 / OUR_CACHED_EPOCH_S
        print(
            f"| {name} | {1000 * value / args.utterances:.2f} | {value / base:.2f} "
            f"| {wekws_ratio * base / value:.1f} |"
        )


if __name__ == "__main__":
    main()
