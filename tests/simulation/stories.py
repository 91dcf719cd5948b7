"""What the stories share: a shard in one thread, calls that are under way at once, and the seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import pytest

import ps
from ps.runtime.places import CALLER, Operation
from ps.shard import Shard
from ps.shard.caller import Caller
from ps.shard.running import Running
from tests.simulation.seeded import Seeded

T = TypeVar("T")
SEEDS = 200
BLOCKS = 10
FAST = 2


def blocks() -> list[Any]:
    """All blocks of seeds; those beyond the first two run with the slow tests."""
    return [pytest.param(block, marks=[pytest.mark.slow] if block >= FAST else []) for block in range(BLOCKS)]


def seeds(block: int) -> Sequence[int]:
    """The seeds of one block; SEED=17 runs that one alone."""
    only = os.environ.get("SEED")
    if only is not None:
        return [int(only)] if block == 0 else []
    return range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS)


class Story:
    """One shard, its clock and entropy, and the calls that are under way."""

    def __init__(self, seed: int, config: ps.ServiceConfig) -> None:
        self.places = Seeded(seed)
        self.random = self.places.random
        self.clock, self.entropy = self.places.clock, self.places.entropy
        self.shard = Shard(0, config, self.clock, lambda: self.places)
        self.core = self.shard.core

    def call(self, operation: Operation[T], then: Callable[[T], object], caller: Caller) -> Running[T]:
        """Begins a call. `then` is told the result before anything else happens on the engine."""

        def told() -> Operation[T]:
            result = yield from operation
            then(result)
            return result

        return self.places.start(told(), self.shard.engine, caller)

    def worker_id(self) -> int:
        """A new worker's identity, as a client's session draws it."""
        return self.entropy.getrandbits(63)

    def worker(self, story: Operation[Any]) -> Running[Any]:
        """Begins a story, which says CALLER wherever others may go on."""
        return self.places.start(story, self.shard.engine)

    def tell(self, *workers: Operation[Any]) -> None:
        """Goes on until all stories have ended, and whatever they began."""
        running = [self.worker(story) for story in workers]
        self.places.until(lambda: all(each.ended for each in running))
        for each in running:
            each.result()
        self.places.idle()


@contextmanager
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for rows on disk, in memory where there is such a place: what takes time is to open RocksDB."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


@contextmanager
def telling(seed: int, config: ps.ServiceConfig) -> Iterator[Story]:
    """A story that says its seed where it fails."""
    story = Story(seed, config)
    try:
        yield story
    except BaseException as error:
        error.add_note(f"seed {seed}: SEED={seed} makes the same story again")
        raise
    finally:
        story.shard.close()


def ended(*calls: Running[Any]) -> Operation[None]:
    """Waits for calls."""
    while not all(call.ended for call in calls):
        yield CALLER


def rows(values: Sequence[float], dim: int) -> np.ndarray:
    """float32 [n, dim], each row of one value."""
    return np.repeat(np.array(values, np.float32).reshape(-1, 1), dim, 1)
