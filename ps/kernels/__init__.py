"""The arithmetic on arrays, in numba. `ps.kernels.reference` has the same functions in plain numpy: the specification.

A kernel is declared in its own file, with what the warm-up compiles it for (`ps.kernels.kernel`). A compiled kernel is
kept, and compiled again when its file changes or a file that it imports (`ps.kernels.cache`).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ps.kernels.kernel import Kernel


def kernels_of_shards() -> list[Kernel]:
    """All kernels that a shard runs, found by importing every file of this package."""
    for file in pkgutil.walk_packages(__path__, f"{__name__}."):
        if not file.name.startswith(f"{__name__}.reference"):
            importlib.import_module(file.name)
    from ps.kernels.kernel import WARMED

    return WARMED


def warm_up() -> None:
    """Loads (or, the first time on a machine, compiles) every kernel, so that no request waits for it.

    Takes about a second from the cache and about a minute without one: `ps.server.compiling` tells those who wait.
    """
    for kernel in kernels_of_shards():
        kernel.compile()
