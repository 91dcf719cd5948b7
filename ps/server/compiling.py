"""The first start on a machine compiles the kernels: once for all processes there, and said to whoever waits."""

from __future__ import annotations

import importlib
import pkgutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from numba.core.dispatcher import Dispatcher

from ps import kernels
from ps.kernels import cache

if TYPE_CHECKING:
    from rich.console import Console

OF_TRAINERS = ("convergence", "residuals")
"""Files of kernels that no shard runs."""
LOOK_S = 0.25
WHAT = "compiling kernels, once on this machine"


def compile_kernels() -> float:
    """Compiles what is missing, if anything is; returns the seconds that it took or waited for others to do it.

    Says so on stderr: a bar in a terminal, else a line. Everything that makes a shard calls it first.
    """
    if cache.is_complete():
        return 0.0
    started = time.monotonic()
    console = to_stderr()
    with cache.compiling(on_wait=lambda: console.print("another process compiles the kernels: waiting for it...")):
        if not cache.is_complete():
            with _shown(console):
                kernels.warm_up()
            cache.mark_complete()
    return time.monotonic() - started


def to_stderr() -> Console:
    """The console where those who wait are told why."""
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
        every = _every_kernel()
        task = progress.add_task(WHAT, total=len(every))
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(LOOK_S):
                progress.update(task, completed=sum(bool(kernel.signatures) for kernel in every))

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
        progress.update(task, completed=len(every))


def _every_kernel() -> list[Dispatcher]:
    """The kernels that are compiled by themselves; others become part of the kernels that use them."""
    files = [file.name for file in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}.") if not file.ispkg]
    shards = [name for name in files if name.rpartition(".")[2] not in OF_TRAINERS]
    found = {
        id(value): value
        for name in shards
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, Dispatcher) and value.targetoptions.get("inline") != "always"
    }
    return list(found.values())


if __name__ == "__main__":  # where a machine, or an image of a container, is set up
    compile_kernels()
