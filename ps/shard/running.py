"""An operation that goes on by itself, and waits for its caller where it asks for it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ps.errors import Unavailable
from ps.runtime.places import CALLER, ENGINE, IO, Operation, Place
from ps.shard.caller import Caller

if TYPE_CHECKING:
    from ps.shard.engine import Engine

T = TypeVar("T")

_TOLD: Future[Any] = Future()
_TOLD.set_result(None)


class Running(Generic[T]):
    """An operation that has been started."""

    def __init__(self, engine: Engine, operation: Operation[T], caller: Caller, place: Place) -> None:
        self.place = place
        self._engine = engine
        self._operation = operation
        self._caller = caller
        self._news: Future[T | None] = Future()

    @property
    def ended(self) -> bool:
        """Whether the operation has ended."""
        return self._operation.gi_frame is None  # type: ignore[attr-defined]

    @property
    def waits(self) -> bool:
        """Whether there is news: the operation waits for its caller, or has ended."""
        return self._news.done()

    def wait(self) -> None:
        """Waits until the operation waits for its caller, or has ended."""
        if not self._news.done():
            try:
                self._engine.places.wait(self._news)
            except BaseException:
                if not self._news.done():
                    raise

    def result(self) -> T:
        """Waits until the operation has ended; returns its result or raises its error. To be called once."""
        try:
            return self._engine.places.wait(self._news)  # type: ignore[return-value]
        finally:
            if self._news.done():
                self._news = _TOLD  # an error's traceback has what has this object

    def advance(self, value: object = None, error: Unavailable | None = None) -> None:
        """Runs the next stretch at the place that it asked for, with the caller's value or error if it waits for the
        caller. Raises nothing."""
        if self.ended:  # its error waits for the caller
            return
        if self.place is ENGINE and self._caller.gone:
            error = self._caller.error()
        if self.place is CALLER:
            self._news = Future()
        try:
            while True:
                self.place = self._operation.throw(error) if error else self._operation.send(value)
                try:
                    if self.place is ENGINE:
                        self._engine.put(self.advance)
                    else:
                        self.hand_over()
                    return
                except (RuntimeError, Unavailable):  # the pool has ended, or the engine
                    if self.place is ENGINE:
                        self._engine.join()
                    error = self._engine.stopping()
        except StopIteration as end:
            self._news.set_result(end.value)
        except BaseException as raised:  # noqa: BLE001  told to whoever waits; without this frame, which leads back to it
            self._news.set_exception(raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next))

    def hand_over(self) -> None:
        """Lets a pool, or the caller, run the next stretch. Raises RuntimeError if the pool has ended."""
        if self.place is CALLER:
            self._news.set_result(None)
        else:
            places = self._engine.places
            (places.io if self.place is IO else places.down).submit(self.advance)

    def close(self) -> None:
        """Gives the operation up, if it has not ended."""
        self._engine.close_operation(self._operation)
