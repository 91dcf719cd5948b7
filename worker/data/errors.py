"""Errors of reading data; wrong arguments raise `InvalidArgument`.

They are not part of the service's tree of errors, because they never cross the wire.

    DataError
    ├── UnreadableFile (OSError)            a file does not open, is damaged, cut short or of another kind
    ├── MalformedFile (ValueError)          a file in which too many lines are not in the format, or none is
    ├── MalformedLine (ValueError)          a line of a file is not in the format
    └── MissingDependency (ImportError)     an optional package is not installed
"""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """The root of the errors that reading data raises on purpose."""


class UnreadableFile(DataError, OSError):
    """A file cannot be read to its end."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class MalformedFile(DataError, ValueError):
    """A file has no line in the format, or too many that are not. Most likely the file has another format."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class MalformedLine(DataError, ValueError):
    """A line is not in the format. `line_number` counts from 1."""

    def __init__(self, path: Path, line_number: int, reason: str) -> None:
        super().__init__(f"{path}:{line_number}: {reason}")
        self.path = path
        self.line_number = line_number
        self.reason = reason


class MissingDependency(DataError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""
