"""Every tier that there is, by name: what makes one, given a folder of its own, and the lengths of row that it takes.

Who adds a tier adds it to TIERS, and all of this folder's tests hold for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ps.storage.disk import Disk
from ps.storage.tier import Tier


@dataclass(frozen=True)
class Kind:
    """How to make one kind of tier."""

    make: Callable[[Path], AbstractContextManager[Tier]]
    row_bytes: tuple[int, ...]


def disk(row_bytes: tuple[int, ...]) -> Kind:
    @contextmanager
    def make(folder: Path) -> Iterator[Tier]:
        database = Disk(folder / "disk", cache_bytes=1 << 20, threads=2, write_buffer_bytes=1 << 20)
        yield database.table("t", row_bytes)
        database.close()

    return Kind(make, row_bytes)


TIERS = {"disk": disk((24,)), "disk-two-lengths": disk((260, 130))}
