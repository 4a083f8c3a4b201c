"""What a list of a million utterances costs before the first training step.

python benchmarks/scale.py [--num_utterances 1000000]

A list is generated, with a feature cache that is ready (a sparse file: its frames are zeros) and
audio files that do not exist. Each step runs in a process of its own; printed are its CPU seconds,
their ratio to those of reading the list, and its peak memory, all without importing the modules.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORDS = ("嗨小问", "你好问问", "今天天气怎么样", "打开音乐", "SMART MIRROR")
TOKENS = ("<blk>", "<filler>", *"嗨小问你好今天气打开音乐")
FRAMES = 60
SETTINGS = {"dataset_conf": {"batch_conf": {"batch_size": 64}}}


def write_corpus(folder: Path, num: int) -> None:
    """Write data.list, its cache, the Kaldi tables, dict.txt and keywords.txt."""
    from wekws.dataset.cache import cache_fingerprint, cache_path
    from wekws.dataset.dataset_conf import DatasetConfig
    from wekws.dataset.manifest import read_data_list

    tables = {name: open(folder / name, "w", encoding="utf-8") for name in ("wav.scp", "text")}
    with open(folder / "data.list", "w", encoding="utf-8") as stream:
        for i in range(num):
            text = WORDS[i % len(WORDS)]
            if i % 2:  # half of the texts occur once
                text += chr(0x4E00 + i % 5000) + chr(0x4E00 + i // 5000)
            row = {"key": f"utt{i:07d}", "txt": text, "duration": 0.615, "wav": f"/no/{i:07d}.wav"}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            tables["wav.scp"].write(f"{row['key']} {row['wav']}\n")
            tables["text"].write(f"{row['key']} {text}\n")
    for stream in tables.values():
        stream.close()
    (folder / "dict.txt").write_text(
        "".join(f"{token} {i}\n" for i, token in enumerate(TOKENS)), encoding="utf-8"
    )
    (folder / "keywords.txt").write_text("嗨小问\n你好问问\n", encoding="utf-8")
    view = DatasetConfig().cached_views(is_training=True)[0]
    cache = cache_path(folder / "cache", folder / "data.list", view.identity())
    cache.mkdir(parents=True)
    np.save(cache / "offsets.npy", np.arange(num + 1) * FRAMES)
    with open(cache / "feats.npy", "wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (num * FRAMES + 1, 80)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + (num * FRAMES + 1) * 80 * 4)
    fingerprint = cache_fingerprint(read_data_list(folder / "data.list"), view)
    meta = {"failures": {}, "conversions": {}, "fingerprint": fingerprint}
    (cache / "meta.json").write_text(json.dumps(meta))
    (folder / "train").mkdir()
    for name in tables:
        (folder / name).rename(folder / "train" / name)


def run_step(step: str, folder: Path) -> None:
    """Run one step and print what it cost."""
    from wekws.dataset import validate
    from wekws.dataset.dataset_conf import DatasetConfig
    from wekws.dataset.label_set import LabelSet
    from wekws.dataset.loader import epoch_plan
    from wekws.dataset.manifest import read_data_list
    from wekws.dataset.opening import open_dataset

    before, before_mib = resource.getrusage(resource.RUSAGE_SELF), peak_mib()
    labels = LabelSet.load(folder / "dict.txt", keywords_file=folder / "keywords.txt")
    if step == "read data.list":
        assert read_data_list(folder / "data.list")
    elif step == "open data set, plan an epoch":
        config = DatasetConfig()
        data = open_dataset(
            folder / "data.list", config, labels, cache_dir=folder / "cache", is_training=True
        )
        epoch_plan(data, batch_size=64, shuffle=True)
        data.fingerprint  # noqa: B018
        data.batch([0, len(data) - 1])
    else:
        report = validate.validate(folder, labels, DatasetConfig().front_end)
        report.write(folder / "validation")
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu_s": cpu_s, "mib": peak_mib() - before_mib}))


def peak_mib() -> float:
    """Return the peak memory of this process; that of getrusage includes its parent's (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


STEPS = ("read data.list", "open data set, plan an epoch", "validate, all audio missing")


def main() -> None:
    """Write the corpus, run every step in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_utterances", type=int, default=1_000_000, help="[%(default)s]")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        run_step(args.step[0], Path(args.step[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), args.num_utterances)
        print("CPU time, ratio to reading the list, memory")
        read_s = 0.0
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, folder]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            cost = json.loads(output.splitlines()[-1])
            read_s = read_s or cost["cpu_s"]
            ratio = cost["cpu_s"] / read_s
            print(f"{cost['cpu_s']:8.1f} s {ratio:6.1f} {cost['mib']:8.0f} MiB  {step}")
        size = (Path(folder) / "validation" / "validation.json").stat().st_size
        print(f"validation.json: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
