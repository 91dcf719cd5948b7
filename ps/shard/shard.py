"""The shard: tables, engine, ledger, steps and version, and the operations on them.

Threads: any thread may call any method; the work itself runs on the engine thread. A write either raises and has
changed nothing, or is applied whole and is in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from ps.config import ServiceConfig, TableConfig
from ps.errors import DuplicateIds, InvalidArgument, LengthMismatch, ResourceExhausted, TableExists, TableNotFound
from ps.kernels.unique import has_duplicates
from ps.shard.assistant import Assistant
from ps.shard.engine import Engine
from ps.shard.ledger import Ledger, WriteId
from ps.shard.requests import Gradients, PushResult, Rows, StepRef, TableIds, Target, WriteResult
from ps.shard.staleness import Staleness
from ps.shard.steps import LookAhead, Resolved, Steps
from ps.shard.stream import Allocate, RowStream, plain
from ps.storage.hot import Ids
from ps.table import Table

R = TypeVar("R", PushResult, WriteResult)


class Shard:
    """All tables' rows of the partitions that one process owns."""

    def __init__(
        self, shard_id: int, config: ServiceConfig | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or ServiceConfig()
        self.shard_id = shard_id
        self.version = 0
        self.repeats = 0
        self.staleness = Staleness()
        self.tables: dict[str, Table] = {}
        self.engine = Engine(str(shard_id), max_queue=config.max_requests)
        self._assistant = Assistant(str(shard_id))
        self._clock = clock
        self._max_body_bytes = config.max_body_bytes
        self._ledger: Ledger[PushResult | WriteResult] = Ledger(config.ledger_window, config.max_ledger_bytes)
        self._steps = Steps(config.prepare_ttl_s, config.max_steps, config.max_steps_bytes)

    # tables

    def create_table(self, config: TableConfig, exist_ok: bool = False) -> bool:
        """True if created, False if it was there with the same configuration; raises TableExists otherwise."""

        def run() -> bool:
            existing = self.tables.get(config.name)
            if existing is None:
                self.tables[config.name] = Table(config, self._assistant.share)
                return True
            if not exist_ok:
                raise TableExists(f"table {config.name!r} exists; pass exist_ok=True to use it as it is")
            if existing.config != config:
                raise TableExists(f"table {config.name!r} exists as {existing.config!r}; you asked for {config!r}")
            return False

        return self.engine.run(run)

    def drop_table(self, name: str, missing_ok: bool = False) -> bool:
        """Drops a table with all its rows; True if there was one."""

        def run() -> bool:
            if name not in self.tables and missing_ok:
                return False
            table = self._table(name)
            self._steps.forget_table(name)
            del self.tables[name]
            table.close()
            return True

        return self.engine.run(run)

    # the step protocol

    def prepare(self, ref: StepRef, ids: Sequence[TableIds]) -> int:
        """Resolves the ids of a step ahead of its pull. Ids unique in each table. Returns the version."""
        _check_unique(ids)

        def run() -> int:
            tables = self._resolve(ids)
            for resolved in tables:
                resolved.slots()
            self._steps.add(ref, tables, self._clock())
            return self.version

        return self.engine.run(run)

    def pull(self, target: Target, return_exists: bool = False, allocate: Allocate = plain) -> RowStream:
        """Rows in the order of the ids; changes nothing. Errors are raised by the stream's `head()`.

        `allocate` gives the memory of each chunk.
        """
        stream = RowStream(allocate)

        def run() -> None:
            try:
                tables = self._resolve(target)
                self._check_body(tables)
                if isinstance(target, StepRef):
                    for resolved in tables:
                        resolved.slots()
                stream.fill(self.version, tables, return_exists)
            except BaseException as error:
                stream.fail(error)
                raise

        self.engine.submit(run)
        return stream

    def look_ahead(self, target: Target) -> LookAhead:
        """Checks a push's ids and has their rows looked up while its gradients are still arriving."""
        ahead = LookAhead(target)
        if isinstance(target, StepRef):
            return ahead

        def run() -> None:
            tables = self._resolve(target)
            for resolved in tables:
                resolved.slots()
            ahead.tables = tables

        self.engine.submit(run)
        _check_unique(target)
        return ahead

    def push(
        self, write: WriteId, ahead: LookAhead, gradients: Sequence[Gradients], pulled_version: int = 0
    ) -> PushResult:
        """Applies finite gradients, all or nothing, once per (worker_id, sequence). Ids unique in each table."""
        target = ahead.target

        def apply() -> PushResult:
            tables = ahead.tables if ahead.is_valid(self.tables) else self._resolve(target)
            _check_gradients(tables, gradients)
            counts = [_counts(resolved.ids) for resolved in tables]
            _create_rows(tables)  # the last step that can fail
            self.version += 1
            for resolved, counts_N, part in zip(tables, counts, gradients, strict=True):
                resolved.table.apply(resolved.slots(), counts_N, part.blocks, self.version)
            if isinstance(target, StepRef):
                self._steps.finish(target)
            staleness = self.staleness.observe(self.version, pulled_version)
            return PushResult(self.version, staleness)

        result, repeated = self._once(write, apply)
        return replace(result, repeated=repeated)

    # explicit writes

    def upsert(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows]) -> WriteResult:
        """Sets values, creating rows. Ids unique, values finite."""
        _check_unique([ids])

        def apply() -> npt.NDArray[np.bool_]:
            table = self._table(ids.table)
            table.check(len(ids.ids_N), blocks)
            return table.upsert(ids.ids_N, blocks)

        return self._write(write, apply)

    def assign(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows]) -> WriteResult:
        """Sets the values of rows that exist. Ids unique, values finite."""
        _check_unique([ids])

        def apply() -> npt.NDArray[np.bool_]:
            table = self._table(ids.table)
            table.check(len(ids.ids_N), blocks)
            return table.assign(ids.ids_N, blocks)

        return self._write(write, apply)

    def remove(self, write: WriteId, ids: TableIds) -> WriteResult:
        """Drops rows. Ids unique."""
        _check_unique([ids])
        return self._write(write, lambda: self._table(ids.table).remove(ids.ids_N))

    # reading

    def export_page(
        self, name: str, cursor: int, n: int
    ) -> tuple[npt.NDArray[np.int64], Rows, npt.NDArray[np.float32], int]:
        """Ids, values, scores and next cursor of up to n rows. A row that lives through all pages is in just one."""
        return self.engine.run(lambda: self._table(name).page(cursor, n))

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters, all of one moment."""

        def run() -> dict[str, object]:
            return {
                "shard_id": self.shard_id,
                "version": self.version,
                "repeated_pushes": self.repeats,
                "steps_prepared": self._steps.prepared,
                "steps_expired": self._steps.expired,
                "steps_held": len(self._steps),
                "tables": {name: table.stats() for name, table in self.tables.items()},
                "bytes": self.memory_usage(),
            }

        return self.engine.run(run)

    def memory_usage(self) -> dict[str, int]:
        """Bytes outside the tables, by purpose."""
        return {
            "ledger": self._ledger.nbytes,
            "steps": self._steps.nbytes,
        }

    def close(self) -> None:
        """Finishes queued work, ends the engine and gives the tables' memory back."""
        self.engine.close()
        self._assistant.close()
        for table in self.tables.values():
            table.close()
        self.tables.clear()

    # on the engine thread

    def _table(self, name: str) -> Table:
        try:
            return self.tables[name]
        except KeyError:
            known = ", ".join(sorted(self.tables)) or "none"
            raise TableNotFound(f"no table {name!r} (there are: {known}); create_table makes one") from None

    def _resolve(self, target: Target) -> list[Resolved]:
        if isinstance(target, StepRef):
            return self._steps.get(target, self._clock())
        return [Resolved(self._table(part.table), part) for part in target]

    def _check_body(self, tables: Sequence[Resolved]) -> None:
        total = sum(len(r.ids.ids_N) * r.table.config.dim * 4 for r in tables)
        if total > self._max_body_bytes:
            raise ResourceExhausted(
                f"{total:,} bytes of rows in one pull, the limit is {self._max_body_bytes:,} (max_body_bytes): "
                "ask for fewer ids at once"
            )

    def _write(self, write: WriteId, apply: Callable[[], npt.NDArray[np.bool_]]) -> WriteResult:
        return self._once(write, lambda: WriteResult.of(self.version, apply()))[0]

    def _once(self, write: WriteId, apply: Callable[[], R]) -> tuple[R, bool]:
        """The result, and whether it came from the ledger."""

        def run() -> tuple[R, bool]:
            known = self._ledger.answer(write)
            if known is not None:
                self.repeats += 1
                return cast(R, known), True  # the digest tells writes of different kinds apart
            result = apply()
            self._ledger.record(write, result, result.nbytes)
            return result, False

        return self.engine.run(run)


def _create_rows(tables: Sequence[Resolved]) -> None:
    """A row for every id of every table; after an error, none that was not there before."""
    created: list[tuple[Table, Ids]] = []
    try:
        for resolved in tables:
            table = resolved.table
            created.append((table, table.create_missing(resolved.ids.ids_N, resolved.slots())))
    except BaseException:
        for table, ids_N in created:
            table.undo_create(ids_N)
        raise


def _counts(ids: TableIds) -> npt.NDArray[np.uint32]:
    return np.ones(len(ids.ids_N), np.uint32) if ids.counts_N is None else ids.counts_N


def _check_unique(ids: Sequence[TableIds]) -> None:
    names = [part.table for part in ids]
    if len(set(names)) != len(names):
        raise InvalidArgument(f"a table is named twice in one request: {names}")
    for part in ids:
        if part.counts_N is not None and len(part.counts_N) != len(part.ids_N):
            raise LengthMismatch(f"table {part.table!r}: {len(part.counts_N)} counts for {len(part.ids_N)} ids")
        if has_duplicates(part.ids_N):
            raise DuplicateIds(f"table {part.table!r}: an id occurs twice; sum its gradients and send it once")


def _check_gradients(tables: Sequence[Resolved], gradients: Sequence[Gradients]) -> None:
    asked, sent = [r.ids.table for r in tables], [part.table for part in gradients]
    if asked != sent:
        raise LengthMismatch(f"the step has tables {asked}, the gradients are for {sent}")
    for resolved, part in zip(tables, gradients, strict=True):
        resolved.table.check(len(resolved.ids.ids_N), part.blocks)
