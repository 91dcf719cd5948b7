"""Findings: a finding is the result of one check of `psctl doctor`. Pure."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, FAIL = "ok", "warn", "FAIL"


class Finding(NamedTuple):
    """One line of `psctl doctor`: a check, its result and the fix."""

    check: str
    """The name of the check."""
    level: str
    says: str
    fix: str = ""
    """What to do about it; empty where nothing is wrong."""


def ok(check: str, says: str) -> Finding:
    """Returns a finding that asks for nothing."""
    return Finding(check, OK, says)


def warn(check: str, says: str, fix: str) -> Finding:
    """Returns a finding about something that works and could be better."""
    return Finding(check, WARN, says, fix)


def fail(check: str, says: str, fix: str) -> Finding:
    """Returns a finding about something that will not work."""
    return Finding(check, FAIL, says, fix)
