"""Every tier that there is, by name: what makes one, given a folder of its own, and the lengths of row that it takes.

Who adds a tier adds it to TIERS, and all of this folder's tests hold for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import ps
from ps.kernels.updates.optim import update_rule
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.database import Disk
from ps.storage.ram.arena import Arena
from ps.storage.ram.device_budget import DeviceBudget
from ps.storage.ram.device_rows import DeviceRows
from ps.storage.ram.mixed import MixedRows
from ps.storage.ram.rows import ArenaRows, PlainRows
from ps.storage.tier import Tier
from tests.devices import NEEDS_CUDA


@dataclass(frozen=True)
class Kind:
    """How to make one kind of tier."""

    make: Callable[[Path], AbstractContextManager[Tier]]
    row_bytes: tuple[int, ...]
    again: Callable[[Path], AbstractContextManager[Tier]] | None = None
    """How to open one again that was closed, if it outlives that."""
    needs_gpu: bool = False


def disk(row_bytes: tuple[int, ...]) -> Kind:
    @contextmanager
    def make(folder: Path, fresh: bool = True) -> Iterator[Tier]:
        database = Disk(folder / "disk", cache_bytes=1 << 20, threads=2, fresh=fresh, write_buffer_bytes=1 << 20)
        yield database.table("t", row_bytes)
        database.close()

    return Kind(make, row_bytes, partial(make, fresh=False))


def arena(rows: Callable[[ps.TableConfig], ArenaRows], config: ps.TableConfig) -> Kind:
    @contextmanager
    def make(folder: Path) -> Iterator[Tier]:
        tier = Arena(rows(config), RamBudget(ps.ServiceConfig()))
        yield tier
        tier.close()

    probe = rows(config)
    probe.close()
    return Kind(make, tuple(probe.lengths))


def device(name: str) -> Kind:
    """Made when it is used: there may be no such device."""
    config = ps.TableConfig(name="t", dim=5, optimizer=ps.Adagrad(), device=name)

    @contextmanager
    def make(folder: Path) -> Iterator[Tier]:
        rows = DeviceRows(config, update_rule(config.optimizer, config.dim), DeviceBudget(None))
        tier = Arena(rows, RamBudget(ps.ServiceConfig()))
        yield tier
        tier.close()

    return Kind(make, (40,), needs_gpu=name == "cuda")


def ram() -> Kind:
    return arena(
        lambda config: PlainRows(config, update_rule(config.optimizer, config.dim)), ps.TableConfig(name="t", dim=5)
    )


def ram_and_cold(cold: ps.Fp16, **fields: object) -> Kind:
    config = ps.TableConfig(name="t", dim=5, cold=cold, **fields)
    rule = update_rule(config.optimizer, config.dim)
    return arena(lambda config: MixedRows(config, rule, cold.state), config)


TIERS = {
    "ram": ram(),
    "ram-cold": ram_and_cold(ps.Fp16()),
    "ram-cold-rowwise": ram_and_cold(ps.Fp16(state="rowwise"), optimizer=ps.Adagrad()),
    "device-torch-cpu": device("torch-cpu"),
    "device-cuda": device("cuda"),
    "disk": disk((24,)),
    "disk-two-lengths": disk((260, 130)),
}

NAMES = [pytest.param(name, marks=NEEDS_CUDA if kind.needs_gpu else ()) for name, kind in TIERS.items()]
"""Of TIERS, those marked that need a device."""
