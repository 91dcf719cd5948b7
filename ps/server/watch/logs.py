"""The log of a server's process: lines for people, or JSON objects, with the ids of the call that each line is
about."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

Fields = dict[str, str | int | float]

_call: ContextVar[Fields | None] = ContextVar("call", default=None)


def begin_call(method: str) -> Fields:
    """Begins the fields of a new call: lines that are logged in this context from now on have them. The caller may keep
    the fields, since later parts of a stream may run in a context where another call has begun."""
    fields: Fields = {"method": method}
    _call.set(fields)
    return fields


def about_call(**ids: str | int) -> None:
    """Adds worker, step or sequence to the fields of the call; a value of 0 means that there is none."""
    fields = _call.get()
    if fields is not None:
        fields |= {name: value for name, value in ids.items() if value}


def _fields_of(record: logging.LogRecord) -> Fields:
    """Returns the fields that the record carries, else those of the call."""
    found: Fields | None = getattr(record, "fields", None)
    return found if found is not None else _call.get() or {}


class TextFormatter(logging.Formatter):
    """Formats lines such as `2026-01-02T03:04:05.678Z WARNING shard=0 Push step=7: message`."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._labels = labels

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line, and below it the stack if there is one."""
        fields = {**self._labels, **_fields_of(record)}
        line = f"{_time(record)} {record.levelname} {' '.join(f'{k}={v}' for k, v in fields.items())}"
        stack = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{line}: {record.getMessage()}{stack}"


class JsonFormatter(TextFormatter):
    """Formats JSON objects: {"time": ..., "level": ..., "logger": ..., "message": ..., labels, ids, "stack"}."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line, whatever the message contains."""
        found: Fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._labels,
            **_fields_of(record),
        }
        if record.exc_info:
            found["stack"] = self.formatException(record.exc_info)
        return json.dumps(found)


FORMATTERS: Mapping[str, type[TextFormatter]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(kind: Literal["text", "json"], labels: Mapping[str, str], stream: TextIO | None = None) -> None:
    """Sets up logging for a process that is a server and nothing else: our loggers write to `stream` (stderr), from
    INFO up. Every line has `labels`, which say who writes it."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[kind](labels))
    logger = logging.getLogger("ps")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
