"""Requests to a shard and its answers, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Rows


@dataclass(frozen=True)
class Bags:
    """Bags of a request's ids of one table, R of them; each has one id or more, an id may be in it more than once."""

    starts_K: npt.NDArray[np.int64]
    """[R + 1]: bag i has positions [starts[i], starts[i + 1])."""
    positions_P: npt.NDArray[np.int32]
    """The positions of the ids of each bag, in the order in which their rows are added up."""

    def __len__(self) -> int:
        return len(self.starts_K) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.starts_K.nbytes + self.positions_P.nbytes


@dataclass(frozen=True)
class TableIds:
    """Ids of one table."""

    table: str
    ids_N: npt.NDArray[np.int64]
    counts_N: npt.NDArray[np.uint32] | None = None
    """Occurrences in the batch; None: one each."""
    bags: Bags | None = None
    """The bags whose sums a pull returns and whose gradients a push has; None: pulls and pushes are of rows."""
    packed: bytes | None = None
    """The ids in the bytes in which they came, if they came compressed."""


@dataclass(frozen=True)
class StepRef:
    """The handle of a prepared step. Under another routing table it names another step, because the ids that a worker
    sends to this shard have changed."""

    worker_id: int
    step: int
    routing_epoch: int = 0
    ids_digest: int = field(default=0, compare=False)
    """The digest of the ids that are meant; 0: the request does not have it."""


Target = StepRef | Sequence[TableIds]
"""The target of a pull or a push: ids in the request, or a step that has named them before."""


@dataclass(frozen=True)
class Came:
    """Blocks of rows as the wire brought them: compressed, or some of the rows."""

    heads: Sequence[tuple[int, int]]
    """The encoding of each block, and its bytes."""
    data: memoryview


@dataclass(frozen=True)
class BagGradients:
    """Gradients of the bags of one table's ids: float32 [k, dim] blocks, finite."""

    bags: int
    """How many bags there are."""
    dim: int
    blocks: Sequence[Rows]
    bags_R: npt.NDArray[np.int64] | None = None
    """The numbers, ascending, of the bags that have a gradient here; None: all."""
    came: Came | None = None
    """The blocks that the gradients were decoded from; None: they came as they are."""


@dataclass(frozen=True)
class Gradients:
    """Gradients of consecutive ids of one table: float32 [k, dim] blocks, finite."""

    table: str
    blocks: Sequence[Rows]
    positives_N: npt.NDArray[np.uint32] | None = None
    """Occurrences of each id in positive samples; None: none."""
    rows_R: npt.NDArray[np.int64] | None = None
    """The positions, ascending, of the ids that have a gradient here; None: all. For the others nothing is sent this
    time."""
    ids: int | None = None
    """With `rows_R` or `bags`: how many ids there are."""
    bags: BagGradients | None = None
    """The gradients of bags, to be added to those of rows."""
    pushes: int = 0
    """How many pushes of the table the worker has made, this one included; 0: the worker does not say."""
    came: Came | None = None
    """The blocks that the gradients of rows were decoded from; None: they came as they are."""


@dataclass(frozen=True)
class Wanted:
    """What a pull returns beside the rows."""

    exists: bool = False
    """Whether it returns which ids have a row."""
    shares: Sequence[float | None] = ()
    """For each table, the share of the most important rows about which it returns which rows are among them; None: not
    asked."""


@dataclass(frozen=True)
class PulledTable:
    """The shape of one table's part of a pull."""

    dim: int
    rows: int
    exists_N: Flags | None
    important_N: Flags | None = None
    of_bags: bool = False
    """Whether the rows are sums of bags. The flags are of the ids all the same."""
    table: str = ""
    ids_N: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """What rows are called where one cannot be sent."""


class Cut(NamedTuple):
    """Consecutive rows of one table of a pull, [start, end)."""

    table: int
    start: int
    end: int
    dim: int

    @property
    def floats(self) -> int:
        """How many floats the rows have."""
        return (self.end - self.start) * self.dim


@dataclass(frozen=True)
class PullHead:
    """The head of a pull's answer, which comes before the rows."""

    version: int
    tables: Sequence[PulledTable]


@dataclass(frozen=True)
class Page:
    """Some rows of an export."""

    ids_N: npt.NDArray[np.int64]
    values_ND: Rows
    scores_N: npt.NDArray[np.float32]
    statistics_N2: npt.NDArray[np.uint32]
    """The rows' statistics, as in `ps.kernels.ranking.score`."""
    next_cursor: int
    """Where the next page begins; 0: there are no more rows."""
    highest_rank: int
    """The most important rows that this export is about, and all below them."""


@dataclass(frozen=True)
class PushResult:
    """The answer to a push."""

    version: int
    staleness: int = 0
    repeated: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that the ledger keeps with the answer."""
        return 0


@dataclass(frozen=True)
class WriteResult:
    """What an explicit write answers."""

    version: int
    n: int
    """How many rows it names."""
    existed: npt.NDArray[np.uint8]
    """Flags as bits, because the ledger keeps them for as long as the write may be repeated."""

    @classmethod
    def of(cls, version: int, existed_N: Flags) -> WriteResult:
        """Returns a result with packed flags."""
        return cls(version, len(existed_N), np.packbits(existed_N))

    @property
    def existed_N(self) -> Flags:  # noqa: N802  an array, so its name carries its shape
        """Which rows existed, bool [N]."""
        return np.unpackbits(self.existed, count=self.n).view(np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that the ledger keeps with the answer."""
        return self.existed.nbytes
