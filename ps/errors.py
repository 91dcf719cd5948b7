"""The errors that users see, in one tree. The wire carries the class name, so the client raises the class that the
shard raised.

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
│   ├── CheckpointCorrupt              a checkpoint is damaged, or a part of it is missing
│   ├── RolledBack                     a shard came back at an older version than this client has seen
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
    """Raised when a request is wrong in itself; sending it again does not help."""


class ConfigError(InvalidArgument):
    """Raised when a configuration has unknown keys or values out of range; `problems` lists them field by field."""

    def __init__(self, message: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.problems = problems
        """For each problem: (dotted name of the field, what is wrong with it)."""


class DimensionMismatch(InvalidArgument):
    """Raised when rows or gradients have another dim than the table."""


class DtypeMismatch(InvalidArgument):
    """Raised when an array has a type that cannot be converted without loss."""


class LengthMismatch(InvalidArgument):
    """Raised when arrays that belong together have different lengths."""


class DuplicateIds(InvalidArgument):
    """Raised when ids that must be unique are not."""


class NonFiniteGradient(InvalidArgument):
    """Raised when a gradient or a row has NaN, infinity, or a number that the wire's fp16 cannot hold; the client has
    sent nothing of the request. If a shard finds one (from a foreign client), it applies nothing of its part."""


class NotFound(PsError, LookupError):
    """Raised when something that the request names does not exist."""


class TableNotFound(NotFound):
    """Raised when no table has the name."""


class StepNotFound(NotFound):
    """Raised when a shard does not know a step handle; the client then sends the ids."""


class TableExists(PsError):
    """Raised when a table of that name exists already."""


class SequenceConflict(PsError):
    """Raised when the ledger cannot tell whether a write was applied: its sequence is known with another body, or older
    than the ledger remembers."""


class StaleRouting(PsError):
    """Raised when a request was routed by another routing table than the shard's. The client follows the table by
    itself; its callers get this error if a write or an export was under way that can neither be split again nor go
    on."""


class DataLoss(PsError):
    """Raised when rows are gone."""


class StateLost(DataLoss):
    """Raised when the shard was restarted and its rows are gone."""


class ShardPoisoned(DataLoss):
    """Raised after a write failed between its entry in the log and its record: rows may have a part of it. The shard
    accepts no writes and serves no rows until it is restarted."""


class CorruptWrite(DataLoss):
    """Raised when bytes are not those of a write: damaged, cut, or written by an unknown version."""


class LogCorrupt(DataLoss):
    """A shard's log is damaged where it was durable, or a part of it is missing. It says which file, and where."""


class CheckpointCorrupt(DataLoss):
    """A file of a checkpoint is damaged or missing. It says which file, and where."""


class RolledBack(DataLoss):
    """A shard came back from a checkpoint, and what this client has seen of it since is gone. It is raised once, by the
    next call that asks the shard; it says to which version the shard went back, and from which."""


class CorruptRow(DataLoss):
    """Raised when rows on disk are not what was written there. Within the shard, the error has their ids and the other
    rows of the batch."""

    def __init__(self, message: str, ids: Sequence[int] = (), sound: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.ids = ids
        """The ids whose rows are lost."""
        self.sound = sound
        """What the read would have returned without these rows: a list of `ps.storage.tier.Records`."""


class DiskError(PsError):
    """Raised when the shard's disk refuses to read or write."""


class LogFailed(DiskError):
    """A shard's log could not be written or synced. The shard takes no writes until it is restarted, and whoever waits
    for an answer does not know whether the write is durable."""


class ResourceExhausted(PsError):
    """Raised when a limit was reached. `retry_after_s` is set if the same request may succeed later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DiskFull(ResourceExhausted):
    """Raised when the shard's disk has no room."""


class Unavailable(PsError, ConnectionError):
    """Raised when the other side does not answer."""


class DeadlineExceeded(PsError, TimeoutError):
    """Raised when no answer came before the deadline."""


class InternalError(PsError):
    """Raised for a bug in the service."""


def all_errors() -> dict[str, type[PsError]]:
    """Returns every class of the tree by its name, as the wire names them."""
    found: dict[str, type[PsError]] = {}
    stack: list[type[PsError]] = [PsError]
    while stack:
        error = stack.pop()
        found[error.__name__] = error
        stack.extend(error.__subclasses__())
    return found
