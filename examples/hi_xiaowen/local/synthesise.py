"""Synthesise a wake-word corpus in the on-disk layout of Mobvoi hotwords (SLR87).

The speech comes from espeak-ng. Figures on this corpus show that the recipe works; they do not
predict the quality of a product.
"""

import argparse
import functools
import hashlib
import json
import logging
import shutil
import sys
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import acoustics
import numpy as np
import torch
from compose import WORDS_DIR, choose
from corpus_plan import SIZES, SPLITS, PlannedUtterance, plan_corpus, read_voices
from english import English
from espeak import Espeak, library_paths, phonemes_of
from language import Language
from mandarin import Mandarin
from processes import in_fresh_processes

from wekws.errors import ConfigError
from wekws.files import atomic_path
from wekws.log import run
from wekws.machine import usable_cores

logger = logging.getLogger(__name__)

LANGUAGES: dict[str, Callable[[list[str]], Language]] = {"zh": Mandarin, "en": English}
KEYWORDS = {"zh": "嗨小问,你好问问"}
AUDIO_DIR = "mobvoi_hotword_dataset"
RESOURCES_DIR = "mobvoi_hotword_dataset_resources"
STAMP = "synthesis.json"
CHUNK = 48  # utterances per process; it decides the bytes of the audio, so it is not an option
BABBLE_CLIPS = 24
BED_S = {"tiny": 15.0, "small": 90.0, "full": 180.0, "long_test": 90.0}
BABBLE_SEED = 1_000_003
RATE_WPM = {"sentence": (170, 270), "short": (115, 220)}  # keywords are slower than sentences
PITCH = (25, 78)
PITCH_RANGE = (25, 80)


class RecordedFacts(acoustics.RecordingFacts):
    """Facts of one recording in the JSON lists."""

    duration: float
    """Duration in s."""


def dry_speech(
    espeak: Espeak,
    resample: acoustics.Resampler,
    text: str,
    voice: str,
    kind: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Synthesise a text with a random speaking rate, pitch and intonation range.

    Returns: (N,) float32 at 16 kHz, trimmed, with RMS 1.
    """
    espeak.set_voice(voice)
    samples = espeak.synthesise(
        text,
        rate=int(rng.integers(*RATE_WPM.get(kind, RATE_WPM["short"]))),
        pitch=int(rng.integers(*PITCH)),
        pitch_range=int(rng.integers(*PITCH_RANGE)),
        seed=int(rng.integers(2**31)),
    )
    speech = acoustics.trim_silence(resample(samples.astype(np.float32) / 32768))
    return speech / np.float32(max(float(np.std(speech)), 1e-6))


def start_synthesiser() -> tuple[Espeak, acoustics.Resampler]:
    """Start the synthesiser of this worker process, and its resampler to 16 kHz."""
    torch.set_num_threads(1)
    espeak = Espeak()
    return espeak, acoustics.Resampler(espeak.sample_rate_hz, acoustics.SAMPLE_RATE_HZ)


def babble_clips(split_index: int, language: Language, seed: int) -> list[np.ndarray]:
    """Dry sentences by the voices of one split, the source of its babble noise."""
    espeak, resample = start_synthesiser()
    rng = np.random.default_rng([seed, BABBLE_SEED, split_index])
    voices = read_voices()[SPLITS[split_index]]
    clips = []
    for _ in range(BABBLE_CLIPS):
        voice = f"{choose(rng, language.voices)}+{choose(rng, voices)}"
        text = language.sentence(rng, 5.0)
        clips.append(dry_speech(espeak, resample, text, voice, "sentence", rng))
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
    voices: Sequence[str],
    audio_dir: Path,
) -> list[RecordedFacts]:
    """Write the recordings of a chunk of utterances; returns the facts of each, in order.

    pools: split -> its rooms and noises. voices: espeak-ng voices of the language.
    """
    espeak, resample = start_synthesiser()
    rows = []
    for utterance in utterances:
        rng = np.random.default_rng(utterance.seed)
        pool = pools[utterance.split]
        if utterance.kind == "noise":
            samples, facts = acoustics.record_noise(utterance.duration_s, pool, rng)
        else:
            voice = f"{choose(rng, voices)}+{utterance.speaker}"
            speech = dry_speech(espeak, resample, utterance.text, voice, utterance.kind, rng)
            samples, facts = acoustics.record(speech, pool, rng)
        write_wav(audio_dir / f"{utterance.utt_id}.wav", samples)
        duration = round(len(samples) / acoustics.SAMPLE_RATE_HZ, 4)
        rows.append(RecordedFacts(**facts, duration=duration))
    return rows


def render(
    utterances: Sequence[PlannedUtterance],
    language: Language,
    size: str,
    seed: int,
    num_workers: int,
    audio_dir: Path,
) -> list[RecordedFacts]:
    """Write all recordings; returns the facts of each, in order."""
    babble = functools.partial(babble_clips, language=language, seed=seed)
    clips = list(in_fresh_processes(babble, range(len(SPLITS)), num_workers))
    pools = {
        split: acoustics.make_pools(clips[i], BED_S[size], [seed, BABBLE_SEED + 1, i])
        for i, split in enumerate(SPLITS)
    }
    task = functools.partial(render_chunk, pools=pools, voices=language.voices, audio_dir=audio_dir)
    starts = range(0, len(utterances), CHUNK)
    chunks = [utterances[start : start + CHUNK] for start in starts]
    rows: list[RecordedFacts] = []
    for done in in_fresh_processes(task, chunks, num_workers):
        rows += done
        if len(rows) % (20 * CHUNK) < CHUNK:
            logger.info("%d of %d utterances synthesised", len(rows), len(utterances))
    return rows


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
    module = {"zh": "mandarin", "en": "english"}[language]
    names = ["acoustics", "compose", "corpus_plan", "espeak", "synthesise", module]
    paths = [here / f"{name}.py" for name in names]
    paths += [WORDS_DIR / f"{language}.yaml", WORDS_DIR / "voices.tsv"]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def summarise(utterances: Sequence[PlannedUtterance], rows: Sequence[RecordedFacts]) -> str:
    """Table of counts and hours by split and kind."""
    totals: dict[tuple[str, str], tuple[int, float]] = {}
    for utterance, facts in zip(utterances, rows, strict=True):
        count, seconds = totals.get((utterance.split, utterance.kind), (0, 0.0))
        totals[utterance.split, utterance.kind] = (count + 1, seconds + facts["duration"])
    lines = [f"{'split':6} {'kind':11} {'utterances':>10} {'hours':>7}"]
    for (split, kind), (count, seconds) in totals.items():
        lines.append(f"{split:6} {kind:11} {count:10d} {seconds / 3600:7.2f}")
    return "\n".join(lines)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the corpus")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="small",
        help="number of utterances; long_test is small with 30 hours of negatives in the test set "
        "(default: %(default)s)",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Synthesise a corpus, unless the folder already holds exactly this corpus."""
    arguments = parse_arguments(argv)
    keywords = parse_keywords(arguments.keywords, arguments.language)
    library_paths()
    wanted = {
        "size": arguments.size,
        "language": arguments.language,
        "keywords": keywords,
        "seed": arguments.seed,
        "generator": sources_fingerprint(arguments.language),
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
    language = LANGUAGES[arguments.language](keywords)
    num_workers = max(1, arguments.num_workers)

    def phonemes(texts: list[str]) -> list[str]:
        task = functools.partial(phonemes_of, language.voices[0])
        return next(in_fresh_processes(task, [texts], 1))

    utterances = plan_corpus(arguments.size, language, arguments.seed, phonemes)
    audio_dir = arguments.out_dir / AUDIO_DIR
    rows = render(utterances, language, arguments.size, arguments.seed, num_workers, audio_dir)
    write_resources(utterances, rows, keywords, arguments.out_dir / RESOURCES_DIR)
    write_text(stamp, json.dumps(wanted, ensure_ascii=False, indent=1))
    print(summarise(utterances, rows))
    print(f"{arguments.out_dir}: {len(rows)} utterances in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
