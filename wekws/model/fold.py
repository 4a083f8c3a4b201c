"""Fold the two output affines of a model, which have nothing between them, into one."""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from wekws.config import load_yaml_with_base, merge
from wekws.files import atomic_path, read_json
from wekws.model.checkpoint import load_model, model_of, require_other_folder, save_weights
from wekws.model.fsmn import OUT_LINEAR1, OUT_LINEAR2
from wekws.model.model import KwsModel, num_parameters
from wekws.model.model_conf import FSMNConfig, config_beside
from wekws.yaml_files import write_yaml

# Files that scoring reads from the folder of a checkpoint, beside its config.yaml.
_SCORING_FILES = ("dict.txt", "keywords.txt", "lexicon.txt", "global_cmvn")


@torch.no_grad()
def fold_head(model: KwsModel) -> KwsModel:
    """Return the same function with a merged head: ``W2 W1 x + (W2 b1 + b2)``.

    The products are computed in double precision. Everything else, CMVN included, is copied; a
    model whose head is merged already is copied whole. Returns: on the CPU, in eval mode.
    """
    state = model.state_dict()
    if not model.config.backbone.is_head_merged:
        first, first_bias = (state.pop(f"{OUT_LINEAR1}.{x}").double() for x in ("weight", "bias"))
        last, last_bias = (state[f"{OUT_LINEAR2}.{x}"].double() for x in ("weight", "bias"))
        state[f"{OUT_LINEAR2}.weight"] = last @ first
        state[f"{OUT_LINEAR2}.bias"] = last @ first_bias + last_bias
    backbone = dataclasses.replace(model.config.backbone, output_affine_dim=0)
    config = dataclasses.replace(model.config, backbone=backbone)
    return model_of(config, state, source="the folded head")


def why_larger(config: FSMNConfig, num_tokens: int) -> str:
    """Return the reason why folding adds parameters; empty where it does not.

    A merged head has linear_dim weights per token. A pair has output_affine_dim per token, plus
    linear_dim x output_affine_dim that all tokens share: with many tokens the pair is smaller.
    """
    width, inner = config.linear_dim, config.output_affine_dim
    if inner == 0 or width * num_tokens <= inner * (width + num_tokens + 1):
        return ""
    return (
        f"folding makes it larger: one affine of {width} x {num_tokens} weights in place of "
        f"{width} x {inner} and {inner} x {num_tokens}; with so many tokens the pair of rank "
        f"{inner} is the smaller form of the same function"
    )


@dataclass(frozen=True, kw_only=True)
class FoldedCheckpoint:
    """Result of ``fold_checkpoint``."""

    path: Path
    """Weights of the folded model, in a folder that scoring takes."""
    before: KwsModel
    """The given model."""
    after: KwsModel
    """The folded model."""

    @property
    def why_larger(self) -> str:
        """The reason why the folded model has more parameters; empty if it has fewer."""
        return why_larger(self.before.config.backbone, self.before.config.output_dim)


def fold_checkpoint(
    checkpoint: str | os.PathLike[str],
    *,
    out_dir: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
) -> FoldedCheckpoint:
    """Fold the head of a checkpoint and write ``folded.pt`` with all that scoring needs.

    config: configuration of the checkpoint; None: the ``config.yaml`` beside it.
    Raises: ConfigError if ``out_dir`` is the checkpoint's own folder, whose files it would replace.
    """
    checkpoint, out_dir = Path(checkpoint), Path(out_dir)
    require_other_folder(out_dir, checkpoint)
    config_path = config or config_beside(checkpoint)
    model = load_model(checkpoint, config_path)
    folded = fold_head(model)
    sizes = {"output_dim": model.config.output_dim, "backbone": {"output_affine_dim": 0}}
    save_weights(folded.state_dict(), out_dir / "folded.pt")
    write_yaml(out_dir / "config.yaml", merge(load_yaml_with_base(config_path), {"model": sizes}))
    _copy_scoring_files(checkpoint.parent, out_dir)
    _copy_run_record(checkpoint, out_dir, num_parameters(folded))
    return FoldedCheckpoint(path=out_dir / "folded.pt", before=model, after=folded)


def _copy_scoring_files(source_dir: Path, out_dir: Path) -> None:
    for name in _SCORING_FILES:
        if (source_dir / name).exists():
            with atomic_path(out_dir / name) as temporary:
                shutil.copyfile(source_dir / name, temporary)


def _copy_run_record(checkpoint: Path, out_dir: Path, num_params: int) -> None:
    """Copy ``run.json``, where there is one, with the folded model's number of parameters."""
    path = checkpoint.parent / "run.json"
    if path.exists():
        record = read_json(path) | {
            "num_parameters": num_params,
            "folded_from": str(checkpoint.resolve()),
        }
        with atomic_path(out_dir / "run.json") as temporary:
            text = json.dumps(record, indent=2, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")
