"""The parts of a body: the rows of one table, or the gradients of its bags, checked for NaN and infinity as they come.

Rows that come as float32 are not copied: they are views of the messages, where the optimizer's kernel reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows
from ps.errors import LengthMismatch, NonFiniteGradient
from ps.kernels.rows.rows import all_finite
from ps.shard.requests import Came
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec

Decoded = tuple[npt.NDArray[np.int64] | None, list[Rows], Came | None]
"""The positions of the rows that came, ascending, or None for all rows; their gradients, float32 [k, dim] each; and
what these were decoded from, None where they came as they are."""


class WholeRows:
    """Collects every row as float32, in the order of the ids, as views of the messages; or a gradient of every bag."""

    def __init__(self, table: str, rows: int, dim: int, block: pb.Block) -> None:
        """Raises LengthMismatch if the block has another length."""
        self._table = table
        self._rows = rows
        self._dim = dim
        self._missing = rows
        self._blocks: list[Rows] = []
        self.nbytes = rows * dim * 4
        """Bytes of the messages that the rows are views of."""
        if block.bytes != self.nbytes:
            raise LengthMismatch(
                f"table {table!r}: {rows} rows of dim {dim} are announced as {block.bytes} bytes, and are {self.nbytes}"
            )

    @property
    def done(self) -> bool:
        """Whether the whole part has come."""
        return not self._missing

    def take(self, payload: memoryview) -> memoryview:
        """Takes the bytes of this part from the front of the payload and returns the rest. Raises LengthMismatch or
        NonFiniteGradient."""
        dim = self._dim
        rows = min(self._missing, len(payload) // (dim * 4))
        if not rows:
            raise LengthMismatch(f"a chunk ends inside a row of table {self._table!r} (dim {dim})")
        end = rows * dim * 4
        flat = codec.decode_rows(payload[:end])
        _check_finite(flat, self._table)
        self._blocks.append(flat.reshape(rows, dim))
        self._missing -= rows
        return payload[end:]

    def decoded(self) -> Decoded:
        """Returns the whole part. Raises LengthMismatch if the stream ended early."""
        if self._missing:
            raise LengthMismatch(
                f"table {self._table!r}: the body ended {self._missing} rows short of the {self._rows} announced"
            )
        return None, self._blocks, None


class Blocks:
    """Collects blocks (compressed rows, some of the rows, or some of their elements), and decodes the whole."""

    def __init__(self, table: str, rows: int, dim: int, heads: Sequence[pb.Block]) -> None:
        self._table = table
        self._rows = rows
        self._dim = dim
        self._heads = heads
        self._missing = sum(block.bytes for block in heads)
        self._parts: list[memoryview] = []
        decoded = rows * (dim * 4 * min(len(heads), 2) + 8 * (len(heads) > 1))
        self.nbytes = self._missing + decoded
        """Bytes of the blocks as they come and as float32, which several blocks take twice while they are joined."""

    @property
    def done(self) -> bool:
        """Whether the whole part has come."""
        return not self._missing

    def take(self, payload: memoryview) -> memoryview:
        """Takes the bytes of this part from the front of the payload and returns the rest."""
        part = payload[: self._missing]
        self._parts.append(part)
        self._missing -= len(part)
        return payload[len(part) :]

    def decoded(self) -> Decoded:
        """Returns the whole part. Raises LengthMismatch, InvalidArgument, DtypeMismatch or NonFiniteGradient."""
        if self._missing:
            raise LengthMismatch(
                f"table {self._table!r}: the body ended {self._missing} bytes short of the blocks announced"
            )
        came = Came(heads_of(self._heads), codec.merged(self._parts))
        self._parts.clear()
        rows_R, grads_RD = blocks.decode(came.heads, came.data, self._rows, self._dim)
        _check_finite(grads_RD.reshape(-1), self._table)
        return rows_R, [grads_RD], came


BodyPart = WholeRows | Blocks


def heads_of(heads: Sequence[pb.Block]) -> list[tuple[int, int]]:
    """Returns the encoding and the bytes of each block."""
    return [(block.encoding, block.bytes) for block in heads]


def reader(table: str, rows: int, dim: int, heads: Sequence[pb.Block]) -> BodyPart:
    """Returns a reader of the rows that these blocks announce."""
    exact = len(heads) == 1 and heads[0].encoding == pb.ENCODING_FP32
    return WholeRows(table, rows, dim, heads[0]) if exact else Blocks(table, rows, dim, heads)


def _check_finite(flat: Rows, table: str) -> None:
    if all_finite(flat):
        return
    at = int(np.flatnonzero(~np.isfinite(flat))[0])
    raise NonFiniteGradient(
        f"{flat[at]} in the rows sent to {table!r}; this shard applied nothing (check the loss, clip the gradients, or "
        "send fp32 if fp16 overflowed)"
    )
