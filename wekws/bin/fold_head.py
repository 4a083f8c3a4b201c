"""Fold a checkpoint's two output affines into one: the same logits from a merged head.

python -m wekws.bin.fold_head --checkpoint exp/student/avg_30.pt --out_dir exp/student_folded
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from wekws.config import load_yaml_with_base, merge
from wekws.errors import ConfigError
from wekws.files import atomic_path, write_yaml
from wekws.log import run
from wekws.model.checkpoint import config_beside, load_model, save_weights
from wekws.model.cost import num_parameters
from wekws.model.fold import fold_head, why_larger
from wekws.score.results import read_json

# What scoring takes from a checkpoint's folder, beside the configuration.
_BESIDE = ("dict.txt", "keywords.txt", "lexicon.txt", "global_cmvn")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights to fold")
    parser.add_argument("--config", type=Path, help="its configuration; default: beside it")
    parser.add_argument("--out_dir", type=Path, required=True, help="for folded.pt and the rest")
    args = parser.parse_args(argv)
    if args.out_dir.resolve() == args.checkpoint.parent.resolve():
        raise ConfigError(f"--out_dir {args.out_dir}: is the checkpoint's own; name another folder")
    return args


def main(argv: list[str] | None = None) -> int:
    """Load, fold, write a folder that evaluate.sh takes, say what it saved."""
    args = parse_arguments(argv)
    config_path = args.config or config_beside(args.checkpoint)
    model = load_model(args.checkpoint, config_path)
    folded = fold_head(model)
    sizes = {"output_dim": model.config.output_dim, "backbone": {"output_affine_dim": 0}}
    save_weights(folded.state_dict(), args.out_dir / "folded.pt")
    write_yaml(
        args.out_dir / "config.yaml", merge(load_yaml_with_base(config_path), {"model": sizes})
    )
    copy_beside(args.checkpoint, args.out_dir, num_parameters(folded))

    before, after = num_parameters(model), num_parameters(folded)
    print(f"parameters  {before:,} -> {after:,} ({after / before - 1:+.1%})")
    if model.config.backbone.is_head_merged:
        print("its head was merged already: a copy")
    if reason := why_larger(model.config.backbone, model.config.output_dim):
        print(reason)
    print(args.out_dir / "folded.pt")
    return 0


def copy_beside(checkpoint: Path, out_dir: Path, num_params: int) -> None:
    """Copy dictionary, keywords and what else scoring reads; run.json with the new size."""
    for name in _BESIDE:
        source = checkpoint.parent / name
        if source.exists():
            with atomic_path(out_dir / name) as temporary:
                shutil.copyfile(source, temporary)
    record_path = checkpoint.parent / "run.json"
    if record_path.exists():
        record = read_json(record_path) | {
            "num_parameters": num_params,
            "folded_from": str(checkpoint.resolve()),
        }
        with atomic_path(out_dir / "run.json") as temporary:
            text = json.dumps(record, indent=2, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run(main))
