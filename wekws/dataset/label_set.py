"""What the outputs of a model stand for."""

import argparse
from dataclasses import dataclass

from wekws.dataset.vocabulary import Tokenizer, Vocabulary, read_keywords


@dataclass(frozen=True)
class Outputs:
    """What the model's outputs mean: the vocabulary, how text becomes tokens, the keywords."""

    vocabulary: Vocabulary
    tokenizer: Tokenizer
    keywords: tuple[str, ...]


def read_outputs(args: argparse.Namespace) -> Outputs:
    """Read dictionary, lexicon and keywords as the flags name them."""
    keywords = read_keywords(args.keywords_file) if args.keywords_file else ()
    return Outputs(Vocabulary.load(args.dict), Tokenizer(args.lexicon), tuple(keywords))
