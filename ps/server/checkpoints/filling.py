"""Fills one shard from a checkpoint: with its own part, exactly, or with the rows of its partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.load import load_table
from ps.durability.refill import OldLog, begin_log, end_log
from ps.durability.state import restore
from ps.errors import InvalidArgument, TableExists
from ps.progress import Told
from ps.runtime.clock import Clock
from ps.runtime.files import Files
from ps.server.checkpoints.task import Outcome
from ps.server.checkpoints.watched import WatchedSource, row_bytes
from ps.server.handlers.service import ShardService
from ps.server.unpacking import WIRE
from ps.shard.writes.log import Log


@dataclass(frozen=True)
class Wanted:
    """What a shard is to be filled with."""

    url: str
    name: str
    exact: bool
    """With its own part, byte for byte; else with rows."""
    log: str = ""
    """The folder of an old log to be carried out behind its part; empty: none."""
    at: int | None = None
    """The last version to carry out of that; None: all."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """Where not exact: name in the checkpoint -> name here."""
    values_only: bool = False
    """Where not exact: without optimizer state."""


class Filling:
    """Fills one shard, and opens it to clients when what it was filled with is durable."""

    def __init__(self, service: ShardService, files: Files | None, clock: Clock) -> None:
        self._service, self._shard = service, service.shard
        self._files, self._clock = files, clock
        self._log: Log | None = None
        """The log that the shard had before it was restored: it begins again when the shard is opened."""
        self._filled: tuple[Wanted, int] | None = None

    def fill(self, wanted: Wanted, told: Told) -> Outcome:
        """Fills the shard. One that was filled with the same, and has not changed since, stays as it is."""
        if wanted.exact:
            if self._filled != (wanted, self._shard.version):
                self._restore(wanted, told)
        else:
            self._load(wanted, told)
        self._filled = (wanted, self._shard.version)
        tables = [table.config.to_json() for table in list(self._shard.tables.values())]
        return {"version": self._shard.version, "tables": tables}

    def open(self) -> None:
        """Has the shard log again, behind the version that was restored, and opens it. Does nothing if it is open."""
        if self._log is not None:
            begin_log(self._shard, self._log, self._service.config.log, self._files, self._clock)
            self._log = None
        self._service.closed = None

    def _restore(self, wanted: Wanted, told: Told) -> None:
        self._check_new()
        checkpoints = Checkpoints(wanted.url, self._files, self._clock)
        part = checkpoints.manifest(wanted.name).parts[self._shard.shard_id]
        source = WatchedSource(checkpoints.source(wanted.name, self._shard.shard_id), part.nbytes, told)
        with ExitStack() as held:
            old = None
            if wanted.log:
                old = held.enter_context(
                    OldLog(Path(wanted.log), self._shard.shard_id, wanted.at, self._files, self._clock)
                )
                told("log", 0, 0)
                old.check(part.version)
            self._service.closed = f"checkpoint {wanted.name} is being restored"
            logs = self._shard.commit.log.stats() is not None
            self._log = end_log(self._shard) if logs else None
            try:
                restore(self._shard, source)
            except BaseException:
                self.open()  # it is as new as it was
                raise
            if old is not None:
                with self._lost_on_error(wanted):
                    old.carry_out(self._shard, WIRE, lambda version: told(f"version {version:,}", 0, 0))
        if not logs:
            self.open()

    def _check_new(self) -> None:
        if self._shard.tables:
            raise TableExists(
                f"there are tables ({', '.join(sorted(self._shard.tables))}): restore into a new one, or name the "
                "tables that are to be loaded, and what they are to be called here (tables)"
            )
        if self._shard.version:
            raise InvalidArgument(
                f"the shard has carried out {self._shard.version:,} writes: restore into a new service; if it has a "
                "log, with an empty log.path, and a checkpoint.path that has no checkpoint of a service of this name, "
                "since it goes on from the newest of these by itself"
            )

    @contextmanager
    def _lost_on_error(self, wanted: Wanted) -> Iterator[None]:
        """A log that cannot be carried out to the end leaves a state that nobody has asked for."""
        try:
            yield
        except BaseException as error:
            self._service.state_lost = (
                f"the restore of {wanted.name} failed in the log {wanted.log}, at version {self._shard.version:,} "
                f"({error}): start the service again, and restore without the log, or to a version before that"
            )
            raise

    def _load(self, wanted: Wanted, told: Told) -> None:
        checkpoints = Checkpoints(wanted.url, self._files, self._clock)
        owned_P = self._service.routing.shard_of_partition == self._position()
        done = 0
        for name, here in wanted.tables.items():
            saved = checkpoints.table(wanted.name, name)
            nbytes = row_bytes(saved.config)
            say = partial(_say, told, here, done, nbytes)
            say(0)
            rows = load_table(self._shard, saved, here, owned_P, wanted.values_only, say, self._clock)
            done += rows * nbytes

    def _position(self) -> int:
        shards = self._service.routing.shards
        return next(i for i, shard in enumerate(shards) if shard.shard_id == self._shard.shard_id)


def _say(told: Told, table: str, before: int, row_bytes: int, rows: int) -> None:
    told(table, before + rows * row_bytes, 0)
