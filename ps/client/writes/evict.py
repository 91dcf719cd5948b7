"""Eviction on request: the least important rows are read first, and removed unless they were pushed since.

So the rows that a caller gets are those that were removed, and a shard never works on more than a page. A removal is a
write like any other: once per sequence, and in the order of the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ps.client import reports
from ps.client.reads.export import EXPORT_PAGE_ROWS, Export, Page
from ps.config import TableConfig
from ps.errors import InvalidArgument
from ps.kernels.index.hashing import hash_ids

if TYPE_CHECKING:
    from ps.client.session import Session

REMOVE_ROWS = 16_384
"""How many rows one write removes: those of them that are on disk come into RAM first."""


@dataclass(frozen=True)
class Evicted:
    """Rows that were evicted."""

    ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.float32] | None
    """The values of the rows, float32 [n, dim], if they were asked for."""
    scores: npt.NDArray[np.float32]
    """The importance of the rows when they were read."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Candidates:
    """Rows that may be evicted, as they were when they were read."""

    ids_N: npt.NDArray[np.int64]
    rows_ND: npt.NDArray[np.float32] | None
    scores_N: npt.NDArray[np.float32]
    statistics_N2: npt.NDArray[np.uint32]

    def chosen(self, which_N: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Candidates:
        """Returns some of the rows, in the given order."""
        rows_ND = None if self.rows_ND is None else self.rows_ND[which_N]
        return Candidates(self.ids_N[which_N], rows_ND, self.scores_N[which_N], self.statistics_N2[which_N])

    def least(self, n: int) -> Candidates:
        """Returns the n rows with the lowest scores; of equal scores those touched first, then in the order of a hash
        of the id."""
        hashes_N = np.empty(len(self.ids_N), np.uint64)
        hash_ids(self.ids_N, hashes_N)
        return self.chosen(np.lexsort((hashes_N, self.statistics_N2[:, 1], self.scores_N))[:n])


def evict(
    session: Session,
    table: str,
    fraction: float | None,
    rows: int | None,
    return_rows: bool,
    timeout_s: float | None,
) -> Evicted:
    """Evicts rows as `Client.evict` says."""
    check(fraction, rows)
    deadline = session.deadline(timeout_s)
    config = session.connection.table(table, deadline)
    sizes = reports.sizes(table, reports.shard_stats(session.connection, deadline))
    least = shares(sizes, fraction, rows)
    export = Export(session.connection, session.worker_id, table, EXPORT_PAGE_ROWS, least)
    found = least_of_shards(export.pages(lambda: session.deadline(timeout_s)), least, config, return_rows)
    gone_N = np.zeros(len(found.ids_N), np.bool_)
    for start in range(0, len(found.ids_N), REMOVE_ROWS):
        part = slice(start, start + REMOVE_ROWS)
        deadline = session.deadline(timeout_s)
        batch = session.batch({table: found.ids_N[part]}, deadline)
        gone_N[part] = session.writes.remove(session.new_write(batch), deadline, found.statistics_N2[part])
    gone = found.chosen(gone_N)
    return Evicted(gone.ids_N, gone.rows_ND, gone.scores_N)


def check(fraction: float | None, rows: int | None) -> None:
    """Raises InvalidArgument unless exactly one of `fraction` and `rows` is given, within its range."""
    if (fraction is None) == (rows is None):
        raise InvalidArgument("pass either fraction or rows: how much of the table to evict")
    if fraction is not None and not 0 <= fraction <= 1:
        raise InvalidArgument(f"fraction {fraction}: expected a number in [0, 1]")
    if rows is not None and rows < 0:
        raise InvalidArgument(f"rows {rows}: expected 0 or more")


def shares(sizes: Sequence[int], fraction: float | None, rows: int | None) -> list[int]:
    """Returns how many rows each shard gives up for a fraction of all, or for so many rows: whole numbers with the
    right sum."""
    total = sum(sizes)
    wanted = round(total * (fraction or 0)) if rows is None else min(rows, total)
    upto = [wanted * n // max(total, 1) for n in itertools.accumulate(sizes)]
    return [end - start for start, end in itertools.pairwise([0, *upto])]


def least_of_shards(pages: Iterator[Page], least: Sequence[int], config: TableConfig, with_rows: bool) -> Candidates:
    """Returns the least important rows of each shard, as many as it gives up."""
    nothing = Candidates(
        np.empty(0, np.int64),
        np.empty((0, config.dim), np.float32) if with_rows else None,
        np.empty(0, np.float32),
        np.empty((0, 2), np.uint32),
    )
    of_shards = (
        _joined([_candidates(page, with_rows) for page in of_shard]).least(least[shard])
        for shard, of_shard in itertools.groupby(pages, lambda page: page.shard)
    )
    return _joined([nothing, *of_shards])


def _candidates(page: Page, with_rows: bool) -> Candidates:
    return Candidates(page.ids_N, page.rows_ND if with_rows else None, page.scores_N, page.statistics_N2)


def _joined(parts: Sequence[Candidates]) -> Candidates:
    rows = [part.rows_ND for part in parts if part.rows_ND is not None]
    return Candidates(
        np.concatenate([part.ids_N for part in parts]),
        np.concatenate(rows) if rows else None,
        np.concatenate([part.scores_N for part in parts]),
        np.concatenate([part.statistics_N2 for part in parts]),
    )
