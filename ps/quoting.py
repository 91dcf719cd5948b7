"""What others have sent, in a message that people read: never more of it than fits a line or two."""

from __future__ import annotations

from collections.abc import Collection

MOST = 200
"""Characters of a value."""
NAMES = 10


def shown(value: object, most: int = MOST) -> str:
    """repr(value), its middle left out where it is long."""
    if isinstance(value, str | bytes) and len(value) > most:
        return f"{value[: most // 2]!r} ... ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python writes
        text = f"{type(value).__name__} of a great many digits"
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def some_of(names: Collection[str]) -> str:
    """The first of them by the alphabet, and how many others there are."""
    first = ", ".join(sorted(names)[:NAMES]) or "none"
    return first if len(names) <= NAMES else f"{first} and {len(names) - NAMES:,} more"
