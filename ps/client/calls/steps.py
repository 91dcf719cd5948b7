"""The calls of a client that train: prepare, pull and push, by step or by ids, and the clock of several trainers."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

from ps.array_like import ArrayLike
from ps.client.bound import UNKNOWN_VERSIONS, Versions
from ps.client.clock import Clock
from ps.client.lease import Lease
from ps.client.reads.exchange import PullOptions
from ps.client.session import ClientCalls
from ps.client.step import Step
from ps.client.writes.outgoing import Outgoing
from ps.client.writes.pushes import Push
from ps.wire.bags import PooledBags
from ps.wire.routing import Routing


class StepCalls(ClientCalls):
    """The calls of a training step."""

    def prepare(
        self,
        ids: Mapping[str, ArrayLike],
        *,
        counts: Mapping[str, ArrayLike] | None = None,
        bags: Mapping[str, PooledBags] | None = None,
    ) -> Step:
        """Names the ids of a step and returns at once; the ids are sent to the shards in the background.

        ids: per table, int64 of any shape, duplicates allowed. counts: per table, occurrences of each id, if the ids
        are unique already. Call it for the next batches while this one trains.

        bags: of some tables, whose ids must be unique: their shards sum the rows of each bag, so that the step pulls
        float32 [B, dim] and pushes the gradients of these B sums, however many ids the bags have. A row is then updated
        by the sum of the gradients of its bags, once for each time that it is in a bag, as without `bags`.
        """
        session = self._session
        session.forget_abandoned()
        deadline = session.deadline(None)
        batch = session.batch(ids, deadline, counts, bags)
        number = next(session.step_numbers)
        prepared = {
            shard: session.connection.tasks.submit(
                partial(session.exchange.prepare, batch, number, shard, deadline), hint=True
            )
            for shard in batch.shards
        }
        forget = partial(self._forget, number, batch.routing)
        lease = Lease(number, batch.routing, prepared, forget, session.connection.clock)
        step = Step(session, batch, lease)
        weakref.finalize(step, session.abandoned.append, lease).atexit = False
        return step

    def step(
        self,
        ids: Mapping[str, ArrayLike],
        *,
        counts: Mapping[str, ArrayLike] | None = None,
        bags: Mapping[str, PooledBags] | None = None,
        versions: Versions = UNKNOWN_VERSIONS,
    ) -> Step:
        """Makes a step that is not prepared: its ids are sent with its pull and its push. It is for gradients that were
        summed over several steps. versions: the versions that these were computed from (`Step.versions`, `oldest`)."""
        batch = self._session.batch(ids, self._session.deadline(None), counts, bags)
        nothing_held = Lease(0, batch.routing, {}, lambda shard: None, self._session.connection.clock)
        return Step(self._session, batch, nothing_held, versions)

    def pull(self, table: str, ids: ArrayLike, *, return_exists: bool = False, timeout_s: float | None = None) -> Any:
        """Returns the rows of ids, float32 [*ids.shape, dim], numpy or torch as the ids are.

        An id without a row reads as its initial value; a pull creates nothing. With `return_exists` it returns also
        which ids have a row, bool [*ids.shape].
        """
        session = self._session
        deadline = session.deadline(timeout_s)
        batch = session.batch({table: ids}, deadline)
        pulled = session.exchange.pull(batch, PullOptions([session.formats.of(table)], return_exists), deadline)
        rows = batch.tables[0].expand(pulled.rows[0])
        exists_U = pulled.exists[0]
        return rows if exists_U is None else (rows, batch.tables[0].expand_flags(exists_U))

    def push(
        self,
        table: str,
        ids: ArrayLike,
        grads: ArrayLike,
        *,
        positives: ArrayLike | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Applies gradients, float [*ids.shape, dim]; duplicates are summed. Creates the rows that do not exist, as far
        as the table's `admission` admits them.

        positives: how often each id occurs in positive samples, for `importance`; duplicates are summed.
        """
        session = self._session
        deadline = session.deadline(timeout_s)
        batch = session.batch({table: ids}, deadline)
        part = Outgoing.of(batch.tables[0], grads, session.formats.of(table).by_ids())
        counted = batch.positives({} if positives is None else {table: positives})
        session.pushes.push(session.new_push(batch), Push([part], counted), deadline)

    prefetch = prepare
    """The name of `prepare` in HugeCTR and dynamicemb."""
    lookup = pull
    """The name of `pull` in TFRA and Monolith."""
    apply_gradients = push
    """The name of `push` in TFRA and Monolith."""

    def clock(self, group: str, *, rank: int, ranks: int, max_staleness: int) -> Clock:
        """Returns this trainer's clock among the `ranks` of a group: `clock.advance(steps)`, called before a step,
        waits while the slowest trainer is more than `max_staleness` steps behind. Each run needs a group name of its
        own."""
        return Clock(self._session, group, rank, ranks, max_staleness)

    def _forget(self, number: int, routing: Routing, shard: int) -> None:
        """Tells a shard, in the background, to forget a step."""
        session = self._session
        tell = partial(session.exchange.forget, number, shard, routing, session.deadline(None))
        session.connection.tasks.submit(tell, hint=True)
