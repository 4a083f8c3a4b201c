"""Part of the recipe's plan: what the tokens are, letters and characters or a lexicon's units."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.manifest import kaldi_rows
from wekws.dataset.token_selection import select_tokens
from wekws.dataset.vocabulary import Tokenizer, Vocabulary, lexicon_beside, parse_keywords
from wekws.errors import ConfigError
from wekws.shell import UserPaths
from wekws.sweep.recipe_options import RecipeOptions
from wekws.sweep.synthesis_plan import can_pronounce, has_espeak, require_espeak


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """Tokens of all models of a run."""

    lexicon: Path | None = None
    """Pronunciation lexicon; None: letters and characters are the tokens."""
    is_made: bool = False
    """Whether stage 0 writes the lexicon: espeak-ng's phonemes, or initials and finals."""

    @property
    def made(self) -> tuple[Path, ...]:
        """The lexicon if stage 0 writes it."""
        return (self.lexicon,) if self.lexicon is not None and self.is_made else ()

    def summary(self, language: str) -> str:
        """Return one line for the plan."""
        if self.lexicon is None:
            return "characters" if language == "zh" else "letters"
        if self.is_made:
            units = "initials and finals" if language == "zh" else "phonemes of espeak-ng"
            return f"{units} -> {self.lexicon}"
        return f"units of {self.lexicon}"

    def vocabulary(self, options: RecipeOptions, lists: Path) -> Vocabulary | None:
        """Return the tokens of teacher and student, as stage 0 has made them or would make them.

        None: the lists that they are of do not exist yet.
        """
        made, text = lists / "dict" / "dict.txt", lists / "train" / "text"
        if options.stage > 0:
            return Vocabulary.load(made)
        lexicon = self.lexicon
        if not made.is_file() or not text.is_file() or (lexicon and not lexicon.is_file()):
            return None
        return select_tokens(
            [row.value for row in kaldi_rows(text)],
            parse_keywords(options.keywords),
            tokenizer=Tokenizer(lexicon),
            num_tokens=None if options.num_tokens == "all" else int(options.num_tokens),
        ).vocabulary


def _require_entries(tokenizer: Tokenizer, keywords: Sequence[str], lexicon: Path) -> None:
    """Refuse a lexicon that lacks a word of the keywords, which would be spelt in letters."""
    if missing := sorted({word for keyword in keywords for word in tokenizer.spelt(keyword)}):
        raise ConfigError(
            f"--lexicon {lexicon}: no entry for {', '.join(missing)} of the keywords; add a line "
            f"such as `{missing[0]} unit unit ...`"
        )


def plan_tokens(
    options: RecipeOptions,
    paths: UserPaths,
    *,
    lists: Path,
    keywords: Sequence[str],
    language: str,
) -> TokenPlan:
    """Resolve ``--units`` and ``--lexicon``.

    Raises: ConfigError for options that contradict each other, and if espeak-ng is needed and
    missing; DataError for a damaged lexicon.
    """
    if options.lexicon:
        if options.units != "auto":
            raise ConfigError(f"--units {options.units}: --lexicon gives the units; leave out one")
        given = paths.find(options.lexicon, "--lexicon")
        _require_entries(Tokenizer(given), keywords, given)
        return TokenPlan(lexicon=given)
    is_spoken = can_pronounce(keywords, language)
    is_english = is_spoken and language == "en"
    lexicon = lists / "dict" / "lexicon.txt"
    made = TokenPlan(lexicon=lexicon, is_made=True)
    if options.units == "phonemes":
        if not is_spoken:
            raise ConfigError(
                f"--units phonemes: cannot pronounce {', '.join(keywords)} in language {language}; "
                "give --units letters, or --lexicon"
            )
        if is_english:
            require_espeak("--units phonemes", "give --units letters")
        return made
    if options.units == "letters":
        return TokenPlan()
    # What a given model was trained with, or the lists were made with, stays.
    if given_model := options.teacher_checkpoint or options.base_checkpoint:
        return TokenPlan(lexicon=lexicon_beside(paths.place(given_model)))
    if (lists / "dict" / "dict.txt").exists():
        return made if lexicon.exists() else TokenPlan()
    own_word = options.from_text or options.data_dir or options.corpus == "kaldi"
    return made if own_word and is_english and has_espeak() else TokenPlan()
