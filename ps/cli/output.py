"""psctl prints text for people (colored on a terminal), JSON for programs, and each error as one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from ps.errors import PsError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, markup=False, soft_wrap=True)  # messages quote other programs: [host:port] is not a style

_STYLES = {
    "green": r"\b(SERVING|ok)\b",
    "yellow": r"\b(DEGRADED|warn)\b",
    "red": r"\b(DOWN|STATE_LOST|POISONED|LOG_FAILED|FAIL)\b",
    "bold": r"^(shard|table|tier|check) .*",
}


class Size(NamedTuple):
    """The width and height of what is printed to, in characters; None where there is no bound."""

    width: int | None
    height: int | None


def screen() -> Size:
    """Returns the size of the terminal, or no bounds where stdout is a file or a pipe."""
    return Size(*shutil.get_terminal_size()) if out.is_terminal else Size(None, None)


def print_json(value: object, *, lines: bool = False) -> None:
    """Prints one JSON value. With `lines` it takes one line, for a stream of values."""
    print(json.dumps(value, indent=None if lines else 2, allow_nan=False), flush=True)


def print_lines(lines: Iterable[str]) -> None:
    """Prints colored text."""
    out.print(painted(lines))


def print_error(error: PsError) -> None:
    """Prints one line on stderr."""
    err.print(Text.assemble((type(error).__name__, "red"), f": {error}"))


def painted(lines: Iterable[str]) -> Text:
    """Colors the states of shards and the heads of lists."""
    text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
    for style, pattern in _STYLES.items():
        text.highlight_regex(f"(?m){pattern}", style)
    return text


def plain(value: Any) -> Any:
    """Turns tuples and mappings into lists and dicts, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
