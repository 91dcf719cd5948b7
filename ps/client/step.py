"""A step: its ids are sent once; then it is pulled and pushed by its handle."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ps.array_like import ArrayLike
from ps.arrays import Flags
from ps.client.batch import Batch
from ps.client.bound import UNKNOWN_VERSIONS, Versions
from ps.client.lease import Lease
from ps.client.reads.exchange import PullOptions
from ps.client.reads.pulled import Pulled, TableRows
from ps.client.writes.outgoing import Outgoing
from ps.client.writes.pushes import Push
from ps.client.writes.write import Write
from ps.errors import DeadlineExceeded, InvalidArgument, LengthMismatch
from ps.round import Round
from ps.wire.formats import TableFormat
from ps.wire.selected import PooledGradients, Selected

if TYPE_CHECKING:
    from ps.client.session import Session


class Step:
    """A step, which `client.prepare` returns. Make one pull (or several), then one push; or call `forget` if there will
    be none.

    The shards hold the rows of a prepared step until its push. A step that was dropped without a push is forgotten when
    the client prepares the next one, any other when its lease ends (`performance.prepare_ttl_s`).
    """

    def __init__(self, session: Session, batch: Batch, lease: Lease, versions: Versions = UNKNOWN_VERSIONS) -> None:
        self._session = session
        self._batch = batch
        self._lease = lease
        self._versions = versions
        self._formats = [session.formats.of(table.config.name) for table in batch.tables]
        self._important: list[Flags | None] = [None] * len(batch.tables)
        self._sent_as = self._important
        self._write: Write | None = None
        self._pushing = threading.Lock()

    @property
    def prepare_s(self) -> float:
        """Seconds until the last shard answered the prepare, or until now if one has not."""
        return self._lease.prepare_s

    @property
    def held(self) -> bool:
        """Whether the shards may still hold the step: it was neither pushed nor forgotten."""
        return not self._lease.ended

    @property
    def versions(self) -> Versions:
        """Each shard's version at the last pull."""
        return self._versions

    def forget(self) -> None:
        """Tells the shards that no push will follow, so that they need not hold the step's rows. Returns at once. The
        step can be pulled and pushed all the same; its ids are then sent along."""
        self._lease.forget()

    def pull(
        self, *, mask_below: Mapping[str, float] | None = None, timeout_s: float | None = None
    ) -> dict[str, ArrayLike]:
        """Returns the rows of each table: float32 [*ids.shape, dim], in the order of the ids, duplicates included; for
        a table that was prepared with bags their sums, float32 [B, dim].

        mask_below: per table, the magnitude below which an element of a row, or of a shard's part of a sum, may read as
        0 in this pull; for other tables the wire dtype decides.
        """
        pulled = self._pull(PullOptions(self._flagged({}, mask_below or {})), timeout_s)
        return {t.config.name: t.expand(rows) for t, rows in zip(self._batch.tables, pulled.rows, strict=True)}

    def pull_rows(
        self,
        important: Mapping[str, float] | None = None,
        *,
        mask_below: Mapping[str, float] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, TableRows]:
        """Returns the rows of each table with flags of the shards: which rows exist, and which are important.

        important: per table, the share of a shard's rows, in [0, 1], that counts as most important; the flags of tables
        whose wire dtype is ByImportance are pulled anyway. Raises InvalidArgument if the two shares differ.
        """
        pulled = self._pull(
            PullOptions(self._flagged(important or {}, mask_below or {}), return_exists=True), timeout_s
        )
        parts = zip(self._batch.tables, pulled.rows, pulled.exists, pulled.important, strict=True)
        return {t.config.name: TableRows.of(t, rows, exists, flags) for t, rows, exists, flags in parts}

    def push(
        self,
        grads: Mapping[str, ArrayLike | Selected | PooledGradients],
        *,
        positives: Mapping[str, ArrayLike] | None = None,
        in_round: Round | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Applies gradients: per table float [*ids.shape, dim], where those of duplicate ids are summed; for a table
        that was prepared with bags float [B, dim], the gradient of each sum, which is also the gradient of each of its
        rows. Rows that are in no bag count as used and are not updated.

        For a table whose ids are unique, `ps.Selected` sends the gradients of some rows, or some of their elements, in
        as few bytes as these take at the client's `wire_dtype`; the other rows count as used and are not updated. For a
        table with bags `ps.Selected` has the gradients of some bags, and `ps.PooledGradients` those of some bags and
        some rows.

        positives: for tables whose importance has a weight for positive samples, how often each id, in the order and
        the shape of the ids, occurs in positive samples; duplicates are summed.

        in_round: the gradients of all ranks of this round are summed and applied once, when the last of them has come;
        this call waits for it. Every rank pushes the same tables, perhaps with no ids. DeadlineExceeded names the ranks
        that did not come in time; then nothing was applied on that shard.

        Each shard applies the push to all tables of the step, or to none. Call `push` again after an error to repeat
        the same push: shards that have applied it answer from their ledger.
        """
        deadline = self._session.deadline(timeout_s)
        self._check_tables(grads)
        counted = self._batch.positives(positives or {})
        handle = self._lease.handle(deadline)
        # One at a time: what one attempt learns of the write's fate decides what the next may do.
        if not self._pushing.acquire(timeout=deadline.remaining_s()):
            raise DeadlineExceeded(f"another push of this step has not ended within {deadline.timeout_s:g} s")
        try:
            important = self._important if self._write is None else self._sent_as
            parts = self._outgoing(grads, important)
            # Not at prepare: by the first push a step may have waited for longer than the ledgers look back.
            self._write = self._write or self._session.new_push(self._batch, in_round is not None)
            self._sent_as = important  # a repeat is the same bytes, whatever has been pulled since
            push = Push(parts, counted, self._versions, in_round)
            self._session.pushes.push(self._write, push, deadline, handle)
            self._lease.pushed(handle)
        finally:
            self._pushing.release()

    def check(self, grads: Mapping[str, ArrayLike | Selected | PooledGradients]) -> None:
        """Raises what `push` would raise before it sends anything; sends nothing."""
        self._check_tables(grads)
        self._outgoing(grads, self._important)

    def _check_tables(self, grads: Mapping[str, ArrayLike | Selected | PooledGradients]) -> None:
        names = [table.config.name for table in self._batch.tables]
        if sorted(grads) != sorted(names):
            raise LengthMismatch(
                f"the step has tables {sorted(names)}, gradients were given for {sorted(grads)}: "
                "give them for each table of the step"
            )

    def _outgoing(
        self, grads: Mapping[str, ArrayLike | Selected | PooledGradients], important: list[Flags | None]
    ) -> list[Outgoing]:
        return [
            Outgoing.of(table, grads[table.config.name], form, important_U)
            for table, form, important_U in zip(self._batch.tables, self._formats, important, strict=True)
        ]

    def _pull(self, options: PullOptions, timeout_s: float | None) -> Pulled:
        deadline = self._session.deadline(timeout_s)
        pulled = self._session.exchange.pull(self._batch, options, deadline, self._lease.handle(deadline))
        self._versions = Versions(pulled.batch.routing, pulled.versions)
        self._important = pulled.important
        return pulled

    def _flagged(self, important: Mapping[str, float], masks: Mapping[str, float]) -> list[TableFormat]:
        names = [table.config.name for table in self._batch.tables]
        for what, given in (("important shares", important), ("masks", masks)):
            if unknown := given.keys() - set(names):
                raise InvalidArgument(
                    f"{what} for tables {sorted(unknown)}; the step has {sorted(names)}: give only those"
                )
        formats = []
        for name, form in zip(names, self._formats, strict=True):
            flagged = form.flagged(important[name], name) if name in important else form
            formats.append(flagged.masking(masks[name], name) if name in masks else flagged)
        return formats
