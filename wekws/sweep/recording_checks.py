"""Part of the recipe's plan: the user's recordings are looked at before anything is synthesised."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from wekws.dataset.manifest import SPLITS
from wekws.dataset.prepare import duration_or_problem, split_rows
from wekws.dataset.vocabulary import contains_keyword
from wekws.errors import ConfigError, did_you_mean

# Files of each split whose headers are read; stage 1 reads all of them.
_NUM_PROBED = 20
_MAX_LETTERS_APART = 2


def require_usable_recordings(data_dir: Path, lists: Path, keywords: Sequence[str]) -> None:
    """Check what makes the whole of ``--data_dir`` useless; stage 1 lists every single problem.

    A split without recordings, tables without a common id, files of which none can be read,
    keywords that are in no transcript of train.
    lists: folder that the run's own lists are written to.
    Raises: ConfigError with all that is wrong; DataError for a table that cannot be read.
    """
    needed = [f"{split}/{table}" for split in SPLITS for table in ("wav.scp", "text")]
    if missing := [name for name in needed if not (data_dir / name).is_file()]:
        raise ConfigError(
            f"--data_dir {data_dir}: has no {', '.join(missing)}; expected "
            "{train,dev,test}/{wav.scp,text} in it"
        )
    if lists.resolve() == data_dir.resolve():
        raise ConfigError(
            f"--data_dir {data_dir}: is the folder that this run writes its lists to; give another "
            "--name"
        )
    problems = [problem for split in SPLITS for problem in _problems(data_dir, split, keywords)]
    if problems:
        raise ConfigError("\n".join(f"--data_dir {data_dir}: {problem}" for problem in problems))


def _problems(data_dir: Path, split: str, keywords: Sequence[str]) -> list[str]:
    wavs, texts = (dict(split_rows(data_dir, split, table)) for table in ("wav.scp", "text"))
    if not wavs:
        return [f"{split}/wav.scp: no recordings; expected `id path` lines"]
    problems = []
    if not wavs.keys() & texts.keys():
        problems.append(f"{split}: wav.scp and text have no id in common, such as {min(wavs)}")
    some = list(wavs.values())[:: -(-len(wavs) // _NUM_PROBED)]
    unreadable = [found for wav in some if isinstance(found := duration_or_problem(wav), str)]
    if len(unreadable) == len(some):
        problems.append(f"{split}/wav.scp: none of {len(some)} files can be read: {unreadable[0]}")
    if split == SPLITS[0]:
        problems += [
            f"{split}/text: no transcript contains {keyword} (--keywords)"
            + did_you_mean(keyword, _as_long_as(keyword, texts.values()))
            for keyword in keywords
            if not any(contains_keyword(text, keyword) for text in texts.values())
        ]
    return problems


def _as_long_as(keyword: str, texts: Iterable[str]) -> set[str]:
    """Return the transcripts of about its length: comparing it with all of them takes minutes."""
    return {text for text in texts if abs(len(text) - len(keyword)) <= _MAX_LETTERS_APART}
