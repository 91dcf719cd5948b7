"""Rows of half precision: which rows of a table have it is decided at ticks for all rows at once, and carried out when
there is time.

A tick of the table's clock divides rows by rank: the share `hot_fraction` of all of them, wherever they are, lies above
`_above`, and those some way below it that were not touched since the last tick are cut: they are cold now. From that
moment every reader sees them rounded, though their bytes may be float32 still: in RAM until the sweep comes by, on disk
until it comes up. Rounding to nearest is idempotent: it does not matter when it is done, or how often. A push first
narrows what it will update. Afterwards cold rows of it that have risen above `_above` become float32.

So the precision of a row, and with it every later value, is a function of the writes alone: not of where the row was,
of sweeps, prepares or memory. Used by the engine thread, as the table is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ps.arrays import Flags, Rows, Slots
from ps.errors import ResourceExhausted
from ps.kept import KeptState, joined, restored
from ps.kernels.ranking import score
from ps.policy.ranking import Ranking
from ps.storage.ram.arena import Arena
from ps.storage.ram.cuts import Cuts
from ps.storage.ram.mixed import MixedRows
from ps.storage.tier import Records, by_length, where
from ps.table.cold.cold import BytesByTier, Cold
from ps.table.counters import Counters

LEEWAY = 1.25
"""A row becomes float32 among the first `hot_fraction` of all rows, and stays so among the first 1.25 times as many, so
that it does not change often, and memory is still bounded."""
SWEEP_SLOTS = 1 << 16
"""How many slots are looked at in one go: 0.1 ms."""
SWEEP_STATISTICS = 1 << 13
"""How many float32 rows are looked at in one go: 0.1 ms."""
SWEEP_BYTES = 1 << 19
"""How many bytes of rows are narrowed in one go: half a millisecond."""


class Fp16Cold(Cold):
    """The cold rows of one table, of half precision."""

    def __init__(self, hot_fraction: float, ram: Arena, rows: MixedRows, ranking: Ranking, counts: Counters) -> None:
        super().__init__(counts)
        self._hot_fraction = hot_fraction
        self._ram, self._rows, self._ranking = ram, rows, ranking
        self._cuts = Cuts(ranking.per_tick)
        self._above = 0
        self._hand = 0  # where the sweep goes on
        self._slots_end = 0  # slots that were not in use at the last cut hold no row that was cut and is float32
        self._unswept = 0  # slots below it, from the hand on and around, that may
        self.sweep_slots = SWEEP_SLOTS

    # at the end of a push

    def pushed(self, slots_N: Slots) -> None:
        """Makes cold rows of this push float32 if they are important now. There is room for them."""
        cold_N = slots_N[self._rows.pools.is_half(slots_N)]
        ranks_N = np.empty(len(cold_N), np.int64)
        score.ranks(self._ram.statistics_S2[cold_N], self._ranking.per_tick, ranks_N)
        risen_N = cold_N[ranks_N > self._above]
        if len(risen_N):  # a checkpoint that is being taken has them: the push has just touched them
            self._rows.widen(risen_N)
            self._counts.rows_widened += len(risen_N)

    def tick(self) -> None:
        """Decides again which rows are cold."""
        ranking = self._ranking
        keep = self._hot_fraction * ranking.total
        self._above = ranking.quantile(int(keep))
        if int(keep * LEEWAY) < ranking.total:
            self._cuts.add(ranking.now, ranking.quantile(int(keep * LEEWAY)))
            self._unswept = self._slots_end = self._ram.slots_end

    def moved(self) -> None:
        """Looks at all slots again: rows have gone to others."""
        self._hand, self._slots_end = 0, self._ram.slots_end
        self._unswept = self._slots_end if self._unswept else 0

    # saved

    def state(self) -> KeptState:
        """See `ps.kept`. Rows are saved as their bytes are: which are to be narrowed still, the cuts say."""
        return {"above": self._above, **joined({"cuts": self._cuts})}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`. All slots are to be looked at; `moved` says how many these are when the rows are there."""
        self._above = state["above"]
        restored({"cuts": self._cuts}, state)
        self._unswept = int(bool(self._cuts))

    # where rows are looked at

    def before_write(self, slots_N: Slots, new: int) -> None:
        """Gives rows that are about to be written the precision that they should have, and room to rise beside `new`
        rows: by its new stamp a row would not be cut any more. A slot of -1 has no row. Raises ResourceExhausted; then
        no row reads otherwise than before."""
        # float32 rows never come to be faster than others cease to be: memory is for two ticks' new rows
        self.sweep(new)
        self._narrow(slots_N[self._overdue(slots_N)])
        self._rows.pools.make_room_to_widen(int((self._rows.pools.is_half(slots_N) & (slots_N >= 0)).sum()) + new)

    def round(self, slots_N: Slots, out_ND: Rows) -> None:
        """Rounds values that were read from these slots, -1 for none, where the row is cold already."""
        overdue_N = np.flatnonzero(self._overdue(slots_N))
        if len(overdue_N):
            rounded_ND = out_ND[overdue_N]
            self._rows.layout.round(rounded_ND)
            out_ND[overdue_N] = rounded_ND

    def as_seen(self, found: Iterable[Records]) -> list[Records]:
        """Returns rows that were copied from RAM or read from disk, rounded where they are cold already."""
        return by_length(part for records in found for part in self._parts(records))

    def sweep(self, most: int | None = None) -> bool:
        """Narrows some rows that were cut, by default for half a millisecond; returns whether there was anything to
        do."""
        most = max(SWEEP_BYTES // self._rows.lengths[0], 1) if most is None else most
        if not self._unswept or not most:
            return False
        if self._hand >= self._slots_end:
            self._hand = 0
        end = min(self._hand + min(self._unswept, self.sweep_slots), self._slots_end)
        window = slice(self._hand, end)
        full_N = ~self._rows.pools.is_half(window) & (self._ram.marks_S[window] & np.uint16(score.USED) != 0)
        slots_N, end = _first(self._hand + np.flatnonzero(full_N), max(SWEEP_STATISTICS, most), end)
        cut_N = slots_N[self._cuts.met(self._ram.statistics_S2[slots_N])]
        cut_N, end = _first(cut_N, most, end)
        try:
            self._narrow(cut_N)
        except ResourceExhausted:
            return True  # they read as narrowed all the same; the next sweep tries again
        self._unswept -= end - self._hand
        self._hand = end
        return True

    def rows_by_tier(self) -> dict[str, int]:
        """Returns how many rows in RAM are of half precision."""
        return {"cold": len(self._rows.pools.half)}

    def memory_usage(self) -> BytesByTier:
        """Returns the bytes of rows of half precision. Memory that they share with hot rows counts as hot."""
        return {"cold": {"rows": self._rows.pools.half.committed_bytes}}

    def _narrow(self, slots_N: Slots) -> None:
        if len(slots_N):
            if self._ram.saving is not None:
                self._ram.saving.before_change(slots_N)
            self._counts.rows_clamped += self._rows.narrow(slots_N)
            self._counts.rows_narrowed += len(slots_N)  # those that come up from disk are narrowed on their way

    def _overdue(self, slots_N: Slots) -> Flags:
        """Returns which of these slots, -1 for none, have a row that was cut and is still float32."""
        overdue_N: Flags = np.zeros(len(slots_N), np.bool_)
        if self._unswept:
            full_N = np.flatnonzero((slots_N >= 0) & ~self._rows.pools.is_half(slots_N))
            overdue_N[full_N] = self._cuts.met(self._ram.statistics_S2[slots_N[full_N]])
        return overdue_N

    def _parts(self, records: Records) -> list[Records]:
        if records.rows_NB.shape[1] == self._rows.lengths[1] or not len(records):
            return [records]
        met_N = self._cuts.met(records.statistics_N2)
        cut = where(records, met_N)
        rounded = replace(cut, rows_NB=self._rows.layout.to_half(cut.rows_NB))
        return [part for part in (where(records, ~met_N), rounded) if len(part)]


def _first(slots_N: Slots, most: int, end: int) -> tuple[Slots, int]:
    """Returns the first `most` of the slots, and where the others begin; `end` if there are none."""
    return (slots_N, end) if len(slots_N) <= most else (slots_N[:most], int(slots_N[most]))
