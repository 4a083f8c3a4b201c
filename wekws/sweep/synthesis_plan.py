"""Part of the recipe's plan: the speech that is synthesised, as the corpus or beside recordings."""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.negatives import scripts_of
from wekws.errors import ConfigError, did_you_mean

# Training utterances of each demo corpus: of each of two keywords, and others.
DEMO_SIZES = {
    "tiny": (15, 30), "small": (900, 3200), "full": (3500, 13900), "large": (7612, 45700),
}  # fmt: skip
DEMO_SIZES["long_test"] = DEMO_SIZES["small"]
# Training utterances of each keyword, near misses aside, by size with --from_text.
TEXT_SIZES = {"tiny": 12, "quick": 300, "standard": 1500}
# Utterances, near misses and sentences included, from which a base beside recordings learns
# phonemes: 300 of each of six keywords.
_BASE_UTTERANCES = 4200
ENGINES = ("espeak", "piper", "kokoro")
"""Synthesisers; the first one needs no files."""
# Scripts that the synthesiser reads, by language.
_SCRIPTS = {"en": {"LATIN"}, "zh": {"CJK"}}


@dataclass(frozen=True, kw_only=True)
class SynthesisPlan:
    """Options of the synthesiser, as the recipe passes them."""

    out_dir: Path
    """Folder of the synthesised corpus."""
    flags: tuple[str, ...]
    """Options of ``synthesise.py``, except folder, seed and processes."""
    num_train: int
    """Utterances of its training set."""
    is_beside_recordings: bool = False
    """Whether there are recordings as well: the base then learns from synthesised speech alone."""
    joins_recordings: bool = False
    """Whether teacher and student are trained on it too, beside the recordings."""
    summary: str
    """One line for the plan."""


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """Options of ``run_distill.sh`` that concern synthesis, as the user gave them."""

    from_text: bool
    """Whether there are no recordings."""
    size: str
    """Size of the corpus; empty: the default."""
    positives: int | None
    """Utterances of each keyword beside recordings; None: the default."""
    joins_recordings: bool
    """Whether teacher and student are trained on them too."""
    voices: tuple[Path, ...]
    """Folders of Piper and Kokoro voices."""
    engines: tuple[str, ...]
    """Engines to use; empty: all that have voices."""
    word_list: Path | None
    """Words to find near misses in."""

    def size_or_default(self) -> str:
        """Return the size of a synthesised corpus.

        Raises: ConfigError for one that does not exist.
        """
        sizes, default = (TEXT_SIZES, "quick") if self.from_text else (DEMO_SIZES, "small")
        size = self.size or default
        if size not in sizes:
            text = " with --from_text" if self.from_text else ""
            raise ConfigError(
                f"--size {size}: expected {' | '.join(sizes)}{text}{did_you_mean(size, sizes)}"
            )
        return size

    def plan(
        self,
        *,
        corpus: str,
        keywords: Sequence[str],
        language: str,
        lists: Path,
        download_dir: Path,
        has_negatives: bool,
        base_learns_phonemes: bool,
    ) -> SynthesisPlan | None:
        """Return what is synthesised for a run, None for nothing.

        base_learns_phonemes: a base is trained, and its tokens are espeak-ng's phonemes.
        Raises: ConfigError for options that do not fit, or if espeak-ng is needed and missing.
        """
        common = ("--language", language, "--keywords", ",".join(keywords))
        if corpus == "synth" and not self.from_text:
            self._refuse_unused("only --from_text and recordings (--data_dir) take it")
            size = self.size_or_default()
            per_keyword, others = DEMO_SIZES[size]
            return SynthesisPlan(
                out_dir=download_dir,
                flags=("--size", size, *common),
                num_train=per_keyword * min(2, len(keywords)) + others,
                summary=f"demo corpus, size {size}",
            )
        self._check_language(keywords, language)
        flags = ["--plan", "wake_word", *common]
        for folder in self.voices:
            flags += ["--voices", str(folder)]
        if self.engines:
            flags += ["--engines", ",".join(self.engines)]
        if self.word_list:
            flags += ["--word_list", str(self.word_list)]
        if self.from_text:
            self._check_voices()
            if self.positives:
                raise ConfigError("--synth_positives: only recordings take it; give --size")
            if self.joins_recordings:
                raise ConfigError("--synth_for: only recordings take it; leave it out")
            size = self.size_or_default()
            if has_negatives:
                flags.append("--eval_keywords_only")
            where = "--negatives" if has_negatives else "synthesised (--negatives gives others)"
            return SynthesisPlan(
                out_dir=download_dir,
                flags=(*flags, "--size", size),
                num_train=wake_word_utterances(len(keywords), TEXT_SIZES[size]),
                summary=f"all positives, size {size}; negatives of dev and test: {where}",
            )
        positives = self._positives(keywords, language, base_learns_phonemes)
        if not positives:
            self._refuse_unused("nothing is synthesised; give --synth_positives")
            return None
        self._check_voices()
        num_train = wake_word_utterances(len(keywords), positives)
        models = "base, teacher and student" if self.joins_recordings else "base"
        return SynthesisPlan(
            out_dir=lists / "synth",
            flags=(*flags, "--positives", str(positives)),
            num_train=num_train,
            is_beside_recordings=True,
            joins_recordings=self.joins_recordings,
            summary=f"{num_train} utterances for the {models}, {positives} of each keyword",
        )

    def _refuse_unused(self, reason: str) -> None:
        """Raise ConfigError for an option that has no effect."""
        given = {
            "synth_positives": self.positives,
            "synth_for": self.joins_recordings,
            "voices": self.voices,
            "engines": self.engines,
            "word_list": self.word_list,
        }
        if unused := [name for name, value in given.items() if value]:
            raise ConfigError(f"--{unused[0]}: {reason}")

    def _check_voices(self) -> None:
        """Check names and files, as far as they tell; the synthesiser opens the voices."""
        for engine in self.engines:
            if engine not in ENGINES:
                raise ConfigError(
                    f"--engines {engine}: expected {' | '.join(ENGINES)}"
                    f"{did_you_mean(engine, ENGINES)}"
                )
        if self.engines and not self.voices and ENGINES[0] not in self.engines:
            raise ConfigError(
                f"--engines {','.join(self.engines)}: have no voices of their own; give --voices"
            )
        if self.word_list is not None and not self.word_list.is_file():
            raise ConfigError(f"--word_list {self.word_list}: expected a file, one word per line")

    def _check_language(self, keywords: Sequence[str], language: str) -> None:
        if self.from_text and not can_pronounce(keywords, language):
            raise ConfigError(
                f"--from_text: cannot pronounce {', '.join(keywords)} in language {language}; "
                "expected Latin letters (en) or Chinese characters (zh)"
            )

    def _positives(self, keywords: Sequence[str], language: str, base_learns_phonemes: bool) -> int:
        """Return the number of synthesised utterances of each keyword beside recordings."""
        if self.positives is None:
            per_positive = wake_word_utterances(len(keywords), 1000) / 1000
            return round(_BASE_UTTERANCES / per_positive) if base_learns_phonemes else 0
        if not self.positives:
            return 0
        if not can_pronounce(keywords, language):
            raise ConfigError(
                f"--synth_positives {self.positives}: cannot pronounce {', '.join(keywords)} "
                f"in language {language}; give 0"
            )
        require_espeak(f"--synth_positives {self.positives}", "give 0")
        return self.positives


def wake_word_utterances(num_keywords: int, positives: int) -> int:
    """Return the training utterances that the synthesiser makes: keywords, near misses, others."""
    near_misses, noises = round(0.8 * positives), round(0.2 * positives)
    return num_keywords * (positives + near_misses) + 3 * positives + noises


def has_espeak() -> bool:
    """Return whether espeak-ng is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


def require_espeak(option: str, way_out: str) -> None:
    """Raise ConfigError if espeak-ng, which an option needs, is not installed."""
    if not has_espeak():
        raise ConfigError(
            f"{option}: espeak-ng is not installed; pip install -e .[synth], or {way_out}"
        )


def can_pronounce(keywords: Sequence[str], language: str) -> bool:
    """Return whether the synthesiser reads the keywords' letters in this language, zh or en."""
    scripts = scripts_of("".join(keywords))
    return bool(scripts) and scripts <= _SCRIPTS[language]


def corpus_name(keywords: Sequence[str], size: str) -> str:
    """Return the name of a corpus made from text: ``hey_orchard``, ``hey_orchard_quick``."""
    slugs = (re.sub(r"\W+", "_", keyword.lower()).strip("_") for keyword in keywords)
    suffix = "" if size == "standard" else f"_{size}"
    return "-".join(slugs)[:80] + suffix
