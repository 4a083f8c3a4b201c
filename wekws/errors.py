"""Errors that a user can correct: place, what was found, what was expected, what to do."""

import difflib
from collections.abc import Callable, Iterable


class ConfigError(ValueError):
    """A configuration file, flag or combination of them cannot be used."""


class DataError(ValueError):
    """A corpus, list, feature, checkpoint or result file cannot be used."""


class PeerLost(ConnectionError):
    """Another process of the same training has ended or cannot be reached."""


def raise_all(checks: Iterable[Callable[[], object]]) -> None:
    """Run checks that do not build on each other.

    Raises: ConfigError with the messages of all that fail.
    """
    problems = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


_OTHER_WORDS = {"gpu": "cuda"}
"""What a name is called here, where its spelling is closer to that of something else."""


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?`` for the known name closest to a wrong one, or nothing."""
    known = list(known)
    if (meant := _OTHER_WORDS.get(text.lower())) in known:
        return f"; did you mean '{meant}'?"
    close = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def missing_package(error: ModuleNotFoundError) -> str:
    """Return the line for a package that this environment lacks, and what to do."""
    return (
        f"error: {error.name} is not installed, and this command needs it: pip install -e . "
        "(or, if make installed the project: . .venv/bin/activate)"
    )


PEER_LOST = 75
"""Exit status of a process whose peers are lost: it is not the one that failed."""
