"""The state of a shard: the one list of its parts that are saved, and its tables in their order.

Names are `tables.0.ranking.now`, `ledger.workers.ids`. What is not here a shard does without: prepared steps, parts of
rounds that wait, budgets and claims, what is on its way to the disk or from there, figures of this process. The engine
thread's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from ps.config import TableConfig
from ps.errors import InvalidArgument
from ps.kept import Kept, KeptState, joined, parted, restored
from ps.shard.core import Core
from ps.storage.tier import Records


def kept(core: Core) -> dict[str, Kept]:
    """Returns the parts of a shard that are saved, beside its tables."""
    return {"commit": core.commit, "ledger": core.ledger, "staleness": core.staleness}


def state_of(core: Core) -> KeptState:
    """Returns all of a shard but its rows, see `ps.kept`. Raises ShardPoisoned."""
    core.commit.check_well()
    state: dict[str, Any] = joined(kept(core))
    for number, table in enumerate(core.tables.values()):
        configs = {"config": table.config.to_json(), "created_as": table.created_as.to_json()}
        own = {**configs, **table.state.state()}
        state.update({f"tables.{number}.{name}": value for name, value in own.items()})
    return state


def restore(core: Core, state: KeptState, rows: Callable[[str], Iterable[Records]]) -> None:
    """Makes a shard that is new the one that was saved. `rows` yields those of a table of that name. Nothing is logged.

    Raises InvalidArgument for a shard that is not new or logs already, ConfigError for one with settings under which
    the state means something else, and what its tables raise. Then it is new again.
    """
    core.commit.check_well()
    if core.tables or core.commit.version:
        raise InvalidArgument(f"the shard is at version {core.commit.version}: only a new one can be restored")
    if core.commit.log.stats() is not None:
        raise InvalidArgument(
            "the shard logs already, from version 1 on: restore it first, then let it take up its log"
        )
    parts = parted(state)
    tables = parted(parts.get("tables", {}))
    with ExitStack() as undo:
        for own in tables.values():
            table = core.builder.build(TableConfig.from_json(own["config"]), None)
            table.created_as = TableConfig.from_json(own["created_as"])
            undo.callback(core.builder.discard, table)
            core.tables[table.config.name] = table
            undo.callback(core.tables.pop, table.config.name)
            table.state.restore(own)  # of all tables before any has rows: they share the room
        for table, own in zip(core.tables.values(), tables.values(), strict=True):
            table.state.take_rows(own, rows(table.config.name))
        restored(kept(core), state)
        undo.pop_all()
    core.capacity.count(core.tables.values())
