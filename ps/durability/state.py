"""Saves the whole state of a shard, and makes another shard of it that is the same from then on.

    shard --state--> names and arrays, all but the rows
          --rows---> records of each table, some MiB at a time, in the form that they have

It is one operation on the engine, and waits for the disk there: nothing else is done meanwhile. What the state consists
of is for the parts of a shard to say (`ps.kept`); how it is written is for the sink.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ps.kept import KeptState
from ps.shard import Shard
from ps.shard.state import restore as restore_core
from ps.shard.state import state_of
from ps.storage.tier import Records


class Sink(Protocol):
    """Takes what is saved. Arrays are good until the method returns: they are those that the shard works on."""

    def take_state(self, state: KeptState) -> None:
        """Takes all but the rows; called once, first."""

    def take_rows(self, table: str, records: Records) -> None:
        """Takes some rows of a table, all of one length; those of a table come one after the other."""


class Source(Protocol):
    """Gives what a sink has taken."""

    def state(self) -> KeptState:
        """Returns all but the rows."""

    def rows(self, table: str) -> Iterable[Records]:
        """Returns the rows of a table, some at a time, in any order."""


def save(shard: Shard, sink: Sink) -> int:
    """Gives the sink all that the shard keeps; returns the version of the shard that it is. Raises ShardPoisoned,
    DiskError, CorruptRow where a row cannot be read (`remove` drops it), and what the sink raises."""

    def run() -> int:
        core = shard.core
        sink.take_state(state_of(core))
        for name, table in core.tables.items():
            for records in table.state.rows():
                sink.take_rows(name, records)
        return core.commit.version

    return shard.engine.run(run)


def restore(shard: Shard, source: Source) -> int:
    """Makes a new shard, which has no table yet, the one that was saved; returns its version. It logs nothing. Raises
    as `ps.shard.state.restore` does, and the shard is new then."""

    def run() -> int:
        restore_core(shard.core, source.state(), source.rows)
        return shard.version

    return shard.engine.run(run)
