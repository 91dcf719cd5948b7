"""The writes of a table: each is planned, which may fail, and then made, which may not (`ps.table.change`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Ids, Rows, Slots
from ps.config import TableConfig
from ps.policy.admission import Gate
from ps.policy.importance import Signals
from ps.policy.ranking import Ranking
from ps.storage.ram.rows import Updated
from ps.storage.residence.store import Store
from ps.table.beside import Beside
from ps.table.blocks import counts_at, parts_of, spread
from ps.table.change import Change
from ps.table.clock import Clock
from ps.table.cold.cold import Cold
from ps.table.counters import Counters
from ps.table.overflows import Overflows
from ps.table.push_count import ROUNDS, PushCount
from ps.table.reserve import Reserve
from ps.tensor_train.contract import Share, one_by_one

SHARE_FROM_ROWS = 8192
"""The least rows of an update that is shared: a smaller one is over before another thread has woken."""


class Writes:
    """Plans the writes of one table. Used by the engine thread."""

    def __init__(
        self,
        config: TableConfig,
        reserve: Reserve,
        store: Store,
        cold: Cold,
        gate: Gate,
        signals: Signals,
        ranking: Ranking,
        clock: Clock,
        counts: Counters,
        steps: PushCount,
        beside: Beside,
        share: Share,
    ) -> None:
        """share: runs tasks that touch disjoint rows, and returns when all are done."""
        self._reserve, self._store, self._ram, self._rows = reserve, store, store.ram, store.ram.rows
        self._cold, self._gate, self._signals, self._ranking = cold, gate, signals, ranking
        self._clock, self._counts, self._steps, self._beside, self._share = clock, counts, steps, beside, share
        self._overflows = Overflows(config.name, store.ram, counts)

    # pushes

    def plan_push(
        self,
        ids_N: Ids,
        slots_N: Slots,
        counts_N: Counts | None,
        blocks: Sequence[Rows],
        positives_N: Counts | None = None,
        rows_R: Slots | None = None,
        worker: int = ROUNDS,
        said: int = 0,
    ) -> Change:
        """Plans an update of rows with gradients, which adds to their importance. Ids are unique; what has no slot
        after `Reserve.create_admitted` is left out, and counted as refused; or trains the cores, where there are some.

        `blocks` are the gradients of consecutive ids; `counts_N` how often each id occurs, once by default;
        `positives_N` how often in positive samples, never by default. `rows_R`: the positions of the ids that the
        gradients are of, ascending; the others are used and not updated. All by default. `worker` and what it said: of
        whose push, and which of its pushes, see `ps.table.push_count`.
        """
        refuse = self._plan_refusal(ids_N, slots_N, counts_N, blocks, rows_R)
        named = len(ids_N)
        updated_N = slots_N if rows_R is None else slots_N[rows_R]
        if (updated_N < 0).any():
            blocks = [block_ND[part_N] for part_N, block_ND in parts_of(updated_N >= 0, blocks)]
            updated_N = updated_N[updated_N >= 0]
        attribution_N = self._attribution(updated_N, blocks) if self._signals.wants_attribution else None
        if rows_R is not None and attribution_N is not None:
            attribution_N = spread(attribution_N, rows_R[slots_N[rows_R] >= 0], len(slots_N))[slots_N >= 0]
        if (slots_N < 0).any():
            has_row_N = slots_N >= 0
            counts_N = None if counts_N is None else counts_N[has_row_N]
            positives_N = None if positives_N is None else positives_N[has_row_N]
            slots_N = slots_N[has_row_N]
        added_N = self._signals.added(len(slots_N), counts_N, positives_N, attribution_N)
        parts = list(parts_of(updated_N, blocks))
        outcomes: list[Updated] = []

        def update(part_N: Slots, block_ND: Rows, step: int) -> None:
            outcomes.append(self._rows.update(part_N, self._ram.ids_S, block_ND, self._counts.pushes, step))

        def make() -> None:
            step = self._steps.count(worker, said)
            self._beside.workers_take(self._steps.nbytes)
            outcomes.append(Updated(refuse(step)))
            self._counts.pushes += 1
            self._counts.rows_pushed += named
            if self._ram.saving is not None:
                self._ram.saving.before_change(slots_N)  # here: two threads share what follows
            tasks = [partial(self._clock.use, slots_N, added_N)]
            tasks += [partial(update, part_N, block_ND, step) for part_N, block_ND in parts]
            share = self._share if len(slots_N) >= SHARE_FROM_ROWS else one_by_one
            share(tasks)
            self._counts.rows_updated += len(updated_N)

        report = partial(self._overflows.update_ended, outcomes, updated_N)
        return Change(make, {"report": report, **self._clock.after_push(slots_N)})

    def _plan_refusal(
        self, ids_N: Ids, slots_N: Slots, counts_N: Counts | None, blocks: Sequence[Rows], rows_R: Slots | None
    ) -> Callable[[int], int]:
        """Counts the ids of a push that have no row after `create_admitted`, given its step; the cold tier says what
        becomes of their gradients. Returns how many slices of cores may not be finite afterwards."""
        missing_N = np.flatnonzero(slots_N < 0)
        if not len(missing_N):
            return lambda step: 0
        missing_ids_M, counts_M = ids_N[missing_N], counts_at(counts_N, missing_N)
        sent_R = np.arange(len(ids_N)) if rows_R is None else rows_R
        without_R = slots_N[sent_R] < 0
        refused = self._cold.plan_refused(
            ids_N[sent_R[without_R]],
            lambda: np.concatenate([block_ND[part_R] for part_R, block_ND in parts_of(without_R, blocks)]),
        )

        def refuse(step: int) -> int:
            self._gate.refuse(missing_ids_M, counts_M)
            return refused(step)

        return refuse

    def _attribution(self, slots_N: Slots, blocks: Sequence[Rows]) -> npt.NDArray[np.float32]:
        """Returns |gradient x value| by slot, before the values change."""
        out_N = np.empty(len(slots_N), np.float32)
        start = 0
        for part_N, block_ND in parts_of(slots_N, blocks):
            self._rows.attribute(part_N, block_ND, out_N[start : start + len(part_N)])
            start += len(part_N)
        return out_N

    # explicit writes

    def plan_upsert(self, ids_N: Ids, blocks: Sequence[Rows]) -> Change:
        """Plans to set values, creating rows where there are none. State of rows that exist stays."""
        slots_N = self._store.find(ids_N)
        existed_N = slots_N >= 0
        added_N = self._signals.added(int(np.count_nonzero(~existed_N)), None, None, None)
        created_N = self._reserve.create_missing(ids_N, slots_N)
        undo = partial(self._reserve.undo_create, slots_N, created_N)
        try:
            new_slots_N = slots_N[created_N]
        except BaseException:
            undo()
            raise

        def make() -> None:
            self._set(slots_N, blocks)
            self._clock.stamp(slots_N[existed_N])
            self._clock.use(new_slots_N, added_N)

        return Change(make, self._clock.after_write(), undo, existed_N)

    def plan_load(self, ids_N: Ids, rows_NW: Rows, scores_N: npt.NDArray[np.float32], pushes: int) -> Change:
        """Plans to set rows and their scores, lots included, creating rows where there are none. Rows are whole, or
        values alone: the state of rows that exist stays then. `pushes`: of the optimizer that has trained them."""
        slots_N = self._store.find(ids_N)
        existed_N = slots_N >= 0
        created_N = self._reserve.create_missing(ids_N, slots_N)

        def make() -> None:
            if self._ram.saving is not None:
                self._ram.saving.before_change(slots_N)
            if rows_NW.shape[1] * 4 == self._rows.lengths[0]:
                self._rows.put(slots_N, np.ascontiguousarray(rows_NW).view(np.uint8))
            else:
                self._set(slots_N, [rows_NW])
            self._clock.place(slots_N, scores_N, existed_N)
            self._steps.reach(pushes)

        undo = partial(self._reserve.undo_create, slots_N, created_N)
        return Change(make, self._clock.after_write(), undo, existed_N)

    def plan_assign(self, ids_N: Ids, blocks: Sequence[Rows]) -> Change:
        """Plans to set the values of rows that exist; the others are left out."""
        slots_N = self._reserve.existing(ids_N)
        existed_N = slots_N >= 0

        def make() -> None:
            self._set(slots_N, blocks)
            self._clock.stamp(slots_N[existed_N])

        return Change(make, existed_N=existed_N)

    def plan_report(self, ids_N: Ids, scores_N: npt.NDArray[np.float32]) -> Change:
        """Plans to add weighted scores to rows that exist; the others are left out."""
        slots_N = self._reserve.existing(ids_N)
        existed_N = slots_N >= 0
        added_N = self._signals.reported(scores_N[existed_N])
        return Change(partial(self._clock.stamp, slots_N[existed_N], added_N), existed_N=existed_N)

    def plan_removal(self, ids_N: Ids) -> Change:
        """Plans to drop rows, whose ids then read as initial values again. Their copies on disk, if any, are dropped
        now, because the rows are in RAM."""
        slots_N = self._store.find(ids_N)
        statistics_N2 = self._ram.statistics_S2[slots_N[slots_N >= 0]]
        self._store.removals.discard_copies(ids_N)

        def make() -> None:
            self._store.removals.remove(ids_N)
            self._ranking.count(statistics_N2, -1)

        return Change(make, existed_N=slots_N >= 0)

    def plan_forget(self, ids_N: Ids) -> Change:
        """Plans to drop rows that exist, by their ids alone, because their contents are not known."""
        self._store.removals.discard_below(ids_N)

        def make() -> None:
            self._store.removals.remove(ids_N)
            self._ranking.forget(len(ids_N))

        return Change(make)

    def _set(self, slots_N: Slots, blocks: Sequence[Rows]) -> None:
        if self._ram.saving is not None:
            self._ram.saving.before_change(slots_N)
        for part_N, block_ND in parts_of(slots_N, blocks):
            self._counts.rows_clamped += self._rows.set(part_N, block_ND)
