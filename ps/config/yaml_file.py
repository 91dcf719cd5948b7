"""Reads YAML files that are written by hand: as UTF-8 whatever the locale, with errors of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ps.errors import ConfigError, NotFound


def load(path: str | Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Returns what the file holds; None if it is empty. Raises NotFound for a file that cannot be read, ConfigError
    with file, line and column for one that is not YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line, column = _place(error.object, error.start)
        raise _broken(path, line, column, f"byte 0x{error.object[error.start]:02x} is not UTF-8") from None
    try:
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        says = ", ".join(filter(None, (error.problem, error.context)))
        raise _broken(path, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, says) from None
    except yaml.reader.ReaderError as error:
        line, column = _place(text.encode(), len(text[: error.position].encode()))
        raise _broken(path, line, column, f"character {error.character!r} is not allowed") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a date that is none
        raise _broken(path, 1, 1, str(error)) from None


def _broken(path: str | Path, line: int, column: int, says: str) -> ConfigError:
    where = f"{path}:{line}:{column}"
    return ConfigError(f"{where}: no YAML: {' '.join(says.split())}", [("", f"is no YAML at {line}:{column}: {says}")])


def _place(data: bytes, position: int) -> tuple[int, int]:
    before = data[:position]
    return before.count(b"\n") + 1, position - (before.rfind(b"\n") + 1) + 1
