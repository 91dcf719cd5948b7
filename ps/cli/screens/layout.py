"""Lines of text that fit a screen: columns, bars, sparklines, and lists that are cut where there is no room. Pure."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

SPARKS = "▁▂▃▄▅▆▇█"
GAP = " "
"""How a sparkline shows that there is no figure."""


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lays out cells side by side, two spaces apart: the first `left` columns flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def cut(lines: Sequence[str], width: int | None) -> list[str]:
    """Cuts lines that are longer than `width`."""
    return [line if width is None or len(line) <= width else line[: width - 1] + "…" for line in lines]


def wrapped(text: str, width: int | None, indent: str = "  ") -> list[str]:
    """Breaks a sentence into lines no longer than `width`, all but the first indented. A longer word is left whole."""
    words = " ".join(text.split())
    room = sys.maxsize if width is None else max(width, 1)
    lines = textwrap.wrap(words, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def first(lines: Sequence[str], room: int | None, what: str) -> list[str]:
    """Keeps as many lines as there is room for; the last then says how many more there are."""
    if room is None or len(lines) <= room:
        return list(lines)
    shown = max(room - 1, 0)
    return [*lines[:shown], f"... and {len(lines) - shown} more {what}"]


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draws the last `width` values as blocks from 0 to their largest; None is a gap."""
    recent = list(values)[-width:] if width > 0 else []
    most = max((value for value in recent if value is not None), default=0)
    blocks = [GAP if value is None else SPARKS[_level(value, most)] for value in recent]
    return "".join(blocks).rjust(max(width, 0))


def bar(used: float, whole: float, width: int) -> str:
    """Draws a bar, for example `[######    ]`."""
    full = round(min(used / whole, 1.0) * width) if whole > 0 else 0
    return f"[{'#' * full}{' ' * (width - full)}]"


def _level(value: float, most: float) -> int:
    return min(round(value / most * (len(SPARKS) - 1)), len(SPARKS) - 1) if most > 0 else 0
