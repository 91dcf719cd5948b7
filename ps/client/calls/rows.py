"""The calls of a client that set or drop rows outside of training steps: upsert, assign, remove, report importance,
evict."""

from __future__ import annotations

from typing import cast

from ps.array_like import ArrayLike
from ps.arrays import Flags
from ps.client.session import ClientCalls
from ps.client.writes.evict import Evicted, evict
from ps.errors import InvalidArgument
from ps.v1 import embedding_pb2 as pb


class RowCalls(ClientCalls):
    """The calls that change single rows, outside of training steps."""

    def upsert(self, table: str, ids: ArrayLike, rows: ArrayLike, *, timeout_s: float | None = None) -> Flags:
        """Sets values, float [*ids.shape, dim], and creates the rows that do not exist. Optimizer state of existing
        rows stays. Ids must be unique. Returns bool [*ids.shape]: which rows existed."""
        return self._write(pb.WRITE_MODE_UPSERT, table, ids, rows, timeout_s)

    def assign(self, table: str, ids: ArrayLike, rows: ArrayLike, *, timeout_s: float | None = None) -> Flags:
        """Sets the values, float [*ids.shape, dim], of the rows that exist and leaves out the others. Ids must be
        unique. Returns bool [*ids.shape]: which rows existed."""
        return self._write(pb.WRITE_MODE_ASSIGN, table, ids, rows, timeout_s)

    def remove(self, table: str, ids: ArrayLike, *, timeout_s: float | None = None) -> Flags:
        """Drops rows: their ids read as initial values again. Returns bool [*ids.shape]: which rows existed."""
        session = self._session
        deadline = session.deadline(timeout_s)
        batch = session.batch({table: ids}, deadline)
        flags_U = session.writes.remove(session.new_write(batch), deadline)
        return cast("Flags", batch.tables[0].expand_flags(flags_U))

    def report_importance(
        self, table: str, ids: ArrayLike, scores: ArrayLike, *, timeout_s: float | None = None
    ) -> Flags:
        """Adds scores, float [*ids.shape], finite and not negative, to the importance of rows that exist; those of
        duplicates are summed. It counts as a use of the rows. Returns bool [*ids.shape]: which rows existed. Raises
        InvalidArgument unless the table has a weight for it (`Importance.external`)."""
        session = self._session
        deadline = session.deadline(timeout_s)
        batch = session.batch({table: ids}, deadline)
        scores_U = batch.tables[0].scores(scores)
        flags_U = session.writes.report_importance(session.new_write(batch), scores_U, deadline)
        return cast("Flags", batch.tables[0].expand_flags(flags_U))

    def evict(
        self,
        table: str,
        *,
        fraction: float | None = None,
        rows: int | None = None,
        return_rows: bool = False,
        timeout_s: float | None = None,
    ) -> Evicted:
        """Drops the least important rows of a table, on any tier: a `fraction` of them, or so many `rows`, from each
        shard its share. A row that is pushed while rows are being chosen stays, so fewer rows may be dropped.

        return_rows: returns the values too. Everything that is returned is held in the client's memory. `timeout_s` is
        for each page and each removal. Raises InvalidArgument unless exactly one of `fraction`, in [0, 1], and `rows`
        is given.
        """
        return evict(self._session, table, fraction, rows, return_rows, timeout_s)

    def _write(self, mode: pb.WriteMode, table: str, ids: ArrayLike, rows: ArrayLike, timeout_s: float | None) -> Flags:
        session = self._session
        deadline = session.deadline(timeout_s)
        batch = session.batch({table: ids}, deadline)
        if batch.tables[0].inverse_N is not None:
            raise InvalidArgument(
                f"table {table!r}: an id is given twice: give each id once, with the row that should stay"
            )
        values_UD = batch.tables[0].values(rows)
        flags_U = session.writes.set_rows(mode, session.new_write(batch), values_UD, deadline)
        return cast("Flags", batch.tables[0].expand_flags(flags_U))
