"""Every RPC: its path and shape. Client transports and servers are both built from this table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Shape(Enum):
    """Which side of a call streams."""

    UNARY = "unary"
    STREAM_OUT = "stream_out"
    STREAM_IN = "stream_in"


@dataclass(frozen=True)
class Method:
    """One RPC. Requests and responses are bytes at this level; `ps.wire.codec` gives them meaning."""

    service: str
    name: str
    shape: Shape

    @property
    def path(self) -> str:
        """The HTTP/2 path."""
        return f"/{self.service}/{self.name}"


EMBEDDING, CONTROL = "ps.v1.Embedding", "ps.v1.Control"

PREPARE = Method(EMBEDDING, "Prepare", Shape.UNARY)
FORGET = Method(EMBEDDING, "Forget", Shape.UNARY)
PULL = Method(EMBEDDING, "Pull", Shape.STREAM_OUT)
PUSH = Method(EMBEDDING, "Push", Shape.STREAM_IN)
WRITE = Method(EMBEDDING, "Write", Shape.STREAM_IN)
REMOVE = Method(EMBEDDING, "Remove", Shape.UNARY)
REPORT_IMPORTANCE = Method(EMBEDDING, "ReportImportance", Shape.UNARY)
EXPORT = Method(EMBEDDING, "Export", Shape.STREAM_OUT)

DESCRIBE = Method(CONTROL, "Describe", Shape.UNARY)
CREATE_TABLE = Method(CONTROL, "CreateTable", Shape.UNARY)
DROP_TABLE = Method(CONTROL, "DropTable", Shape.UNARY)
SET_OPTIMIZER = Method(CONTROL, "SetOptimizer", Shape.UNARY)
STATS = Method(CONTROL, "Stats", Shape.UNARY)
ADVANCE = Method(CONTROL, "Advance", Shape.UNARY)
CHECKPOINT = Method(CONTROL, "Checkpoint", Shape.STREAM_OUT)
RESTORE = Method(CONTROL, "Restore", Shape.STREAM_OUT)
CHECKPOINT_PART = Method(CONTROL, "CheckpointPart", Shape.STREAM_OUT)
KEEP_PART = Method(CONTROL, "KeepPart", Shape.UNARY)
RESTORE_PART = Method(CONTROL, "RestorePart", Shape.STREAM_OUT)

METHODS = (
    *(PREPARE, FORGET, PULL, PUSH, WRITE, REMOVE, REPORT_IMPORTANCE, EXPORT),
    *(DESCRIBE, CREATE_TABLE, DROP_TABLE, SET_OPTIMIZER, STATS, ADVANCE),
    *(CHECKPOINT, RESTORE, CHECKPOINT_PART, KEEP_PART, RESTORE_PART),
)
