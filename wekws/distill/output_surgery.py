"""Output-layer surgery: the same model for a smaller vocabulary."""

from collections.abc import Mapping

from torch import Tensor

from wekws.dataset.vocabulary import Vocabulary
from wekws.errors import DataError

OUTPUT_LAYER = "backbone.out_linear2.linear"


def select_outputs(
    state: Mapping[str, Tensor], source: Vocabulary, target: Vocabulary
) -> dict[str, Tensor]:
    """Return a state dict whose outputs are the target's tokens, in the target's order.

    state: weights whose output row i is the source's token i. Rows go by token, never by
    position, so that the logit of every kept token stays what it was. A source with more tokens
    than the state has outputs is accepted as long as no token without an output is wanted.
    Raises: DataError naming every token that the source lacks or that has no output, or a state
    without output layer.
    """
    names = [f"{OUTPUT_LAYER}.weight", f"{OUTPUT_LAYER}.bias"]
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
