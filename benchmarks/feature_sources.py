"""Dev loss and CPU time of runs that differ in the source of their features, as ratios to a cache.

python benchmarks/feature_sources.py --train_data data/X/train/data.list --cv_data \
data/X/dev/data.list --dict data/X/dict/dict.txt --cmvn_file data/X/global_cmvn

Trains from a cache in float32 and in float16, from the audio itself, and from shards (package
webdataset) that are written first, once per seed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from wekws.dataset.shards import write_shards
from wekws.runlog.metrics_reader import read_metrics
from wekws.train.build import train_model
from wekws.train.options import TrainOptions
from wekws.train.train_config import load_train_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add, path = parser.add_argument, Path
    add("--config", type=path, default=Path("conf/fsmn_ctc_teacher.yaml"), help="[%(default)s]")
    add("--train_data", type=path, required=True, help="list of audio files to train on")
    add("--cv_data", type=path, required=True, help="list of the dev set")
    add("--dict", type=path, required=True, help="dictionary of the model's outputs")
    add("--cmvn_file", type=path, required=True, help="global_cmvn")
    add("--epochs", type=int, default=12, help="length of a run (%(default)s)")
    add("--seeds", type=int, default=4, help="runs of each source (%(default)s)")
    add("--shard_size", type=int, default=500, help="utterances per shard (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(args.train_data, Path(folder) / "s", shard_size=args.shard_size)
        sources = {
            "cache, float32": (args.train_data, "float32"),
            "cache, float16": (args.train_data, "float16"),
            "audio, no cache": (args.train_data, "none"),
            "shards": (shards, "float32"),
        }
        losses: dict[str, list[float]] = {name: [] for name in sources}
        seconds: dict[str, list[float]] = {name: [] for name in sources}
        for seed in range(args.seeds):
            for name, (train_data, cache) in sources.items():
                lengths = f"training_config.max_epoch={args.epochs}"
                model_dir, began = Path(folder) / f"{name}{seed}", time.process_time()
                train_model(
                    TrainOptions(
                        config=load_train_config(
                            args.config, [lengths, f"dataset_conf.cache={cache}"]
                        ),
                        train_data=train_data,
                        cv_data=args.cv_data,
                        model_dir=model_dir,
                        dict_path=args.dict,
                        cmvn_file=args.cmvn_file,
                        cache_dir=Path(folder) / "cache",
                        seed=seed,
                        num_threads=1,
                        device="cpu",
                    )
                )
                rows = [row for row in read_metrics(model_dir) if row["kind"] == "cv"]
                losses[name].append(rows[-1]["cv_loss"])
                seconds[name].append(time.process_time() - began)
    print(
        f"{args.epochs} epochs, {args.seeds} seeds; before the first step {rows[0]['cv_loss']:.2f}"
    )
    print(
        "\n| features | dev loss: mean | lowest to highest | CPU time, ratio |\n|---|---|---|---|"
    )
    base = min(seconds["cache, float32"])
    for name, values in losses.items():
        print(
            f"| {name} | {statistics.mean(values):.2f} | {min(values):.2f} to {max(values):.2f} "
            f"| {min(seconds[name]) / base:.2f} |"
        )


if __name__ == "__main__":
    main()
