"""Brings the rows of a push into RAM while its gradients are still arriving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from ps.errors import ResourceExhausted
from ps.runtime.places import Operation
from ps.shard.caller import Caller
from ps.shard.requests import PushResult, StepRef, TableIds, Target
from ps.shard.running import Running
from ps.shard.steps.rise import Held, Rise
from ps.shard.steps.steps import Resolved
from ps.shard.writes.checks import check_unique
from ps.table.table import Table


class LookAhead:
    """The rows of a push that has begun. As a context manager it releases everything at the end."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.running: Running[PushResult]
        """The push, which waits for its gradients."""
        self._rows: Held | None = None
        self._refused: Callable[[], ResourceExhausted] | None = None

    @property
    def ids(self) -> Sequence[TableIds]:
        """Returns the ids of the push, after `wait`, on any thread; [] for a step that was not held."""
        if not isinstance(self.target, StepRef):
            return self.target
        return [resolved.ids for resolved in self._rows.tables] if self._rows is not None else []

    @property
    def steps(self) -> Sequence[StepRef]:
        """The step that the push ends, if it names one."""
        return [self.target] if isinstance(self.target, StepRef) else []

    def begin(self, running: Running[PushResult]) -> None:
        """Takes the push that has begun. Raises InvalidArgument for ids that are named twice, and has ended it then."""
        self.running = running
        if not isinstance(self.target, StepRef):
            try:
                check_unique(self.target)  # beside the engine's work, not before it
            except BaseException:
                self.close()
                raise

    def wait(self) -> None:
        """Waits until the rows are in RAM, or cannot be brought there."""
        self.running.wait()

    def close(self) -> None:
        """Releases everything for a push that never came, or failed."""
        self.wait()
        self.running.close()

    def __enter__(self) -> LookAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # on the engine

    def rise(self, resolve: Callable[[Target], list[Resolved]], rise: Rise, caller: Caller) -> Operation[None]:
        """Brings the rows up. An error is not raised: the push will meet it itself, unless it is a repeat."""
        with self._noting():
            self._rows = Held(resolve(self.target))
            self._rows.hold()
            yield from rise.rise(self._rows, caller, first_try=True)

    def tables(self, known: Mapping[str, Table]) -> list[Resolved]:
        """Returns the tables looked up, if they still exist; else []."""
        found = self._rows.tables if self._rows is not None else []
        return found if all(known.get(r.ids.table) is r.table for r in found) else []

    def check(self) -> None:
        """Raises ResourceExhausted if there was no room: to read again, with the engine waiting, would not help."""
        if self._refused is not None:
            raise self._refused()

    def let_go(self) -> None:
        """Releases the rows when the push is done with them. May be called again."""
        if self._rows is not None:
            self._rows.let_go()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  see `rise`
            self.let_go()
            if isinstance(error, ResourceExhausted):  # not itself: its traceback has this object, and so the gradients
                self._refused = partial(type(error), str(error), error.retry_after_s)
