"""Reports of a shard: figures of one moment, and where its memory is."""

from __future__ import annotations

from ps.shard.core import Core
from ps.shard.upkeep.account import Account

LOOK_S = 0.5
"""Seconds to wait for an engine that is busy: few tasks take a tenth of it."""


class Watch:
    """Reads the figures of one shard. Threads: any."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._account = Account()
        self._seen: tuple[dict[str, object], float] = ({}, core.clock())
        self._look()

    def stats(self) -> dict[str, object]:
        """Returns rows, bytes and counters, all of one moment. `degraded` says what is wrong, if anything is.

        The reading does not queue. If the engine is busy with one task for longer than LOOK_S, the figures are those of
        the last reading, `age_s` ago.
        """
        core = self._core
        disk_bytes = core.disk.bytes_on_disk() if core.disk is not None else None  # not on the engine thread's time
        asked = core.engine.look(self._look)
        try:
            core.engine.places.wait(asked, LOOK_S)
        except TimeoutError:
            asked.cancel()
            seen, at = self._seen
            return {**seen, "disk_bytes": disk_bytes, "age_s": max(core.clock() - at, 0.0)}
        return {**self._seen[0], "disk_bytes": disk_bytes, "age_s": 0.0}

    def memory_usage(self) -> dict[str, int]:
        """Returns the bytes outside the tables by purpose. Together with those of the tables they are all bytes that
        the process has taken since its start."""
        core = self._core
        disk = core.disk.memory_usage() if core.disk is not None else {}
        known = {"steps": core.steps.nbytes, "bodies": core.budget.bodies.used, **disk}
        of_tables = sum(table.heap_bytes() for table in core.tables.values())
        return self._account.explain(core.ledger.nbytes, known, of_tables)

    def started(self) -> None:
        """Counts memory from here on: what the process had before is its own."""
        self._account = Account()

    def _look(self) -> None:
        core = self._core
        stats: dict[str, object] = {
            "shard_id": core.shard_id,
            "version": core.commit.version,
            "pushes": core.commit.pushes,
            "repeated_pushes": core.commit.repeats,
            "steps_prepared": core.steps.prepared,
            "steps_expired": core.steps.expired,
            "steps_held": len(core.steps),
            "rounds_waiting": core.rounds.waiting,
            "staleness": core.staleness.report(),
            "rows_late": core.rise.rows_late,
            "disk_errors": dict(core.disk_health.errors),
            "failures_after_writes": core.aftermath.failures,
            "degraded": core.disk_health.degraded or core.aftermath.degraded,
            "poisoned": core.commit.poisoned,
            "log": core.commit.log.stats(),
            "tables": {name: table.stats() for name, table in core.tables.items()},
            "bytes": self.memory_usage(),
        }
        self._seen = stats, core.clock()
