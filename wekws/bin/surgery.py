"""Cut a checkpoint's output layer down to a smaller dictionary, token by token.

python -m wekws.bin.surgery --checkpoint exp/base/final.pt --source_dict exp/base/dict.txt \
    --dict data/hi_xiaowen/dict/dict.txt --out_dir exp/teacher_init
"""

import argparse
import sys
from pathlib import Path

from wekws.config import load_yaml_with_base, merge
from wekws.dataset.manifest import read_kaldi_table
from wekws.dataset.vocabulary import Tokenizer, Vocabulary
from wekws.distill.output_surgery import select_outputs
from wekws.errors import DataError
from wekws.files import write_yaml
from wekws.log import run
from wekws.model.checkpoint import config_beside, load_model, model_of, save_weights
from wekws.model.cost import num_parameters


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights to cut")
    parser.add_argument("--config", type=Path, help="its configuration; default: beside it")
    parser.add_argument("--source_dict", type=Path, required=True, help="its dictionary")
    parser.add_argument("--dict", type=Path, required=True, help="dictionary to keep")
    parser.add_argument("--text", type=Path, help="training text, to say how much of it is kept")
    parser.add_argument("--lexicon", type=Path, help="word to units, for --text")
    parser.add_argument("--out_dir", type=Path, required=True, help="for init.pt, config, dict.txt")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Load, select, write, say what was kept."""
    args = parse_arguments(argv)
    config_path = args.config or config_beside(args.checkpoint)
    model = load_model(args.checkpoint, config_path)
    source, target = Vocabulary.load(args.source_dict), Vocabulary.load(args.dict)
    state = select_outputs(model.state_dict(), source, target)

    smaller = model_of(
        model.config.with_output_dim(target.size), state, source=str(args.checkpoint)
    )
    content = merge(load_yaml_with_base(config_path), {"model": {"output_dim": target.size}})
    save_weights(smaller.state_dict(), args.out_dir / "init.pt")
    write_yaml(args.out_dir / "config.yaml", content)
    target.save(args.out_dir / "dict.txt")

    print(f"tokens kept      {target.size:,} of {model.config.output_dim:,}: {kept(target)}")
    if args.text:
        share, num_tokens = coverage(args.text, Tokenizer(args.lexicon), target)
        print(f"training tokens  {share:.2%} of {num_tokens:,} keep their own label")
    print(f"parameters       {num_parameters(model):,} -> {num_parameters(smaller):,}")
    print(args.out_dir / "init.pt")
    return 0


def kept(vocabulary: Vocabulary, most: int = 24) -> str:
    """Return the first tokens of a vocabulary in a line."""
    tail = " ..." if vocabulary.size > most else ""
    return " ".join(vocabulary.tokens[:most]) + tail


def coverage(text_path: Path, tokenizer: Tokenizer, vocabulary: Vocabulary) -> tuple[float, int]:
    """Return the share of a text's tokens that are in the vocabulary, and how many it has.

    Raises: DataError if it has none.
    """
    texts = read_kaldi_table(text_path).values()
    tokens = [token for text in texts for token in tokenizer.tokenise(text)]
    if not tokens:
        raise DataError(f"{text_path}: no tokens; expected `utterance transcript` lines")
    return sum(token in vocabulary.ids for token in tokens) / len(tokens), len(tokens)


if __name__ == "__main__":
    sys.exit(run(main))
