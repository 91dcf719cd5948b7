"""The way of a pull and of a push on the shard is short, and docs/architecture.md shows it as it is.

Counted is every frame of `ps`: on the caller's thread from the call into the shard to where it is handed over to the
engine, and on the engine's thread from its loop to the first frame of the table. What is below is the table's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

import ps
from ps.runtime.places import Queue, Threads
from ps.shard import Shard
from ps.storage.ram.rows import PlainRows
from tests.conftest import QUIET
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table

ROOT = Path(ps.__file__).parents[1]
MOST = {"pull": 8, "push": 10}


def frames() -> list[str]:
    """Frames of `ps`, the outermost first, as "file: function"."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "ps"):
            found.append(f"{path.relative_to(ROOT)}: {frame.f_code.co_qualname}")
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1]


class Watched(Threads):
    """Threads of which the engine's queue keeps the way by which the last task came."""

    def __init__(self) -> None:
        super().__init__("way")
        self.handed: list[str] = []

    def queue(self) -> Queue:
        return Kept(self)


class Kept(SimpleQueue):  # type: ignore[type-arg]
    def __init__(self, places: Watched) -> None:
        super().__init__()
        self._places = places

    def put(self, item: Any) -> None:  # type: ignore[override]
        way = frames()
        if way[-1].startswith("ps/shard/engine.py"):
            self._places.handed = way
        super().put(item)


def table_of(way: list[str]) -> list[str]:
    """The way down to the first frame of the table."""
    end = next(number for number, frame in enumerate(way) if frame.startswith("ps/table/"))
    return way[: end + 1]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """The ways of a pull and of a push."""
    found: dict[str, list[str]] = {}
    places = Watched()
    shard = Shard(0, QUIET, places=lambda: places)

    def watch(method: str, what: str) -> None:
        real = getattr(PlainRows, method)

        def watched(*arguments: Any) -> Any:
            found.setdefault(what, places.handed + table_of(frames()))
            return real(*arguments)

        monkeypatch.setattr(PlainRows, method, watched)

    watch("gather", "pull")
    watch("update", "push")
    try:
        new_table(shard)
        shard.pull([ids_of("t", [1, 2])]).head()
        with shard.look_ahead([ids_of("t", [1, 2])]) as ahead:
            shard.push(a_write(), ahead, [grads_of("t", np.ones((2, DIM)))])
        yield found
    finally:
        shard.close()


def test_the_way_is_short_and_the_docs_show_it(ways: dict[str, list[str]]) -> None:
    docs = (ROOT / "docs" / "architecture.md").read_text()
    for what, most in MOST.items():
        way = ways[what]
        print(f"{what}: {len(way)} frames", *way, sep="\n    ")
        assert len(way) <= most, "\n".join(way)
        shown = docs.split(f"    {what}: {len(way)} frames\n")[1].split("\n\n")[0]
        assert [line.strip() for line in shown.splitlines()] == way
