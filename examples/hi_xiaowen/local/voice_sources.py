"""Sources of voices that a corpus is spoken with."""

from collections.abc import Sequence
from pathlib import Path

from corpus_plan import SPLITS, Speaker
from kokoro_voices import find_kokoro
from piper_voices import find_piper
from voices import EspeakSource, VoiceSource

from wekws.errors import ConfigError
from wekws.sweep.synthesis_plan import ENGINES


def find_sources(
    language: str, accents: Sequence[str], folders: Sequence[Path], engines: Sequence[str]
) -> list[VoiceSource]:
    """Sources of the engines that are asked for: espeak-ng, and what the folders hold.

    folders: see the README: Piper's `NAME.onnx` with `NAME.onnx.json`, Kokoro's `kokoro*.onnx`
    with `voices*` and `vocab.json` or `config.json`.
    Raises: ConfigError for an engine that is unknown or has no voice of the language.
    """
    if unknown := [name for name in engines if name not in ENGINES]:
        raise ConfigError(f"--engines {','.join(unknown)}: expected some of {', '.join(ENGINES)}")
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise ConfigError(f"--voices {absent[0]}: no such folder")
    found: list[VoiceSource] = [EspeakSource(accents)]
    found += [*find_piper(folders, language), *find_kokoro(folders, language)]
    if not engines:
        return found
    wanted = [source for source in found if source.name.split("/")[0] in engines]
    missing = set(engines) - {source.name.split("/")[0] for source in wanted}
    if missing:
        places = ", ".join(map(str, folders)) or "no --voices given"
        raise ConfigError(
            f"--engines {','.join(sorted(missing))}: no voice for --language {language} ({places})"
        )
    return wanted


def speakers_of(sources: Sequence[VoiceSource]) -> dict[str, list[list[Speaker]]]:
    """Voices by split and source; sources without a voice for a split are left out.

    Where only sources without voices for dev and test are used, all their voices are in all splits.
    """
    by_split: dict[str, list[list[Speaker]]] = {}
    for split in SPLITS:
        voices = [[Speaker(engine=s.name, name=n) for n in s.speakers(split)] for s in sources]
        by_split[split] = [group for group in voices if group] or by_split["train"]
    return by_split
