"""CPU time and memory until a data list of a million lines is ready, as ratios to its reading.

python benchmarks/million_lines.py [--lines 1000000]

The list names files that do not exist; the feature cache over it is a sparse file that is never
read. Memory is the peak of this process beyond what importing the project takes.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from wekws.dataset.cache import cache_fingerprint, cache_path
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.label_set import LabelSet
from wekws.dataset.loader import epoch_plan
from wekws.dataset.manifest import Utterance, read_data_list, write_data_list
from wekws.dataset.opening import open_dataset
from wekws.dataset.vocabulary import Tokenizer, Vocabulary

FRAMES = 200
CHARACTERS = "嗨小问你好天地人上下左右大中国去来"
LABELS = LabelSet(
    vocabulary=Vocabulary(("<blk>", "<filler>", *CHARACTERS)),
    tokenizer=Tokenizer(),
    keywords=("嗨小问", "你好"),
)


def write_list(path: Path, num_lines: int) -> None:
    rng = np.random.default_rng(0)
    characters = np.array(list(CHARACTERS))
    texts = ["".join(row) for row in characters[rng.integers(len(characters), size=(num_lines, 8))]]
    write_data_list(
        path,
        (
            Utterance(key=f"utt{i:08d}", wav=f"/corpus/utt{i:08d}.wav", txt=text, duration=2.02)
            for i, text in enumerate(texts)
        ),
    )


def write_cache(data_list: Path, config: DatasetConfig, cache_dir: Path) -> None:
    """Write a cache of the list whose features are a hole in a file."""
    utterances, view = read_data_list(data_list), config.view(is_training=True)
    directory = cache_path(cache_dir, data_list, view.identity())
    directory.mkdir(parents=True)
    shape = (FRAMES * len(utterances) + 1, config.fbank_conf.num_mel_bins)
    np.lib.format.open_memmap(directory / "feats.npy", "w+", np.float32, shape)
    np.save(directory / "offsets.npy", np.arange(len(utterances) + 1) * FRAMES)
    meta = {"failures": {}, "fingerprint": cache_fingerprint(utterances, view)}
    (directory / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="utterances (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where lists were made before; none: made now")
    args = parser.parse_args()
    config = DatasetConfig()
    if args.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), config, args.lines)
            measure(Path(folder), config)
    elif not (args.folder / "data.list").exists():
        prepare(args.folder, config, args.lines)
        print(f"{args.folder}: made; run the same command again to measure")
    else:
        measure(args.folder, config)


def prepare(folder: Path, config: DatasetConfig, num_lines: int) -> None:
    write_list(folder / "data.list", num_lines)
    write_cache(folder / "data.list", config, folder / "cache")


def measure(folder: Path, config: DatasetConfig) -> None:
    data_list, before = folder / "data.list", peak_gib()
    times, began = {}, time.process_time()
    read_data_list(data_list)
    times["list read"] = time.process_time() - began
    began = time.process_time()
    dataset = open_dataset(data_list, config, LABELS, cache_dir=folder / "cache", is_training=True)
    times["data set opened, reading included"] = time.process_time() - began
    began = time.process_time()
    dataset.fingerprint  # noqa: B018
    times["fingerprint for run.json"] = time.process_time() - began
    began = time.process_time()
    plan = epoch_plan(dataset, batch_size=64, shuffle=True)
    times["epoch planned"] = time.process_time() - began
    print(
        f"{len(dataset)} utterances, {len(plan)} steps; peak {peak_gib() - before:.2f} GiB more\n"
    )
    print("| part | CPU s | ratio to reading |")
    print("|---|---|---|")
    for name, value in times.items():
        print(f"| {name} | {value:.2f} | {value / times['list read']:.2f} |")


if __name__ == "__main__":
    main()
