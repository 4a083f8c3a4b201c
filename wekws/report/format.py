"""Numbers as text for pages and tables."""


def percent(share: float) -> str:
    """Return a share as a percentage: two decimals below 10 %, one above."""
    return f"{100 * share:.2f} %" if share < 0.0995 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Return a time in its usual units: ``42 s``, ``7 min 05 s``, ``3 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: float | None) -> str:
    """Return a number with two decimals, ``-`` for None."""
    return "-" if value is None else f"{value:.2f}"


def count(value: int | None) -> str:
    """Return a count with thousands separated, ``-`` for None."""
    return "-" if value is None else f"{value:,}"
