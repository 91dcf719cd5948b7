"""Figures as people read them, in at most nine characters. Pure."""

from __future__ import annotations

NOTHING = "-"


def count(n: float) -> str:
    """Formats a count: 1234567 is "1.23 M"."""
    return _scaled(n, 1000, ("", " k", " M", " G", " T", " P"))


def nbytes(n: float) -> str:
    """Formats bytes: 1234567 is "1.18 MiB"."""
    return _scaled(n, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def percent(part: float, whole: float) -> str:
    """Formats a share in percent; it is "-" where the whole is 0."""
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def of_budget(used: float, budget: int | None) -> str:
    """Formats bytes beside their budget: "1.18 MiB of 64.0 MiB"."""
    return nbytes(used) if budget is None else f"{nbytes(used)} of {nbytes(budget)}"


def _scaled(n: float, base: int, units: tuple[str, ...]) -> str:
    value, last = float(n), len(units) - 1
    for power, unit in enumerate(units):
        digits = 0 if power == 0 and value == int(value) else max(0, 3 - len(str(int(abs(value)))))
        if float(f"{abs(value):.{digits}f}") < base or power == last:
            return f"{value:.{digits}f}{unit}"
        value /= base
    raise AssertionError("unreachable: the last unit takes everything")
