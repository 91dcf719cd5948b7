"""What a check found. Pure."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, FAIL = "ok", "warn", "FAIL"


class Finding(NamedTuple):
    """One sentence of a doctor."""

    check: str
    """Which check, one word."""
    level: str
    says: str
    mend: str = ""
    """What to do; empty where nothing is wrong."""


def ok(check: str, says: str) -> Finding:
    """Nothing to do."""
    return Finding(check, OK, says)


def warn(check: str, says: str, mend: str) -> Finding:
    """It works, and could be better."""
    return Finding(check, WARN, says, mend)


def fail(check: str, says: str, mend: str) -> Finding:
    """It will not work."""
    return Finding(check, FAIL, says, mend)
