"""Errors that a user can correct: place, what was found, what was expected, what to do."""


class ConfigError(ValueError):
    """A configuration file, flag or combination of them cannot be used."""


class DataError(ValueError):
    """A corpus, list, feature, checkpoint or result file cannot be used."""


class PeerLost(ConnectionError):
    """Another process of the same training has ended or cannot be reached."""


PEER_LOST = 75
"""Exit status of a process whose peers are lost: it is not the one that failed."""
