"""Reads a whole table, page by page and shard by shard, all by the same routing table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline
from ps.errors import InternalError, StaleRouting
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.routing import Routing

EXPORT_PAGE_ROWS = 16_384


@dataclass(frozen=True)
class Page:
    """A page of rows of one shard."""

    ids_N: npt.NDArray[np.int64]
    rows_ND: npt.NDArray[np.float32]
    scores_N: npt.NDArray[np.float32]
    statistics_N2: npt.NDArray[np.uint32]
    """The statistics that ranks are computed from, see `ps.kernels.ranking.score`."""
    shard: int
    next_cursor: int
    """Where the next page begins; 0: this was the shard's last page."""
    highest_rank: int
    """The rank that the shard's first page has fixed for all its pages."""


class Export:
    """The pages of one table. least: reads from each shard just so many of its least important rows, or some more."""

    def __init__(
        self, connection: Connection, worker_id: int, table: str, page_rows: int, least: Sequence[int] | None = None
    ) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._table = table
        self._page_rows = page_rows
        self._least = least

    def pages(self, deadline: Callable[[], Deadline]) -> Iterator[Page]:
        """Yields every shard's pages, none empty; `deadline` makes a deadline for each. Raises StaleRouting if rows
        have moved to other shards meanwhile, because some would come twice and some not at all."""
        first = deadline()
        routing, page = self._connection.routed(
            lambda routing: routing, lambda routing: (routing, self._first_page(routing, 0, first)), first
        )
        while page is not None:
            if len(page.ids_N):
                yield page
            try:
                if page.next_cursor:
                    page = self._page(routing, page.shard, page.next_cursor, page.highest_rank, deadline())
                else:
                    page = self._first_page(routing, page.shard + 1, deadline())
            except StaleRouting as stale:
                raise StaleRouting(
                    f"the routing changed while table {self._table!r} was exported: start again ({stale})"
                ) from stale

    def _first_page(self, routing: Routing, shard: int, deadline: Deadline) -> Page | None:
        """Returns the first page of this shard or, if nothing is wanted from it, of the next one; None if there is
        none."""
        while shard < len(routing.shards) and self._least is not None and not self._least[shard]:
            shard += 1
        return self._page(routing, shard, 0, 0, deadline) if shard < len(routing.shards) else None

    def _page(self, routing: Routing, shard: int, cursor: int, highest_rank: int, deadline: Deadline) -> Page:
        request = pb.ExportRequest(
            header=pb.Header(routing_epoch=routing.epoch, worker_id=self._worker_id),
            table=self._table,
            cursor=cursor,
            max_rows=self._page_rows,
            least=self._least[shard] if self._least else 0,
            highest_rank=highest_rank,
        )
        chunks = self._connection.on_shard(
            routing,
            shard,
            lambda address: list(self._connection.calls.stream_out(address, methods.EXPORT, request, deadline)),
            deadline,
        )
        if not chunks:
            raise InternalError("the shard's answer ended before its first message")
        head = codec.split(pb.ExportChunk, chunks[0])[0].head
        self._connection.calls.traffic.answered(methods.EXPORT, head)
        blocks = [codec.decode_rows(codec.payload_of(chunk)) for chunk in chunks[1:]]
        rows = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
        ids_N = codec.decode_ids(head.ids)
        if len(rows) != len(ids_N) * head.dim:
            raise InternalError(f"the shard sent {len(rows)} floats for {len(ids_N)} rows of dim {head.dim}")
        return Page(
            ids_N,
            rows.reshape(len(ids_N), head.dim),
            codec.decode_scores(head.scores),
            codec.decode_statistics(head.statistics, len(ids_N)),
            shard,
            head.next_cursor,
            head.highest_rank,
        )
