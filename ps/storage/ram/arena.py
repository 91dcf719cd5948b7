"""Rows by id: an id index, rows (`ps.storage.ram.rows` has their bytes), and beside them the statistics of each row.

Slots move only when memory is given back (`shrink`). A slot is free for another id after `release` (the row goes on
elsewhere, and no step holds it) or `discard` (the row is gone). `layout_epoch` rises with `discard` and `shrink`, by
which a holder of slots knows to look them up again. Ids are held, not slots: an id's pins go where its row goes, and
wait for it while there is none (`ps.storage.ram.awaited`). No policy, no locks, no threads; the engine thread is the
only caller.

    a row costs  its own bytes
               + 12 / load          id and slot in the index, load about 0.6: 20 bytes
               + 18                 id, score, stamp, flags and pins, by slot
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids, Slots
from ps.errors import TableNotFound
from ps.kernels.index.hashing import hash_ids
from ps.kernels.index.index import IdIndex
from ps.kernels.index.secret import SECRET
from ps.kernels.ranking import score
from ps.kernels.rows.rows import pop_free, push_free
from ps.runtime.memory import ReservedArray
from ps.storage.budget.budget import RamBudget
from ps.storage.ram.awaited import Awaited
from ps.storage.ram.removed import Removed
from ps.storage.ram.rows import ArenaRows
from ps.storage.ram.saving import Saving
from ps.storage.tier import Records


class Arena:
    """Rows of one table."""

    def __init__(self, rows: ArenaRows, budget: RamBudget) -> None:
        self.layout_epoch = 0
        self.rows = rows
        memory = budget.arrays
        with ExitStack() as undo:
            self.room = budget.slots.join(rows.ram_bytes)  # first: others make room for what follows
            undo.callback(self.room.close)
            self._index = IdIndex(rows.max_rows, memory, SECRET)
            undo.callback(self._index.close)
            self._ids = ReservedArray((), np.int64, rows.max_rows, memory)
            undo.callback(self._ids.close)
            self._statistics = ReservedArray((2,), np.uint32, rows.max_rows, memory)
            undo.callback(self._statistics.close)
            self._marks = ReservedArray((), np.uint16, rows.max_rows, memory)
            undo.pop_all()
        self._awaited = Awaited()
        self.watchers: Sequence[Callable[[Slots], None]] = ()
        """Each is called with slots that have just got rows."""
        self.saving: Saving | None = None
        """What is to be told before a row changes, while a checkpoint is taken (`Saving.before_change`)."""
        self.removed = Removed()
        """The ids whose rows were dropped one by one."""
        self._free = -1  # the slot given back last; in place of its id is the one given back before it, and so on
        self._n_free = 0
        self._used = 0  # slots below it have been given out at least once

    def __len__(self) -> int:
        return len(self._index)

    @property
    def slots_end(self) -> int:
        """All slots that have been given out are below this one."""
        return self._used

    @property
    def n_free(self) -> int:
        """How many slots can be given out without more memory."""
        return self._n_free

    @property
    def statistics_S2(self) -> npt.NDArray[np.uint32]:  # noqa: N802  an array, so its name carries its shape
        """(score's bits, stamp) by slot."""
        return self._statistics.array

    @property
    def scores_S2(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """The memory of `statistics_S2` as floats: [:, 0] is the score."""
        return self._statistics.array.view(np.float32)

    @property
    def marks_S(self) -> npt.NDArray[np.uint16]:  # noqa: N802
        """Flags and pins by slot, see `ps.kernels.ranking.score`."""
        return self._marks.array

    @property
    def ids_S(self) -> npt.NDArray[np.int64]:  # noqa: N802
        """Ids by slot, where the slot is in use."""
        return self._ids.array

    @property
    def held(self) -> int:
        """Returns how many rows steps hold. Looks at every slot."""
        return int(np.count_nonzero(self._marks.array[: self._used] >= score.PIN))

    def find(self, ids_N: Ids) -> Slots:
        """Returns the slot of each id, -1 where there is no row."""
        slots_N = np.empty(len(ids_N), dtype=np.int64)
        self._index.find(ids_N, slots_N)
        return slots_N

    def hold(self, ids_N: Ids, slots_N: Slots) -> None:
        """Notes that one more step holds these ids, whose slots are these: rows that are in RAM, or come there, stay
        there."""
        missing_N = ids_N[slots_N < 0]
        self._awaited.add(missing_N, np.ones(len(missing_N), np.int64))
        score.pin(self._marks.array, slots_N, 1)

    def let_go(self, ids_N: Ids, slots_N: Slots) -> None:
        """Notes that one step less holds these ids, whose slots are these."""
        self._awaited.take(ids_N[slots_N < 0], 1)
        score.pin(self._marks.array, slots_N, -1)

    def insert(self, ids_N: Ids, stamp: int, length: int | None = None, asks: bool = True) -> Slots:
        """Gives each id, all of them new and unique, a slot with score 0 and a lot. The row's bytes are what was there.

        `length`: bytes of these rows, if they are not what new rows are. `asks`: whether as many slots should be free
        when the next request comes. Raises ResourceExhausted when memory is at its
        end, or for ids chosen to collide; then nothing has changed.
        """
        n = len(ids_N)
        reused = min(n, self._n_free)
        used = self._used + n - reused
        if asks:
            self.room.ask(n)
        self.room.open(used)
        length = length or self.rows.lengths[0]
        self.rows.make_room(used, n, length)
        for array in (self._ids, self._statistics, self._marks):
            array.ensure(used)
        # What takes memory comes before the index has the ids: an error would leave them there, with slots of others.
        candidates_N = np.arange(self._used - reused, used)
        slots_N, marks_N = np.empty(n, np.int64), np.empty(n, np.int64)
        hashes_N = np.empty(n, np.uint64)
        hash_ids(ids_N, hashes_N)
        lots_N = score.lots(hashes_N, stamp)
        free = pop_free(self._ids.array, self._free, candidates_N[:reused])
        created = self._index.find_or_insert(ids_N, candidates_N, slots_N)
        assert created == n, "insert was given an id that has a row"
        try:
            self.rows.place(slots_N, length)
        except BaseException:
            self._index.erase(ids_N, slots_N)
            raise
        self._free, self._n_free, self._used = free, self._n_free - reused, used
        self._ids.array[slots_N] = ids_N
        self._statistics.array[slots_N, 0] = lots_N
        self._statistics.array[slots_N, 1] = stamp
        self._awaited.take(ids_N, out_N=marks_N)
        np.minimum(marks_N, score.MAX_PINS, out=marks_N)
        marks_N *= score.PIN
        marks_N |= score.USED | score.CHANGED
        self._marks.array[slots_N] = marks_N
        self._tell(slots_N)
        return slots_N

    def discard(self, ids_N: Ids) -> Flags:
        """Drops rows; returns which existed. Takes no memory, because it must work when there is none left."""
        self.removed.note(ids_N)
        slots_N = self._erase(ids_N)
        if (slots_N >= 0).any():
            self.end_layout()
        return slots_N >= 0

    def end_layout(self) -> None:
        """Notes that slots which were found before must be looked up again."""
        self.layout_epoch += 1

    def release(self, slots_N: Slots) -> None:
        """Frees slots that no step holds: their rows are on another tier, or dropped."""
        self._erase(self._ids.array[slots_N])

    def shrink(self, slots: int, rebuild: bool = False) -> tuple[Slots, Slots]:
        """Gives back the memory of slots from `slots` on, and of the index too where it is built again (`rebuild`, 0.1
        µs a row). There are no more rows than that. Those that lie behind move to free slots: from where, ascending,
        and to where. Takes no memory. Whoever has found slots must look them up again."""
        assert slots <= self._used, "slots that nobody opened are not given back"
        used_S = self._marks.array[: self._used] & np.uint16(score.USED) != 0
        from_N = slots + np.flatnonzero(used_S[slots:])
        free_N = np.flatnonzero(~used_S[:slots])
        to_N, free_N = free_N[: len(from_N)], free_N[len(from_N) :]
        self.rows.move(from_N, to_N)
        for array in (self._ids, self._statistics, self._marks):
            array.array[to_N] = array.array[from_N]
        self._free = push_free(self._ids.array, -1, np.ascontiguousarray(free_N[::-1]))
        self._used, self._n_free = slots, len(free_N)
        if rebuild:
            slots_N = np.flatnonzero(self._marks.array[:slots] & np.uint16(score.USED))
            self._index.rebuild(self._ids.array[slots_N], slots_N)
        else:
            self._index.reslot(self._ids.array[to_N], to_N)
        if self.saving is not None:
            self.saving.moved(from_N, to_N)
        self.rows.shrink(slots)
        for array in (self._ids, self._statistics, self._marks):
            array.shrink(slots)
        self.end_layout()
        self._tell(to_N)
        return from_N, to_N

    def read(self, ids_N: Ids) -> list[Records]:
        """Returns the rows of those ids that are here, one element for each length of row that occurs."""
        slots_N = self.find(ids_N)
        return self.records(slots_N[slots_N >= 0])

    def records(self, slots_N: Slots) -> list[Records]:
        """Returns copies of the rows in these slots, one element for each length of row that occurs."""
        return [self._records(slots_N[here_N], rows_NB) for here_N, rows_NB in self.rows.copies(slots_N)]

    def write(self, records: Records, asks: bool = True) -> Slots:
        """Takes rows in, also over older ones of the same id; returns their slots. `asks`: as for `insert`.

        Raises ResourceExhausted, and then nothing has changed.
        """
        length = records.rows_NB.shape[1]
        slots_N = self.find(records.ids_N)
        missing_N = np.flatnonzero(slots_N < 0)
        self.rows.make_room(0, len(records), length)  # those that have a row may have one of another length
        slots_N[missing_N] = self.insert(records.ids_N[missing_N], 0, length, asks)
        if self.saving is not None:
            self.saving.before_change(slots_N)
        try:
            self.rows.put(slots_N, records.rows_NB)
        except BaseException:
            self.release(slots_N[missing_N])
            raise
        self.scores_S2[slots_N, 0] = records.scores_N
        self._statistics.array[slots_N, 1] = records.stamps_N
        return slots_N

    def memory_usage(self) -> dict[str, int]:
        """Returns bytes by purpose, committed whether in use or not."""
        return {
            self.rows.purpose: self.rows.committed_bytes,
            "index": self._index.committed_bytes,
            "metadata": self.rows.metadata_bytes
            + sum(part.committed_bytes for part in (self._ids, self._statistics, self._marks)),
        }

    def close(self) -> None:
        """Gives the memory back. A checkpoint that is being taken fails."""
        if self.saving is not None:
            self.saving.fail(TableNotFound("a table was dropped while a checkpoint of it was taken: take it again"))
        self.layout_epoch += 1
        self.room.close()
        for part in (self._index, self.rows, self._ids, self._statistics, self._marks):
            part.close()

    def _tell(self, slots_N: Slots) -> None:
        for watcher in self.watchers:
            watcher(slots_N)

    def _records(self, slots_N: Slots, rows_NB: npt.NDArray[np.uint8]) -> Records:
        return Records(
            self._ids.array[slots_N], rows_NB, self.scores_S2[slots_N, 0], self._statistics.array[slots_N, 1]
        )

    def _erase(self, ids_N: Ids) -> Slots:
        slots_N = np.empty(len(ids_N), dtype=np.int64)
        erased = self._index.erase(ids_N, slots_N)
        if erased:
            if self.saving is not None:
                self.saving.before_change(slots_N)
            self.rows.free(slots_N)
            self._await(ids_N, slots_N)
            score.mark(self._marks.array, slots_N, 0, 0xFFFF)
            self._free = push_free(self._ids.array, self._free, slots_N)
            self._n_free += erased
        return slots_N

    def _await(self, ids_N: Ids, slots_N: Slots) -> None:
        """Notes that the rows in these slots, -1 for none, go: the steps that hold their ids wait for new ones."""
        pins_N = np.where(slots_N >= 0, self._marks.array[slots_N] // score.PIN, 0).astype(np.int64)
        held_N = np.flatnonzero(pins_N)
        if len(held_N):
            self._awaited.add(ids_N[held_N], pins_N[held_N])
