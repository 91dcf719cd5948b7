"""The calls of a client that read the state of the service: all rows of a table, sizes, bytes, counters, shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.client import reports
from ps.client.reads.export import EXPORT_PAGE_ROWS, Export
from ps.client.session import ClientCalls
from ps.wire.routing import ShardInfo


class ServiceCalls(ClientCalls):
    """The calls that concern the service as a whole."""

    def export(
        self, table: str, *, page_rows: int = EXPORT_PAGE_ROWS, timeout_s: float | None = None
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Yields pages of (ids int64 [n], rows float32 [n, dim], scores float32 [n]): every row once that exists from
        start to end. Scores are the importance of rows. `page_rows` is the most rows of a page; pages of wide rows have
        fewer. `timeout_s` is for each page."""
        session = self._session
        session.connection.table(table, session.deadline(timeout_s))
        export = Export(session.connection, session.worker_id, table, page_rows)
        for page in export.pages(lambda: session.deadline(timeout_s)):
            yield page.ids_N, page.rows_ND, page.scores_N

    def size(self, table: str, *, timeout_s: float | None = None) -> int:
        """Returns how many rows of a table exist. Raises StateLost if a shard has lost its rows."""
        session = self._session
        deadline = session.deadline(timeout_s)
        session.connection.table(table, deadline)
        return sum(reports.sizes(table, reports.shard_stats(session.connection, deadline)))

    def memory_usage(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Returns bytes by table, tier and purpose over all shards, and the bytes that shards hold beside the tables.
        Raises StateLost if a shard has lost its rows."""
        session = self._session
        return reports.memory_usage(reports.shard_stats(session.connection, session.deadline(timeout_s)))

    def stats(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Returns the counters of every shard (`shards`), the rows and bytes of every table on every tier (`tiers`),
        and this client's own `traffic` (`client`). A shard that has lost its rows says why in `state_lost`, which is
        None for other shards."""
        session = self._session
        shards = reports.shard_stats(session.connection, session.deadline(timeout_s))
        tiers = [
            {"table": share.table, "tier": share.tier, "rows": share.rows, "bytes": share.nbytes}
            for share in reports.tiers(shards)
        ]
        return {"shards": shards, "tiers": tiers, "client": self.traffic()}

    def traffic(self) -> dict[str, Any]:
        """Returns the bytes that this client has sent and received, by method and by kind (ids, flags, rows, gradients,
        headers: `ps.wire.kinds`), and how often it has retried. No shard is asked."""
        return self._session.connection.calls.traffic.report()

    def shards(self) -> Sequence[ShardInfo]:
        """Returns the address and state of each shard, as the service has last reported them. No shard is asked."""
        return self._session.connection.routing.shards
