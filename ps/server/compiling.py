"""Compiles the kernels at the first start on a machine, once for all its processes, and says so on stderr."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ps import kernels
from ps.kernels import cache
from ps.runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from rich.console import Console

LOOK_S = 0.25
WHAT = "compiling kernels, once on this machine"


def compile_kernels() -> float:
    """Compiles the kernels that are missing, if any; returns the seconds that it took, or waited for another process to
    do it.

    It says so on stderr: by a bar in a terminal, otherwise by a line. All code that makes a shard calls it first.
    """
    if cache.is_complete():
        return 0.0
    started = SYSTEM_CLOCK.monotonic()
    console = to_stderr()
    with cache.compiling(on_wait=lambda: console.print("another process compiles the kernels: waiting for it...")):
        if not cache.is_complete():
            with _shown(console):
                kernels.warm_up()
            cache.mark_complete()
    return SYSTEM_CLOCK.monotonic() - started


def to_stderr() -> Console:
    """Returns the console that says why a start takes time."""
    from rich.console import Console  # a tenth of a second, which only the first start has to spend

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def _shown(console: Console) -> Iterator[None]:
    if not console.is_terminal:
        console.print(f"{WHAT}: about a minute...")
        yield
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        every = kernels.kernels_of_shards()
        task = progress.add_task(WHAT, total=len(every))
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(LOOK_S):
                progress.update(task, completed=sum(bool(one.dispatcher.signatures) for one in every))

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
        progress.update(task, completed=len(every))


if __name__ == "__main__":  # where a machine, or an image of a container, is set up
    compile_kernels()
