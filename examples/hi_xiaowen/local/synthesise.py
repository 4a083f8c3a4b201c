"""Synthesise a wake-word corpus in the on-disk layout of Mobvoi hotwords (SLR87).

Plan `demo` is a fixed corpus that shows that the recipe works; its figures do not predict the
quality of a product. Plan `wake_word` makes the speech to train any wake word from: keywords alone
and among other words, near misses that are found for them, general sentences.
"""

import wekws.bin  # noqa: F401  (an interrupt of the imports below ends in one line)

# isort: split
import argparse
import dataclasses
import functools
import hashlib
import json
import logging
import shutil
import sys
import time
import wave
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import acoustics
import numpy as np
import torch
from compose import WORDS_DIR, choose
from corpus_plan import SIZES as DEMO_SIZES
from corpus_plan import SPLITS, PlannedUtterance, plan_corpus, read_voices
from english import English
from espeak import library_paths, phonemes_of
from language import Language
from mandarin import Mandarin
from near_misses import LANGUAGES as SOUNDS
from near_misses import NearMissFinder
from processes import in_fresh_processes
from voice_sources import find_sources, speakers_of
from voices import EspeakEngine, EspeakSource, VoiceSource
from wake_word_plan import SIZES as WAKE_WORD_SIZES
from wake_word_plan import keywords_only, plan_wake_words, train_size

from wekws.errors import ConfigError, DataError
from wekws.files import atomic_path, file_sha256
from wekws.log import run
from wekws.machine import usable_cores
from wekws.sweep.synthesis_plan import ENGINES

logger = logging.getLogger(__name__)

LANGUAGES: dict[str, Callable[[list[str]], Language]] = {"zh": Mandarin, "en": English}
KEYWORDS = {"zh": "嗨小问,你好问问"}
AUDIO_DIR = "mobvoi_hotword_dataset"
RESOURCES_DIR = "mobvoi_hotword_dataset_resources"
STAMP = "synthesis.json"
CHUNK = 48  # utterances per process; it decides the bytes of the audio, so it is not an option
DRAWS = 4  # of an utterance on which the synthesiser crashes
BABBLE_CLIPS = 24
BED_S = {"tiny": 15.0, "small": 90.0, "full": 180.0, "large": 180.0, "long_test": 90.0}
BED_S |= {"quick": 90.0, "standard": 180.0}
BABBLE_SEED = 1_000_003
NEAR_MISSES_PER_KEYWORD = 240
PLANS: dict[str, Collection[str]] = {"demo": DEMO_SIZES, "wake_word": WAKE_WORD_SIZES}


class RecordedFacts(acoustics.RecordingFacts):
    """Facts of one recording in the JSON lists."""

    duration: float
    """Duration in s."""


def dry_speech(samples: np.ndarray) -> np.ndarray:
    """Trim (N,) float32 and bring it to RMS 1."""
    speech = acoustics.trim_silence(samples)
    return speech / np.float32(max(float(np.std(speech)), 1e-6))


def babble_clips(split_index: int, language: Language, seed: int) -> list[np.ndarray]:
    """Dry sentences by espeak-ng's voices of one split, the source of its babble noise."""
    torch.set_num_threads(1)
    engine = EspeakEngine(language.voices)
    rng = np.random.default_rng([seed, BABBLE_SEED, split_index])
    voices = read_voices()[SPLITS[split_index]]
    clips = []
    for _ in range(BABBLE_CLIPS):
        voice = f"{choose(rng, language.voices)}+{choose(rng, voices)}"
        text = language.sentence(rng, 5.0)
        clips.append(dry_speech(engine.speak_as(voice, text, "sentence", rng)))
    return clips


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write (N,) float32 in [-1, 1] as 16-bit mono."""
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(acoustics.SAMPLE_RATE_HZ)
        stream.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def render_chunk(
    utterances: Sequence[PlannedUtterance],
    pools: dict[str, acoustics.Pools],
    sources: Mapping[str, VoiceSource],
    audio_dir: Path,
) -> list[RecordedFacts]:
    """Write the recordings of a chunk of utterances; returns the facts of each, in order.

    utterances: of one engine. pools: split -> its rooms and noises. sources: by name.
    """
    torch.set_num_threads(1)
    engine = sources[utterances[0].engine].open(utterances[0].seed)
    rows = []
    for utterance in utterances:
        rng = np.random.default_rng(utterance.drawn_seed)
        pool = pools[utterance.split]
        if utterance.kind == "noise":
            samples, facts = acoustics.record_noise(utterance.duration_s, pool, rng)
        else:
            spoken = engine.speak(utterance.text, utterance.speaker, utterance.kind, rng)
            samples, facts = acoustics.record(dry_speech(spoken), pool, rng)
        write_wav(recording_path(audio_dir, utterance), samples)
        duration = round(len(samples) / acoustics.SAMPLE_RATE_HZ, 4)
        rows.append(RecordedFacts(**facts, duration=duration))
    return rows


def recording_path(audio_dir: Path, utterance: PlannedUtterance) -> Path:
    """Path of an utterance's recording."""
    return audio_dir / f"{utterance.utt_id}.wav"


def redrawn(utterances: Sequence[PlannedUtterance], audio_dir: Path) -> list[PlannedUtterance]:
    """Return a chunk whose synthesiser crashed, with another draw for the utterance that it was at.

    espeak-ng crashes with a few combinations of text, voice, rate and what it spoke before. The
    recordings of the chunk are removed: those there are tell how far the synthesiser came.
    Raises: DataError after DRAWS draws of the same utterance.
    """
    paths = [recording_path(audio_dir, utterance) for utterance in utterances]
    # A crash after the last recording counts for the last utterance.
    place = min(sum(path.exists() for path in paths), len(paths) - 1)
    for path in paths:
        path.unlink(missing_ok=True)
    culprit = utterances[place]
    spoken = f"'{culprit.text}' with voice {culprit.speaker}"
    if culprit.draw + 1 == DRAWS:
        raise DataError(
            f"{culprit.engine} crashed on {spoken}, {DRAWS} times at different rates and pitches; "
            f"give another --seed or other --engines"
        )
    logger.info("%s crashed on %s; another rate and pitch are tried", culprit.engine, spoken)
    changed = dataclasses.replace(culprit, draw=culprit.draw + 1)
    return [*utterances[:place], changed, *utterances[place + 1 :]]


def chunks_of(utterances: Sequence[PlannedUtterance]) -> list[list[PlannedUtterance]]:
    """Cut the plan into chunks of one engine each."""
    by_engine: dict[str, list[PlannedUtterance]] = {}
    for utterance in utterances:
        by_engine.setdefault(utterance.engine, []).append(utterance)
    return [
        group[start : start + CHUNK]
        for group in by_engine.values()
        for start in range(0, len(group), CHUNK)
    ]


def render(
    utterances: Sequence[PlannedUtterance],
    language: Language,
    sources: Sequence[VoiceSource],
    bed_s: float,
    seed: int,
    num_workers: int,
    audio_dir: Path,
) -> list[RecordedFacts]:
    """Write all recordings; returns the facts of each, in order.

    bed_s: length of the noise beds of each split.
    """
    babble = functools.partial(babble_clips, language=language, seed=seed)
    clips = list(in_fresh_processes(babble, range(len(SPLITS)), num_workers))
    pools = {
        split: acoustics.make_pools(clips[i], bed_s, [seed, BABBLE_SEED + 1, i])
        for i, split in enumerate(SPLITS)
    }
    task = functools.partial(
        render_chunk,
        pools=pools,
        # Noise has no voice; espeak-ng's source stands for it.
        sources={source.name: source for source in (EspeakSource(language.voices), *sources)},
        audio_dir=audio_dir,
    )
    chunks = chunks_of(utterances)
    redraw = functools.partial(redrawn, audio_dir=audio_dir)
    done = in_fresh_processes(task, chunks, num_workers, redraw)
    facts: dict[str, RecordedFacts] = {}
    for chunk, rows in zip(chunks, done, strict=True):
        facts |= {utterance.utt_id: row for utterance, row in zip(chunk, rows, strict=True)}
        if len(facts) % (20 * CHUNK) < CHUNK:
            logger.info("%d of %d utterances synthesised", len(facts), len(utterances))
    return [facts[utterance.utt_id] for utterance in utterances]


def write_resources(
    utterances: Sequence[PlannedUtterance],
    rows: Sequence[RecordedFacts],
    keywords: Sequence[str],
    resources_dir: Path,
) -> None:
    """Write Mobvoi's JSON lists, the transcripts and keywords.txt."""
    lists: dict[str, list[dict[str, object]]] = {
        f"{sign}_{split}": [] for split in SPLITS for sign in "pn"
    }
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for utterance, facts in zip(utterances, rows, strict=True):
        sign = "n" if utterance.keyword_id < 0 else "p"
        lists[f"{sign}_{utterance.split}"].append(
            {
                "utt_id": utterance.utt_id,
                "keyword_id": utterance.keyword_id,
                "speaker_id": utterance.speaker.replace(" ", "_") or None,
                "kind": utterance.kind,
                **facts,
            }
        )
        texts[utterance.split].append(f"{utterance.utt_id} {utterance.transcript}".rstrip())
    for name, entries in lists.items():
        write_text(resources_dir / f"{name}.json", json.dumps(entries, indent=1))
    for split, lines in texts.items():
        write_text(resources_dir / f"{split}.text", "\n".join(lines))
    write_text(resources_dir / "keywords.txt", "\n".join(keywords))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sources_fingerprint(language: str) -> str:
    """Hash of the code and word lists that decide the content of a corpus."""
    here = Path(__file__).parent
    paths = [*sorted(here.glob("*.py")), WORDS_DIR / f"{language}.yaml", WORDS_DIR / "voices.tsv"]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def summarise(utterances: Sequence[PlannedUtterance], rows: Sequence[RecordedFacts]) -> str:
    """Table of counts and hours by split and kind, and one of voices and hours by engine."""
    kinds: dict[tuple[str, str], list[float]] = {}
    engines: dict[str, list[float]] = {}
    voices: dict[str, set[str]] = {}
    for utterance, facts in zip(utterances, rows, strict=True):
        kinds.setdefault((utterance.split, utterance.kind), []).append(facts["duration"])
        if utterance.kind != "noise":
            engines.setdefault(utterance.engine, []).append(facts["duration"])
            voices.setdefault(utterance.engine, set()).add(utterance.speaker)
    lines = [f"{'split':6} {'kind':11} {'utterances':>10} {'hours':>7}"]
    for (split, kind), durations in kinds.items():
        lines.append(f"{split:6} {kind:11} {len(durations):10d} {sum(durations) / 3600:7.2f}")
    for engine, durations in engines.items():
        hours = sum(durations) / 3600
        lines.append(f"{engine}: {len(voices[engine])} voices, {hours:.2f} hours of speech")
    return "\n".join(lines)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the corpus")
    parser.add_argument(
        "--size",
        choices=dict.fromkeys([*DEMO_SIZES, *WAKE_WORD_SIZES]),
        help="number of utterances. demo: tiny, small, full, large (100,000), or long_test, which "
        "is small with 30 hours of negatives in the test set (default: small). wake_word: tiny, "
        "quick or standard (default: standard)",
    )
    parser.add_argument(
        "--plan",
        choices=PLANS,
        default="demo",
        help="demo: fixed corpus; wake_word: speech to train any wake word from "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--positives",
        type=int,
        help="wake_word: make a training set alone, with this number of utterances of each keyword",
    )
    parser.add_argument(
        "--eval_keywords_only",
        action="store_true",
        help="wake_word: dev and test without sentences and noise; their negatives are recordings",
    )
    parser.add_argument(
        "--voices",
        type=Path,
        action="append",
        default=[],
        help="wake_word: folder of Piper or Kokoro voices, see the README; may be repeated",
    )
    parser.add_argument(
        "--engines",
        default="",
        help=f"wake_word: some of {','.join(ENGINES)} (default: all that have voices)",
    )
    parser.add_argument(
        "--word_list",
        type=Path,
        help="wake_word: words to find near misses in, one per line, see near_misses.py",
    )
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        default="zh",
        help="language of the speech (default: %(default)s)",
    )
    parser.add_argument(
        "--keywords",
        default="",
        help=f"keywords, separated by commas (default for zh: {KEYWORDS['zh']}; required for en)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="random seed of the corpus (default: %(default)s)"
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=usable_cores(),
        help="number of processes; the corpus does not depend on it (default: all cores)",
    )
    return parser.parse_args(argv)


def parse_keywords(keywords: str, language: str) -> list[str]:
    """Split a comma-separated list of keywords; empty: the language's default.

    Raises: ConfigError when no keyword is left.
    """
    listed = keywords or KEYWORDS.get(language, "")
    result = [" ".join(k.upper().split()) for k in listed.split(",") if k.strip()]
    if not result:
        raise ConfigError(f'--language {language} needs --keywords "ONE,TWO WORDS"')
    return result


def plan_of(
    arguments: argparse.Namespace, language: Language, sources: Sequence[VoiceSource]
) -> list[PlannedUtterance]:
    """Plan the corpus that is asked for."""
    if arguments.plan == "demo":

        def phonemes(texts: list[str]) -> list[str]:
            task = functools.partial(phonemes_of, language.voices[0])
            return next(in_fresh_processes(task, [texts], 1))

        return plan_corpus(arguments.size, language, arguments.seed, phonemes)
    finder = NearMissFinder(language.keywords, SOUNDS[arguments.language](arguments.word_list))
    near_misses = {
        keyword: [near.text for near in finder.find(keyword, NEAR_MISSES_PER_KEYWORD)]
        for keyword in language.keywords
    }
    sizes = WAKE_WORD_SIZES[arguments.size]
    if arguments.positives is not None:
        sizes = {"train": train_size(arguments.positives)}
    if arguments.eval_keywords_only:
        sizes = {s: size if s == "train" else keywords_only(size) for s, size in sizes.items()}
    return plan_wake_words(sizes, language, near_misses, speakers_of(sources), arguments.seed)


def check(arguments: argparse.Namespace) -> None:
    """Fill in the default size; refuse options that do not fit the plan.

    Raises: ConfigError.
    """
    arguments.size = arguments.size or {"demo": "small", "wake_word": "standard"}[arguments.plan]
    if arguments.size not in PLANS[arguments.plan]:
        sizes = ", ".join(PLANS[arguments.plan])
        raise ConfigError(f"--size {arguments.size}: --plan {arguments.plan} has {sizes}")
    if arguments.positives is not None and arguments.positives < 1:
        raise ConfigError(f"--positives {arguments.positives}: expected at least 1")
    if arguments.plan == "demo":
        for name in ("positives", "eval_keywords_only", "voices", "engines", "word_list"):
            if getattr(arguments, name):
                raise ConfigError(f"--{name}: needs --plan wake_word")


def main(argv: Sequence[str] | None = None) -> int:
    """Synthesise a corpus, unless the folder already holds exactly this corpus."""
    arguments = parse_arguments(argv)
    check(arguments)
    keywords = parse_keywords(arguments.keywords, arguments.language)
    library_paths()
    language = LANGUAGES[arguments.language](keywords)
    engines = [name for name in arguments.engines.split(",") if name]
    sources = find_sources(arguments.language, language.voices, arguments.voices, engines)
    wanted = {
        "size": arguments.size,
        "language": arguments.language,
        "keywords": keywords,
        "seed": arguments.seed,
        "generator": sources_fingerprint(arguments.language),
    }
    if arguments.plan == "wake_word":
        words = arguments.word_list
        wanted |= {
            "plan": arguments.plan,
            "positives": arguments.positives,
            "eval_keywords_only": arguments.eval_keywords_only,
            "voices": {s.name: [file_sha256(path) for path in s.files] for s in sources},
            "word_list": file_sha256(words) if words else None,
        }
    stamp = arguments.out_dir / STAMP
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        print(f"{arguments.out_dir}: the corpus is complete, nothing to do")
        return 0
    started = time.monotonic()
    stamp.unlink(missing_ok=True)
    for name in (AUDIO_DIR, RESOURCES_DIR):
        shutil.rmtree(arguments.out_dir / name, ignore_errors=True)
        (arguments.out_dir / name).mkdir(parents=True)
    utterances = plan_of(arguments, language, sources)
    rows = render(
        utterances,
        language,
        sources,
        BED_S[arguments.size],
        arguments.seed,
        max(1, arguments.num_workers),
        arguments.out_dir / AUDIO_DIR,
    )
    write_resources(utterances, rows, keywords, arguments.out_dir / RESOURCES_DIR)
    write_text(stamp, json.dumps(wanted, ensure_ascii=False, indent=1))
    print(summarise(utterances, rows))
    print(f"{arguments.out_dir}: {len(rows)} utterances in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
