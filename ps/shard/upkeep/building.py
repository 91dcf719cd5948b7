"""Makes tables that take long: those with cores, which are millions of random numbers.

    engine: is the name free? is there room? --> held      any thread: draws them      engine: puts the table together
                                                                    (other calls go on)

A failure on the way gives the room back. One table is made at a time, so that drawing takes one processor and no two
tables under way have the same name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ps.errors import ResourceExhausted
from ps.shard.engine import Engine
from ps.table.cold.cores import ColdCores

MOST = 4
"""How many calls may make a table or wait for their turn: each holds a place that could serve others."""
RETRY_S = 0.25


class Building:
    """The tables under way of one shard."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST)

    def run(self, reserve: Callable[[], ColdCores | None], install: Callable[[ColdCores | None], bool]) -> bool:
        """Returns what `install` returns. `reserve` and `install` run on the engine thread; `reserve` returns None if
        nothing must be drawn. `install` owns the cores that it is given, also if it fails."""
        with self._in_turn():
            cores = self._engine.run(reserve)
            if cores is not None:
                self._draw(cores)
            return self._engine.finish(lambda: install(cores))

    def _draw(self, cores: ColdCores) -> None:
        try:
            cores.draw()
        except BaseException:
            self._engine.finish(cores.close)
            raise

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ResourceExhausted(f"{MOST} tables with cores are being made, or wait for that", RETRY_S)
        try:
            with self._turn:
                yield
        finally:
            self._places.release()
