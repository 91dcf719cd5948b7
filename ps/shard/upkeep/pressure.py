"""Manages RAM that is short: requests that can never fit get an error that says so, prepared steps may hold only a
share, and room is kept for the next attempt of a request that is refused.

A write that was refused has a claim until it comes again: its tables may have as many rows in RAM as it needs, rows of
other tables go to disk for it, and prepared steps are forgotten. There is one claim at a time, so that each request
that fits alone gets its turn, however many there are that do not fit together.

Called by the engine thread only. Nothing here changes a value: a refused request has changed nothing, and where rows
are decides only how fast the shard is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ps.errors import ResourceExhausted
from ps.shard.steps.steps import Resolved, Steps
from ps.shard.upkeep.needs import Counted, Need
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.slots import Slots
from ps.table.table import Table

STEPS_SHARE = 2
"""Prepared steps may hold 1 / STEPS_SHARE of the rows that fit in RAM: a push by ids must find room in the rest."""
CLAIM_S = 5.0
"""Seconds after which a claim ends if its write has not come again: clients wait 2 s at most."""


@dataclass(frozen=True)
class _Claim:
    whose: object
    """The tables of a write, or the name of a table that is being created."""
    needed: dict[Slots, int]
    ends_at: float


class Pressure:
    """The claims on one shard's RAM."""

    def __init__(
        self, budget: RamBudget, steps: Steps, maintain: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._budget = budget
        self._steps = steps
        self._maintain = maintain
        self._clock = clock
        self._claim: _Claim | None = None

    def check_steps(self, tables: Sequence[Resolved]) -> None:
        """Raises ResourceExhausted if prepared steps would hold too many rows with these. A prepare is a hint: pull and
        push then carry the ids themselves."""
        if not self._budget.slots.bounded or not any(resolved.table.has_disk for resolved in tables):
            return
        more = sum(len(resolved.ids.ids_N) * resolved.table.room.bytes_each for resolved in tables)
        most = self._budget.slots.rows_bytes // STEPS_SHARE
        if self._steps.rows_bytes + more > most:
            raise ResourceExhausted(
                f"prepared steps hold {self._steps.rows_bytes:,} bytes of rows, this one has {more:,}, and they may "
                f"keep {most:,} in RAM (half of what memory.ram_bytes leaves room for)"
            )

    @contextmanager
    def relieved(self, needs: Sequence[Need], let_go: Callable[[], None], last: bool = True) -> Iterator[None]:
        """Guards a write that needs rows in RAM. If it is refused, what it holds is released, and rows begin to go to
        disk until it will fit. A write that does not fit into the whole room gets an error that says so. last: False if
        other parts of the write follow, so that its turn is not over."""
        try:
            yield
        except ResourceExhausted as error:
            let_go()
            if error.retry_after_s is not None and self._budget.slots.bounded:
                self._make_room({need.table: need.count() for need in needs})
            raise
        if last:
            self._served(frozenset(need.table.room for need in needs))

    @contextmanager
    def hinted(self, tables: Sequence[Resolved], let_go: Callable[[], None]) -> Iterator[None]:
        """Guards a prepare that needs room. If there is none, it gets no claim, because it need not come again."""
        try:
            yield
        except ResourceExhausted as error:
            let_go()
            if error.retry_after_s is not None:
                for resolved in tables:
                    resolved.table.room.ask(int(resolved.table.there(resolved.ids.ids_N).sum()))
                self._maintain()
            raise

    @contextmanager
    def creating(self, table: str, last: bool = True) -> Iterator[None]:
        """Guards the creation of a table, which takes memory beside its rows. last: False if other parts of it follow,
        so that its turn is not over."""
        try:
            yield
        except ResourceExhausted as error:
            if error.retry_after_s is not None:
                self._take_turn(table, {}, self._budget.slots.lacked)
                self._maintain()
            raise
        if last:
            self._served(table)

    def _make_room(self, needed: dict[Table, Counted]) -> None:
        room = self._budget.slots
        rows = {table.room: counted.in_ram for table, counted in needed.items()}
        if not room.fits(rows):
            what = ", ".join(f"{counted.total:,} rows of table {t.config.name!r}" for t, counted in needed.items())
            beside = sum(table.room.bytes_each * counted.others for table, counted in needed.items())
            rest = f", of which rows that stay in RAM keep {beside:,}" if beside else ""
            raise ResourceExhausted(
                f"{what} at once take {sum(t.room.bytes_each * c.total for t, c in needed.items()):,} bytes, and "
                f"memory.ram_bytes leaves room for {room.rows_bytes:,}{rest}: send fewer ids at once, or raise it"
            )
        for table, counted in needed.items():
            table.room.ask(counted.total)
        self._take_turn(frozenset(rows), rows, 0)
        for (
            table
        ) in self._steps.tables():  # a step that keeps more in RAM than its table's share takes it from the claim
            its = needed.get(table)
            self._steps.shed(table.config.name, table.room.most() - (its.in_ram if its else 0))
        self._steps.shed_bytes(room.rows_bytes - sum(n * slots.bytes_each for slots, n in rows.items()))
        self._maintain()

    def _take_turn(self, whose: object, rows: dict[Slots, int], nbytes: int) -> None:
        now = self._clock()
        if self._claim is None or self._claim.ends_at <= now or self._claim.whose == whose:
            self._end()
            self._claim = _Claim(whose, rows, now + CLAIM_S)
            self._budget.slots.claimed_bytes = nbytes
            for slots, n in rows.items():
                slots.claim(n)

    def _served(self, whose: object) -> None:
        if self._claim is not None and (self._claim.whose == whose or self._claim.ends_at <= self._clock()):
            self._end()

    def _end(self) -> None:
        if self._claim is not None:
            for slots in self._claim.needed:
                slots.claim(0)
            self._budget.slots.claimed_bytes = 0
            self._claim = None
