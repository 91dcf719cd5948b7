"""What a push is about, brought into RAM while its gradients are still arriving."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

from ps.errors import ResourceExhausted
from ps.shard.caller import PATIENT, Caller
from ps.shard.engine import Engine
from ps.shard.requests import StepRef, TableIds, Target
from ps.shard.steps.rising import Rising
from ps.shard.steps.steps import Resolved
from ps.table.table import Table


class LookAhead:
    """Begun on the engine thread, waited for on the caller's. As a context manager it holds nothing at the end."""

    def __init__(self, target: Target, engine: Engine, io: Executor, caller: Caller = PATIENT) -> None:
        self.target = target
        self._caller = caller
        self._engine = engine
        self._io = io
        self._rising: Rising | None = None
        self._refused: Callable[[], ResourceExhausted] | None = None
        self._ended = threading.Event()

    def begin(self, resolve: Callable[[], list[Resolved]]) -> None:
        """Engine thread. An error is not told: the push will meet it itself, unless it is a repeat."""
        try:
            self._caller.check()
            rising = Rising(resolve(), self._caller)
            rising.begin()
            self._rising = rising
            if rising.waits:
                self._io.submit(self._read, rising)
            else:
                self._ended.set()
        except BaseException as error:  # also where the shard is stopping and takes no more reads
            if self._rising is not None:
                self._rising.abandon()
            self._note(error)
            self._ended.set()
            raise

    def tables(self, known: Mapping[str, Table]) -> list[Resolved]:
        """Engine thread: the tables looked up, if they are there still; else []."""
        found = self._rising.tables if self._rising is not None else []
        return found if all(known.get(r.ids.table) is r.table for r in found) else []

    @property
    def ids(self) -> Sequence[TableIds]:
        """Any thread, after `wait`: what the push is about; of a step that was not here, []."""
        if not isinstance(self.target, StepRef):
            return self.target
        return [resolved.ids for resolved in self._rising.tables] if self._rising is not None else []

    def wait(self) -> None:
        """Until the rows are in RAM, or cannot be brought there."""
        self._ended.wait()

    def check(self) -> None:
        """Raises ResourceExhausted if there was no room: reading once more, with the engine waiting, would not help."""
        if self._refused is not None:
            raise self._refused()

    def let_go(self) -> None:
        """Engine thread: the push is done with its rows."""
        if self._rising is not None:
            self._rising.let_go()

    def __enter__(self) -> LookAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """A push that never came, or failed, holds nothing from now on."""
        self.wait()
        if self._rising is not None and self._rising.holds:
            self._engine.post(self._rising.let_go)

    def _read(self, rising: Rising) -> None:
        try:
            rising.read()
        except BaseException:
            self._engine.post(lambda: self._end(rising.abandon))
            raise
        self._engine.post(lambda: self._end(rising.finish))

    def _note(self, error: BaseException) -> None:
        if isinstance(error, ResourceExhausted):  # not itself: its traceback has this object, and so the gradients
            self._refused = partial(type(error), str(error), error.retry_after_s)

    def _end(self, how: Callable[[], object]) -> None:
        try:
            how()
        except BaseException as error:
            self._note(error)
            raise
        finally:
            self._ended.set()
