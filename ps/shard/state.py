"""The state of a shard: the one list of its parts that are saved, and its tables in their order.

Names are `tables.0.ranking.now`, `ledger.workers.ids`. What is not here a shard does without: prepared steps, parts of
rounds that wait, budgets and claims, what is on its way to the disk or from there, figures of this process. The engine
thread's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ps.config import TableConfig
from ps.errors import DataLoss, InvalidArgument
from ps.kept import Kept, KeptState, joined, parted, restored
from ps.shard.core import Core
from ps.storage.disk.copy import Known, reading
from ps.storage.ram.saving import forget_changes
from ps.storage.tier import Records
from ps.table.state import Page, SavedRows

Fill = Callable[[Path], bool]
"""Puts the files of RocksDB into an empty folder; returns whether there are any."""


def kept(core: Core) -> dict[str, Kept]:
    """Returns the parts of a shard that are saved, beside its tables."""
    return {"commit": core.commit, "ledger": core.ledger, "staleness": core.staleness}


def state_of(core: Core) -> KeptState:
    """Returns all of a shard but its rows, see `ps.kept`. Raises ShardPoisoned."""
    core.commit.check_well()
    state: dict[str, Any] = joined(kept(core))
    if core.disk is not None:
        state["disk"] = core.disk.known().to_json()
    for number, table in enumerate(core.tables.values()):
        configs = {"config": table.config.to_json(), "created_as": table.created_as.to_json(), "born": table.born}
        own = {**configs, **table.state.state()}
        state.update({f"tables.{number}.{name}": value for name, value in own.items()})
    return state


def restore(core: Core, state: KeptState, fill: Fill, rows: Callable[[str], Iterable[Page]]) -> None:
    """Makes a shard that is new the one that was saved. `fill` gives the disk's files, `rows` yields the rows in RAM of
    a table of that name. Nothing is logged.

    Raises InvalidArgument for a shard that is not new or logs already, ConfigError for one with settings under which
    the state means something else, DataLoss where files or rows are missing, and what its tables raise. Then it is new
    again.
    """
    _check_new(core)
    parts = parted(state)
    tables = parted(parts.get("tables", {}))
    with ExitStack() as done, ExitStack() as undo:
        on_disk = _take_disk(core, state, fill, done, undo)
        for own in tables.values():
            table = core.builder.build(TableConfig.from_json(own["config"]), None)
            table.created_as, table.born = TableConfig.from_json(own["created_as"]), own["born"]
            undo.callback(core.builder.discard, table)
            core.tables[table.config.name] = table
            undo.callback(core.tables.pop, table.config.name)
            table.state.restore(own)  # of all tables before any has rows: they share the room
        for table, own in zip(core.tables.values(), tables.values(), strict=True):
            name = table.config.name
            here = on_disk is None and "disk" in state
            table.state.take_rows(own, SavedRows(rows(name), on_disk[name] if on_disk else None, here))
        restored(kept(core), state)
        for table in core.tables.values():
            table.ram.removed.mark(core.commit.version)
            forget_changes(table.ram)
        undo.pop_all()
    core.capacity.count(core.tables.values())


def _check_new(core: Core) -> None:
    core.commit.check_well()
    if core.tables or core.commit.version:
        raise InvalidArgument(f"the shard is at version {core.commit.version}: only a new one can be restored")
    if core.commit.log.stats() is not None:
        raise InvalidArgument(
            "the shard logs already, from version 1 on: restore it first, then let it take up its log"
        )


def _take_disk(
    core: Core, state: KeptState, fill: Fill, done: ExitStack, undo: ExitStack
) -> Mapping[str, Iterator[Records]] | None:
    """Gives the disk of the shard the files that were saved. Where it has none, returns the rows that they have; None
    else."""
    if "disk" not in state:
        return None
    known = Known.from_json(state["disk"])

    def fill_all(folder: Path) -> None:
        if not fill(folder):
            raise DataLoss("the files of the disk are missing in what was saved: take an older checkpoint")

    if core.disk is not None:
        core.disk.refill(fill_all, known)
        undo.callback(core.disk.refill, lambda _: None, Known({}, {}))
        return None
    folder = Path(done.enter_context(tempfile.TemporaryDirectory(prefix="embedding-ps-")))
    fill_all(folder)
    return done.enter_context(reading(folder, known))
