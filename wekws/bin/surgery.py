"""Cut a checkpoint's output layer down to a smaller dictionary, token by token.

python -m wekws.bin.surgery --checkpoint exp/base/final.pt --source_dict exp/base/dict.txt \
    --dict data/hi_xiaowen/dict/dict.txt --out_dir exp/teacher_init
"""

import argparse
import sys
from pathlib import Path

from wekws.dataset.vocabulary import Tokenizer, Vocabulary, lexicon_beside
from wekws.distill.output_surgery import cut_outputs, token_coverage
from wekws.log import run
from wekws.model.model import num_parameters


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    path = Path
    parser.add_argument("--checkpoint", type=path, required=True, help="weights of the model")
    parser.add_argument(
        "--config", type=path, help="the model's configuration [config.yaml beside the checkpoint]"
    )
    parser.add_argument(
        "--source_dict", type=path, required=True, help="dict.txt that the model was trained with"
    )
    parser.add_argument("--dict", type=path, required=True, help="dict.txt of the tokens to keep")
    parser.add_argument(
        "--text", type=path, help="training transcripts; prints the share of tokens that are kept"
    )
    parser.add_argument(
        "--lexicon",
        type=path,
        help="pronunciation lexicon (WORD unit unit ...) [lexicon.txt beside the checkpoint]",
    )
    parser.add_argument(
        "--out_dir", type=path, required=True,
        help="folder for init.pt, config.yaml, dict.txt and lexicon.txt; not the checkpoint's own",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Cut the outputs and print what was kept."""
    args = parse_arguments(argv)
    lexicon, coverage = args.lexicon or lexicon_beside(args.checkpoint), None
    if args.text:
        tokenizer, kept = Tokenizer(lexicon), Vocabulary.load(args.dict)
        coverage = token_coverage(args.text, tokenizer, kept)
    cut = cut_outputs(
        args.checkpoint,
        source_dict=args.source_dict,
        dictionary=args.dict,
        out_dir=args.out_dir,
        config=args.config,
        lexicon=lexicon,
    )
    num_tokens = cut.before.config.output_dim
    print(f"tokens kept      {cut.vocabulary.size:,} of {num_tokens:,}: {listed(cut.vocabulary)}")
    if coverage:
        share, num_tokens = coverage
        print(f"training tokens  {share:.2%} of {num_tokens:,} keep their own label")
    print(f"parameters       {num_parameters(cut.before):,} -> {num_parameters(cut.after):,}")
    print(cut.path)
    return 0


def listed(vocabulary: Vocabulary, most: int = 24) -> str:
    """Return the first tokens of a vocabulary, on one line."""
    tail = " ..." if vocabulary.size > most else ""
    return " ".join(vocabulary.tokens[:most]) + tail


if __name__ == "__main__":
    sys.exit(run(main))
