"""Synthesise a wake-word corpus in the on-disk layout of Mobvoi hotwords (SLR87).

Speech is espeak-ng's, so figures on it say that the recipe works, not how a product would do.
"""

import argparse
import functools
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
import wave
from pathlib import Path

import acoustics
import numpy as np
import torch
from compose import WORDS_DIR, choose
from corpus_plan import SIZES, SPLITS, plan_corpus, read_voices
from english import English
from espeak import Espeak, library_paths, phonemes_of
from mandarin import Mandarin

from wekws.errors import ConfigError
from wekws.files import atomic_path
from wekws.log import run

logger = logging.getLogger(__name__)

LANGUAGES = {"zh": Mandarin, "en": English}
KEYWORDS = {"zh": "嗨小问,你好问问"}
AUDIO_DIR = "mobvoi_hotword_dataset"
RESOURCES_DIR = "mobvoi_hotword_dataset_resources"
STAMP = "synthesis.json"
CHUNK = 48  # utterances a process; part of what decides the bytes, so it is no option
BABBLE_CLIPS = 24
BED_S = {"tiny": 15.0, "small": 90.0, "full": 180.0, "long_test": 90.0}
BABBLE_SEED = 1_000_003
RATE_WPM = {"sentence": (170, 270), "short": (115, 220)}  # people call slowly and talk fast
PITCH = (25, 78)
PITCH_RANGE = (25, 80)


def say(espeak, resample, text, voice, kind, rng):
    """Dry speech at 16 kHz with a random rate, pitch and intonation range, RMS 1."""
    espeak.set_voice(voice)
    samples = espeak.say(
        text,
        rate=rng.integers(*RATE_WPM.get(kind, RATE_WPM["short"])),
        pitch=rng.integers(*PITCH),
        pitch_range=rng.integers(*PITCH_RANGE),
        seed=rng.integers(2**31),
    )
    speech = acoustics.trim_silence(resample(samples.astype(np.float32) / 32768))
    return speech / np.float32(max(float(np.std(speech)), 1e-6))


def start_voice():
    """The synthesiser of this worker process and the resampler to 16 kHz."""
    torch.set_num_threads(1)
    espeak = Espeak()
    return espeak, acoustics.Resampler(espeak.sample_rate_hz, acoustics.SAMPLE_RATE_HZ)


def say_babble(split_index, language, seed):
    """Dry sentences of one split's voices, for its babble."""
    espeak, resample = start_voice()
    rng = np.random.default_rng([seed, BABBLE_SEED, split_index])
    voices = read_voices()[SPLITS[split_index]]
    clips = []
    for _ in range(BABBLE_CLIPS):
        voice = f"{choose(rng, language.voices)}+{choose(rng, voices)}"
        clips.append(say(espeak, resample, language.sentence(rng, 5.0), voice, "sentence", rng))
    return clips


def write_wav(path, samples):
    """Write (N,) float32 in [-1, 1] as 16-bit mono."""
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(acoustics.SAMPLE_RATE_HZ)
        stream.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def render_chunk(utterances, pools, voices, audio_dir):
    """Say and record a chunk of utterances; returns their facts for the JSON lists."""
    espeak, resample = start_voice()
    rows = []
    for utterance in utterances:
        rng = np.random.default_rng(utterance.seed)
        if utterance.kind == "noise":
            samples, facts = acoustics.record_noise(
                utterance.duration_s, pools[utterance.split], rng
            )
        else:
            voice = f"{choose(rng, voices)}+{utterance.speaker}"
            speech = say(espeak, resample, utterance.text, voice, utterance.kind, rng)
            samples, facts = acoustics.record(speech, pools[utterance.split], rng)
        write_wav(audio_dir / f"{utterance.utt_id}.wav", samples)
        rows.append({**facts, "duration": round(len(samples) / acoustics.SAMPLE_RATE_HZ, 4)})
    return rows


_task = None  # what workers inherit by fork: too large to send with every chunk


def _run_task(argument):
    return _task(argument)


def in_fresh_processes(task, arguments, num_workers):
    """Yield task(argument) in order, each from a process of its own, `num_workers` at a time."""
    global _task
    _task = task
    context = multiprocessing.get_context("fork")
    with context.Pool(num_workers, maxtasksperchild=1) as pool:
        yield from pool.imap(_run_task, arguments, chunksize=1)


def render(utterances, language, size, seed, num_workers, audio_dir):
    """Make all recordings; returns the facts of each in order."""
    babble = functools.partial(say_babble, language=language, seed=seed)
    clips = list(in_fresh_processes(babble, range(len(SPLITS)), num_workers))
    pools = {
        split: acoustics.make_pools(clips[i], BED_S[size], [seed, BABBLE_SEED + 1, i])
        for i, split in enumerate(SPLITS)
    }
    task = functools.partial(render_chunk, pools=pools, voices=language.voices, audio_dir=audio_dir)
    starts = range(0, len(utterances), CHUNK)
    chunks = [utterances[start : start + CHUNK] for start in starts]
    rows = []
    for done in in_fresh_processes(task, chunks, num_workers):
        rows += done
        if len(rows) % (20 * CHUNK) < CHUNK:
            logger.info("%d of %d utterances", len(rows), len(utterances))
    return rows


def write_resources(utterances, rows, keywords, resources_dir):
    """Write Mobvoi's JSON lists, the transcripts and keywords.txt."""
    lists = {f"{sign}_{split}": [] for split in SPLITS for sign in "pn"}
    texts = {split: [] for split in SPLITS}
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


def write_text(path, text):
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sources_fingerprint(language):
    """Hash of the code and word lists that decide what a corpus holds."""
    here = Path(__file__).parent
    module = {"zh": "mandarin", "en": "english"}[language]
    names = ["acoustics", "compose", "corpus_plan", "espeak", "synthesise", module]
    paths = [here / f"{name}.py" for name in names]
    paths += [WORDS_DIR / f"{language}.yaml", WORDS_DIR / "voices.tsv"]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def summarise(utterances, rows):
    """Counts and hours by split and kind, as a table."""
    totals = {}
    for utterance, facts in zip(utterances, rows, strict=True):
        count, seconds = totals.get((utterance.split, utterance.kind), (0, 0.0))
        totals[utterance.split, utterance.kind] = (count + 1, seconds + facts["duration"])
    lines = [f"{'split':6} {'kind':11} {'utterances':>10} {'hours':>7}"]
    for (split, kind), (count, seconds) in totals.items():
        lines.append(f"{split:6} {kind:11} {count:10d} {seconds / 3600:7.2f}")
    return "\n".join(lines)


def parse_arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--language", choices=LANGUAGES, default="zh")
    parser.add_argument("--keywords", default="", help="comma-separated; zh has its own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args(argv)
    keywords = arguments.keywords or KEYWORDS.get(arguments.language, "")
    arguments.keywords = [" ".join(k.upper().split()) for k in keywords.split(",") if k.strip()]
    if not arguments.keywords:
        raise ConfigError(f'--language {arguments.language} needs --keywords "ONE,TWO WORDS"')
    return arguments


def main(argv=None):
    """Synthesise unless the folder already holds just this corpus."""
    arguments = parse_arguments(argv)
    library_paths()
    wanted = {
        "size": arguments.size,
        "language": arguments.language,
        "keywords": arguments.keywords,
        "seed": arguments.seed,
        "generator": sources_fingerprint(arguments.language),
    }
    stamp = arguments.out_dir / STAMP
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        print(f"{arguments.out_dir}: complete, nothing to do")
        return 0
    started = time.monotonic()
    stamp.unlink(missing_ok=True)
    for name in (AUDIO_DIR, RESOURCES_DIR):
        shutil.rmtree(arguments.out_dir / name, ignore_errors=True)
        (arguments.out_dir / name).mkdir(parents=True)
    language = LANGUAGES[arguments.language](arguments.keywords)
    num_workers = max(1, arguments.num_workers)

    def phonemes(texts):
        task = functools.partial(phonemes_of, language.voices[0])
        return next(in_fresh_processes(task, [texts], 1))

    utterances = plan_corpus(arguments.size, language, arguments.seed, phonemes)
    audio_dir = arguments.out_dir / AUDIO_DIR
    rows = render(utterances, language, arguments.size, arguments.seed, num_workers, audio_dir)
    resources_dir = arguments.out_dir / RESOURCES_DIR
    write_resources(utterances, rows, arguments.keywords, resources_dir)
    write_text(stamp, json.dumps(wanted, ensure_ascii=False, indent=1))
    print(summarise(utterances, rows))
    print(f"{arguments.out_dir}: {len(rows)} utterances in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
