"""Compiles kernels on the nodes of a Ray cluster, once on each node, before its shards start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import ray
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ps.kernels.cache import is_complete
from ps.runtime.clock import SYSTEM_CLOCK
from ps.server.compiling import compile_kernels, to_stderr

T = TypeVar("T")


class Stopwatch:
    """Counts the seconds that are left, without those during which it is paused."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.restart()

    def restart(self) -> None:
        """Begins to count again."""
        self._end = SYSTEM_CLOCK.monotonic() + self._timeout_s

    def remaining_s(self) -> float:
        """Returns the seconds that are left, at least 0."""
        return max(self._end - SYSTEM_CLOCK.monotonic(), 0.0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock for the time of the block."""
        started = SYSTEM_CLOCK.monotonic()
        yield
        self._end += SYSTEM_CLOCK.monotonic() - started


def compile_on_nodes(group: PlacementGroup) -> None:
    """Waits until every node that will have shards of the group has compiled its kernels, however long that takes."""
    bundles = {node: bundle for bundle, node in placement_group_table(group)["bundles_to_node_id"].items()}

    def on(bundle: int, task: Callable[[], T]) -> ray.ObjectRef[T]:
        placed = PlacementGroupSchedulingStrategy(group, bundle)
        return ray.remote(num_cpus=0)(task).options(scheduling_strategy=placed).remote()

    have_all = ray.get([on(bundle, is_complete) for bundle in bundles.values()])
    lack = [bundle for bundle, complete in zip(bundles.values(), have_all, strict=True) if not complete]
    if not lack:
        return
    says = f"compiling kernels on {len(lack)} of {len(bundles)} nodes, once each: about a minute..."
    console = to_stderr()
    compiling = [on(bundle, compile_kernels) for bundle in lack]
    if console.is_terminal:
        with console.status(says):
            ray.get(compiling)
    else:
        console.print(says)
        ray.get(compiling)
