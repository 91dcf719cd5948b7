"""Criteo's text format, parsed a block of whole lines at a time by one pass over the bytes.

    line    = label TAB 13 integers TAB 26 hexes LF        the last LF may be missing, a CR before it is ignored
    label   = "0" | "1"
    integer = "" | ["-"] 1 to 18 digits
    hex     = "" | 1 to 8 hex digits
    (all fields are separated by one TAB; an empty field is a missing value)
    blank   = {" "} LF              is no line: it is left out, and counted only where lines are numbered

This module has the grammar. Files are read by `criteo_lines`, and `criteo` makes a model's input of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

N_INTEGERS, N_HEXES = 13, 26
N_FIELDS = 1 + N_INTEGERS + N_HEXES

MISSING_INTEGER = np.int64(np.iinfo(np.int64).min)
"""Stands for an empty integer; no field of 18 digits is so small."""
MISSING_HEX = np.int64(1 << 32)
"""Stands for an empty hex field: one more than the largest value of 8 digits."""

_LABEL, _INTEGER, _HEX, _FIELDS = 1, 2, 3, 4
_MAX_DIGITS, _MAX_HEX_DIGITS = 18, 8

Int64s = npt.NDArray[np.int64]
Text = npt.NDArray[np.uint8]

_DIGIT = np.full(256, 16, dtype=np.int64)
"""The value of each byte as a hex digit; 16 for a byte that is none."""
_DIGIT[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)
_DIGIT[np.frombuffer(b"ABCDEF", dtype=np.uint8)] = np.arange(10, 16)


@dataclass(frozen=True)
class Parsed:
    """The good lines of a block, and what is wrong with the others.

    labels: float32 [B]. integers: int64 [B, 13], `MISSING_INTEGER` where empty. hexes: int64 [26, B], `MISSING_HEX`
    where empty. lines: how many lines the block has, good, malformed or blank. malformed: (line, reason), lines counted
    from 0.
    """

    labels: npt.NDArray[np.float32]
    integers: Int64s
    hexes: Int64s
    lines: int
    malformed: list[tuple[int, str]]


def parse(block: bytes) -> Parsed:
    """Parses whole lines. A malformed line raises nothing; it is in `malformed`, with the reason."""
    text_T = np.frombuffer(block, dtype=np.uint8)
    lines = block.count(b"\n") + (bool(block) and not block.endswith(b"\n"))
    labels_B = np.empty(lines, dtype=np.float32)
    integers_BI = np.empty((lines, N_INTEGERS), dtype=np.int64)
    hexes_HB = np.empty((N_HEXES, lines), dtype=np.int64)
    problems_MP = np.empty((lines, 5), dtype=np.int64)
    good, bad = _parse(text_T, labels_B, integers_BI, hexes_HB, problems_MP)
    malformed = [_explain(block, *problem_P) for problem_P in problems_MP[:bad].tolist()]
    return Parsed(labels_B[:good], integers_BI[:good], hexes_HB[:, :good], lines, malformed)


def _explain(block: bytes, line: int, kind: int, field: int, start: int, stop: int) -> tuple[int, str]:
    """Returns the reason in words. field: the number of the malformed field, from 0; for a wrong number of fields, that
    number."""
    if kind == _FIELDS:
        return line, f"{field} fields; {N_FIELDS} are needed, separated by tabs"
    wanted = {_LABEL: "the label, 0 or 1", _INTEGER: "an integer", _HEX: f"{_MAX_HEX_DIGITS} hex digits at most"}[kind]
    shown = block[start : min(stop, start + 40)].decode("utf-8", "backslashreplace")
    return line, f"field {field + 1} is {shown!r}; it must be {wanted}"


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _parse(
    text_T: Text,
    labels_B: npt.NDArray[np.float32],
    integers_BI: Int64s,
    hexes_HB: Int64s,
    problems_MP: Int64s,
) -> tuple[int, int]:
    """Fills the arrays from the front; returns how many lines are good and how many malformed."""
    good, bad, line, at = 0, 0, 0, 0
    while at < len(text_T):
        field, kind, wrong_field, wrong_start, wrong_stop = 0, 0, 0, 0, 0
        while True:
            start = at
            while at < len(text_T) and text_T[at] != 9 and text_T[at] != 10:
                at += 1
            last = at == len(text_T) or text_T[at] == 10
            stop = at - 1 if last and at > start and text_T[at - 1] == 13 else at
            at += 1
            if kind == 0 and field < N_FIELDS:
                kind = _take(text_T, start, stop, field, good, labels_B, integers_BI, hexes_HB)
                if kind != 0:
                    wrong_field, wrong_start, wrong_stop = field, start, stop
            field += 1
            if last:
                break
        if field != N_FIELDS:  # says more than the first field that then does not fit
            kind, wrong_field = _FIELDS, field
        if kind == 0:
            good += 1
        elif field != 1 or not _is_blank(text_T, start, stop):
            problems_MP[bad] = (line, kind, wrong_field, wrong_start, wrong_stop)
            bad += 1
        line += 1
    return good, bad


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _is_blank(text_T: Text, start: int, stop: int) -> bool:
    blank = True
    for at in range(start, stop):
        blank = blank and bool(text_T[at] == 32)
    return blank


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _take(
    text_T: Text,
    start: int,
    stop: int,
    field: int,
    row: int,
    labels_B: npt.NDArray[np.float32],
    integers_BI: Int64s,
    hexes_HB: Int64s,
) -> int:
    """Writes the field in text[start:stop] to its row; returns 0, or the kind of the field if the text does not fit
    it."""
    if field == 0:
        if stop - start != 1 or (text_T[start] != 48 and text_T[start] != 49):
            return _LABEL
        labels_B[row] = text_T[start] - 48
        return 0
    if field <= N_INTEGERS:
        integer, fits = _integer(text_T, start, stop)
        integers_BI[row, field - 1] = integer
        return 0 if fits else _INTEGER
    value, fits = _hex(text_T, start, stop)
    hexes_HB[field - 1 - N_INTEGERS, row] = value
    return 0 if fits else _HEX


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _integer(text_T: Text, start: int, stop: int) -> tuple[np.int64, bool]:
    """Returns the value, and whether the text is a decimal integer or empty."""
    if start == stop:
        return MISSING_INTEGER, True
    negative = text_T[start] == 45
    first = start + 1 if negative else start
    fits = first < stop <= first + _MAX_DIGITS
    value = np.int64(0)
    for at in range(first, min(stop, first + _MAX_DIGITS)):
        digit = np.int64(text_T[at]) - 48
        fits = fits and bool(0 <= digit <= 9)
        value = value * 10 + digit
    return (-value if negative else value), fits


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _hex(text_T: Text, start: int, stop: int) -> tuple[np.int64, bool]:
    """Returns the value, and whether the text is hexadecimal or empty."""
    if start == stop:
        return MISSING_HEX, True
    fits = stop <= start + _MAX_HEX_DIGITS
    value = np.int64(0)
    for at in range(start, min(stop, start + _MAX_HEX_DIGITS)):
        digit = _DIGIT[text_T[at]]
        fits = fits and bool(digit < 16)
        value = value << 4 | digit
    return value, fits
