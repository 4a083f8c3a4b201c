"""Output-layer surgery: the same model with a smaller vocabulary."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from wekws.config import load_yaml_with_base, merge
from wekws.dataset.manifest import read_kaldi_table
from wekws.dataset.vocabulary import Tokenizer, Vocabulary, lexicon_beside
from wekws.errors import DataError
from wekws.files import atomic_path
from wekws.model.checkpoint import load_model, model_of, require_other_folder, save_weights
from wekws.model.fsmn import OUT_LINEAR2
from wekws.model.model import KwsModel
from wekws.model.model_conf import config_beside
from wekws.yaml_files import write_yaml


def select_outputs(
    state: Mapping[str, Tensor], source: Vocabulary, target: Vocabulary
) -> dict[str, Tensor]:
    """Return a state dict whose outputs are the target's tokens, in the target's order.

    state: weights whose output row i belongs to the source's token i. Rows are matched by token,
    not by position, so the logit of every kept token is unchanged. The source may have more
    tokens than the state has outputs, as long as no wanted token is among those without one.
    Raises: DataError naming every token that the source lacks or that has no output, or if the
    state has no output layer.
    """
    names = [f"{OUT_LINEAR2}.weight", f"{OUT_LINEAR2}.bias"]
    absent = [name for name in names if name not in state]
    if absent:
        raise DataError(f"weights hold no {' and no '.join(absent)}; expected an FSMN of WeKWS")
    rows = _rows_of(source, target, num_outputs=len(state[names[0]]))
    selected = {name: tensor.clone() for name, tensor in state.items()}
    for name in names:
        selected[name] = state[name][rows].clone()
    return selected


def _rows_of(source: Vocabulary, target: Vocabulary, num_outputs: int) -> list[int]:
    unknown = [token for token in target.tokens if token not in source.ids]
    if unknown:
        raise DataError(
            f"the source dictionary lacks {len(unknown)} of {target.size} wanted tokens: "
            f"{_quote(unknown)}; leave them out or train a base that has them"
        )
    rows = [source.ids[token] for token in target.tokens]
    outside = [source.tokens[row] for row in rows if row >= num_outputs]
    if outside:
        raise DataError(
            f"the model has {num_outputs} outputs, its dictionary {source.size} tokens; without "
            f"an output: {_quote(outside)}; give the dictionary the model was trained with"
        )
    return rows


def _quote(tokens: list[str], most: int = 20) -> str:
    shown = " ".join(f"'{token}'" for token in tokens[:most])
    return shown if len(tokens) <= most else f"{shown} and {len(tokens) - most} more"


@dataclass(frozen=True, kw_only=True)
class CutCheckpoint:
    """Result of ``cut_outputs``."""

    path: Path
    """Weights of the model with fewer outputs."""
    before: KwsModel
    """The given model."""
    after: KwsModel
    """The model with fewer outputs."""
    vocabulary: Vocabulary
    """Tokens that were kept."""


def cut_outputs(
    checkpoint: str | os.PathLike[str],
    *,
    source_dict: str | os.PathLike[str],
    dictionary: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    lexicon: str | os.PathLike[str] | None = None,
) -> CutCheckpoint:
    """Cut the output layer of a checkpoint down to the tokens of a smaller dictionary.

    Writes ``init.pt``, ``config.yaml``, ``dict.txt`` and a copy of the lexicon to ``out_dir``.
    source_dict: dictionary of the checkpoint. dictionary: tokens to keep. config: configuration of
    the checkpoint; None: the ``config.yaml`` beside it. lexicon: pronunciations; None: the
    ``lexicon.txt`` beside the checkpoint, if there is one.
    Raises: ConfigError if ``out_dir`` is the checkpoint's own folder, whose files it would
    replace; DataError, see ``select_outputs``.
    """
    checkpoint, out_dir = Path(checkpoint), Path(out_dir)
    require_other_folder(out_dir, checkpoint)
    config_path = config or config_beside(checkpoint)
    model = load_model(checkpoint, config_path)
    source, target = Vocabulary.load(source_dict), Vocabulary.load(dictionary)
    state = select_outputs(model.state_dict(), source, target)
    smaller = model_of(model.config.with_output_dim(target.size), state, source=str(checkpoint))
    content = merge(load_yaml_with_base(config_path), {"model": {"output_dim": target.size}})
    save_weights(smaller.state_dict(), out_dir / "init.pt")
    write_yaml(out_dir / "config.yaml", content)
    target.save(out_dir / "dict.txt")
    if lexicon := lexicon or lexicon_beside(checkpoint):
        with atomic_path(out_dir / "lexicon.txt") as temporary:
            shutil.copyfile(lexicon, temporary)
    else:
        (out_dir / "lexicon.txt").unlink(missing_ok=True)  # that of an earlier surgery
    return CutCheckpoint(path=out_dir / "init.pt", before=model, after=smaller, vocabulary=target)


def token_coverage(
    text_path: str | os.PathLike[str], tokenizer: Tokenizer, vocabulary: Vocabulary
) -> tuple[float, int]:
    """Return the share of a text's tokens that are in the vocabulary, and the number of tokens.

    text_path: Kaldi's ``text``.
    Raises: DataError if it has no tokens.
    """
    texts = read_kaldi_table(text_path).values()
    tokens = [token for text in texts for token in tokenizer.tokenise(text)]
    if not tokens:
        raise DataError(f"{text_path}: no tokens; expected `utterance transcript` lines")
    return sum(token in vocabulary.ids for token in tokens) / len(tokens), len(tokens)
