"""Services that save themselves and are restored."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.cluster import inprocess
from ps.durability import state
from tests.conftest import StartServer
from tests.unit.durability.memory import InMemory

Service = Callable[[], str]
REAL = find_spec("ps.server.checkpoints") is not None
needs_a_service_that_saves_itself = pytest.mark.skipif(not REAL, reason="the service makes no checkpoints yet")


def services(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Returns a function that starts a new service and returns its address."""
    return inprocess.start if REAL else _in_memory(start_server, monkeypatch)


def _in_memory(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Services whose checkpoints are in memory, as long as they do not make them themselves."""
    shards: dict[str, Any] = {}
    saved: dict[str, InMemory] = {}

    def checkpoint(client: ps.Client, path: str) -> str:
        name = f"at-{len(saved)}"
        saved[name] = InMemory()
        state.save(shards[client.address], saved[name])
        (Path(path) / name).mkdir(parents=True)
        return name

    def restore(client: ps.Client, path: str) -> None:
        assert Path(path).is_dir()
        state.restore(shards[client.address], saved[Path(path).name])

    def start() -> str:
        server = start_server()
        shards[server.address] = server.shard
        return server.address

    monkeypatch.setattr(ps.Client, "checkpoint", checkpoint)
    monkeypatch.setattr(ps.Client, "restore", restore)
    return start


def contents(client: ps.Client, table: str) -> tuple[np.ndarray, ...]:
    """Ids, rows and scores, ids ascending."""
    ids_N, rows_ND, scores_N = (np.concatenate(parts) for parts in zip(*client.export(table), strict=True))
    order_N = np.argsort(ids_N)
    return ids_N[order_N], rows_ND[order_N], scores_N[order_N]
