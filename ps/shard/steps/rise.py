"""The one way up from disk: rows of a request are held where they are in RAM, and read where they are not.

    engine: hold what is in RAM, begin a fetch --> io: read the disk --> engine: install what was read, end the fetch

Prepare, push and the explicit writes go this way by `Rise.rise`; a pull by `Rise.beside`, which installs nothing and
gives the pull what was read. `Rise.now` goes the way while the engine waits, for rows of a write that are still on disk
when it is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from ps.runtime.places import ENGINE, IO, Attempt, Operation, at_once
from ps.shard.caller import PATIENT, Caller
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.disk_health import DiskHealth
from ps.storage.residence.fetch import Fetch
from ps.table.table import Table

Raised = list[tuple[Table, int]]
"""How many rows of which table were read from disk."""
Fetches = list[tuple[Resolved, Fetch]]


class Held:
    """The rows of one request in RAM, which stay there until they are released. Used by the engine thread."""

    def __init__(self, tables: Sequence[Resolved], moving: bool = True) -> None:
        """moving: False if no row of these tables can leave RAM; then nothing need be held."""
        self.tables = list(tables)
        self._moving = moving
        self._held = 0

    @property
    def holds(self) -> bool:
        """Whether any row is held."""
        return self._held > 0

    def __enter__(self) -> Held:
        self.hold()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.let_go()

    def hold(self) -> None:
        """Looks the rows up and holds those that are in RAM."""
        try:
            for resolved in self.tables if self._moving else ():
                resolved.hold()
                self._held += 1
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Releases the rows, so that they may move again. May be called again."""
        held, self._held = self._held, 0
        for resolved in self.tables[:held]:
            resolved.let_go()

    def keep(self) -> list[Resolved]:
        """Leaves the rows held, for a step that releases them itself; returns its tables."""
        self._held = 0
        return self.tables


class Rise:
    """Brings the rows of one shard up, and counts those that came late."""

    def __init__(self, health: DiskHealth) -> None:
        self._health = health
        self.rows_late = 0
        """Rows that were read from disk while a pull or a push waited: their prepare was lost, late or not sent."""

    def rise(
        self,
        rows: Held,
        caller: Caller = PATIENT,
        room: AbstractContextManager[object] | None = None,
        first_try: bool = False,
    ) -> Operation[Raised]:
        """Brings rows into RAM, where they are held with the rest. room: guards the code that finds room for them
        there. first_try: rows that cannot be read are read again by another call, which counts them. Raises CorruptRow,
        DiskError, TableNotFound if a table was dropped meanwhile, and ResourceExhausted."""
        fetches: Fetches = []
        try:
            _fetch(rows.tables, fetches)
            if not fetches:
                return []
            yield IO
            reading = nullcontext if first_try else self._health.reading
            read = Attempt(lambda: _read(fetches, caller, reading()))
            yield ENGINE
            read.result()
            _check_open(rows.tables)
            with room or nullcontext(), reading():
                raised = [(resolved.table, resolved.table.store.install(fetch)) for resolved, fetch in fetches]
                for resolved in rows.tables:
                    resolved.slots()
            return raised
        finally:
            _end(fetches)

    def beside(self, rows: Held, caller: Caller = PATIENT) -> Operation[None]:
        """Reads rows for a pull alone: they stay on disk. Raises the errors of `rise`."""
        if (yield from self._beside(rows.tables, caller)):
            return
        rows.let_go()  # a removal has ended all pins: what was in RAM may have gone down
        rows.hold()
        at_once(self._beside(rows.tables, caller))

    def now(self, tables: Sequence[Resolved]) -> None:
        """Brings up rows of a write that is about to be applied, while the engine waits: their prepare was lost, or
        they have gone down since. Rarely any."""
        with Held(tables) as rows:
            for table, n in at_once(self.rise(rows)):
                self._count(table, n)

    def _beside(self, tables: Sequence[Resolved], caller: Caller) -> Operation[bool]:
        """Returns False where all must be read again."""
        layout_epochs = [resolved.table.ram.layout_epoch for resolved in tables]
        fetches: Fetches = []
        try:
            _fetch(tables, fetches)
            if fetches:
                yield IO
                read = Attempt(lambda: _read(fetches, caller, self._health.reading()))
                yield ENGINE
                read.result()
                _check_open(tables)
                if layout_epochs != [resolved.table.ram.layout_epoch for resolved in tables]:
                    return False
            for resolved in tables:
                resolved.beside = None
                resolved.slots()  # rows may have come up since
            for resolved, fetch in fetches:
                with self._health.reading():
                    found = resolved.table.store.found(fetch)
                resolved.read_beside(found)
                self._count(resolved.table, sum(map(len, found)))
            return True
        finally:
            _end(fetches)

    def _count(self, table: Table, rows: int) -> None:
        table.counts.rows_late += rows
        self.rows_late += rows


def _fetch(tables: Sequence[Resolved], fetches: Fetches) -> None:
    """Begins to read what may be on disk of rows that are not in RAM. An error leaves those that have begun."""
    for resolved in tables:
        fetch = resolved.fetch()
        if fetch is not None:
            fetches.append((resolved, fetch))


def _read(fetches: Fetches, caller: Caller, reading: AbstractContextManager[object]) -> None:
    """Waits for the disk. Raises CorruptRow, DiskError, and Unavailable if the caller has gone."""
    with reading:
        for _, fetch in fetches:
            fetch.read(caller.check)


def _end(fetches: Fetches) -> None:
    for resolved, fetch in fetches:
        resolved.table.store.end(fetch)
    fetches.clear()


def _check_open(tables: Sequence[Resolved]) -> None:
    for resolved in tables:
        resolved.table.check_open()
