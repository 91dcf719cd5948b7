"""The errors that users see. One tree; the wire carries the class name, so the client raises what the shard raised.

PsError
├── InvalidArgument (ValueError)       the request is wrong; sending it again will not help
│   ├── ConfigError                    a configuration value or an unknown key
│   ├── DimensionMismatch              rows or gradients of another dim than the table's
│   ├── DtypeMismatch                  ids that are not integers, gradients that are not floats
│   ├── LengthMismatch                 ids, counts and gradients of different lengths
│   ├── DuplicateIds                   ids that must be unique are not
│   └── NonFiniteGradient              NaN or infinity in a gradient or a row
├── NotFound (LookupError)
│   ├── TableNotFound
│   └── StepNotFound                   the step was never prepared here, or its lease ran out
├── TableExists                        a table of that name exists (with another configuration, if exist_ok)
├── SequenceConflict                   a push repeats a sequence number with another body, or is too old to judge
├── StaleRouting                       the request was routed by an old table; the client refreshes and asks again
├── DataLoss
│   ├── StateLost                      the shard was restarted and its rows are gone
│   ├── ShardPoisoned                  a write failed half-way; the shard serves no rows any more
│   ├── CorruptWrite                   bytes that are not those of a write, or are damaged
│   ├── LogCorrupt                     a shard's log is damaged, or a part of it is missing
│   └── CorruptRow                     a row came back from disk with another checksum; the others are well
├── DiskError                          the disk below the shard does not work: read-only, I/O error
│   └── LogFailed                      the shard's log could not be written: nothing is acknowledged any more
├── ResourceExhausted                  memory, message size or queue length; `retry_after_s` when waiting may help
│   └── DiskFull                       no room on the disk below the shard
├── Unavailable (ConnectionError)      nobody answers
├── DeadlineExceeded (TimeoutError)    no answer in time
└── InternalError                      a bug: please report it with the shard's log
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PsError(Exception):
    """The root of every error that embedding-ps raises on purpose."""


class InvalidArgument(PsError, ValueError):
    """The request is wrong in itself."""


class ConfigError(InvalidArgument):
    """A configuration has unknown keys or values out of range; where it was made it says so field by field."""

    def __init__(self, message: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.problems = problems
        """(dotted name of the field, what is wrong with it) of each."""


class DimensionMismatch(InvalidArgument):
    """Rows or gradients have another dim than the table."""


class DtypeMismatch(InvalidArgument):
    """An array has a type that cannot be taken without loss."""


class LengthMismatch(InvalidArgument):
    """Arrays that belong together have different lengths."""


class DuplicateIds(InvalidArgument):
    """Ids that must be unique are not."""


class NonFiniteGradient(InvalidArgument):
    """A gradient or a row holds NaN, infinity, or what the wire's fp16 cannot; the client sent nothing of the request.
    A shard that meets one nevertheless (a foreign client's) applies nothing of its part."""


class NotFound(PsError, LookupError):
    """Something that the request names does not exist."""


class TableNotFound(NotFound):
    """No table has that name."""


class StepNotFound(NotFound):
    """The step handle is not known here; the client falls back to sending the ids."""


class TableExists(PsError):
    """A table of that name exists already."""


class SequenceConflict(PsError):
    """The ledger cannot vouch for a write: another body under a known sequence, or a sequence older than its window."""


class StaleRouting(PsError):
    """The request was routed by another routing table than the shard's. The client follows the table by itself; its
    callers see this when a write or an export was under way and can neither be split again nor go on."""


class DataLoss(PsError):
    """Rows are gone."""


class StateLost(DataLoss):
    """The shard was restarted and the rows that it held are gone."""


class ShardPoisoned(DataLoss):
    """A write failed between its entry in the log and its record: rows may have a part of it. The shard takes no
    writes and gives out no rows until it is restarted."""


class CorruptWrite(DataLoss):
    """Bytes are not those of a write: they were damaged, cut, or written by a version that is not known here."""


class LogCorrupt(DataLoss):
    """A shard's log is damaged where it was durable, or a part of it is missing. It says which file, and where."""


class CorruptRow(DataLoss):
    """Rows on disk are not what was written there. Within the shard it says which, and has the others of the batch."""

    def __init__(self, message: str, ids: Sequence[int] = (), sound: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.ids = ids
        """The ids whose rows are lost."""
        self.sound = sound
        """What the read would have returned without them: a list of `ps.storage.tier.Records`."""


class DiskError(PsError):
    """The disk below the shard refuses to read or write."""


class LogFailed(DiskError):
    """A shard's log could not be written or synced. The shard takes no writes until it is restarted, and whoever waits
    for an answer does not know whether the write is durable."""


class ResourceExhausted(PsError):
    """A limit was met. `retry_after_s` is set when the same request may pass later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DiskFull(ResourceExhausted):
    """The disk below the shard has no room."""


class Unavailable(PsError, ConnectionError):
    """No answer from the other side."""


class DeadlineExceeded(PsError, TimeoutError):
    """No answer before the deadline."""


class InternalError(PsError):
    """A bug in the service."""


def all_errors() -> dict[str, type[PsError]]:
    """Every class of the tree by its name: the vocabulary of the wire."""
    found: dict[str, type[PsError]] = {}
    stack: list[type[PsError]] = [PsError]
    while stack:
        error = stack.pop()
        found[error.__name__] = error
        stack.extend(error.__subclasses__())
    return found
