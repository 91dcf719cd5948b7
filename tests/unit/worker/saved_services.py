"""Services whose checkpoints are in memory, until the service makes them itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ps
from ps.durability import state
from tests.conftest import StartServer
from tests.unit.durability.memory import InMemory

Service = Callable[[], str]


def services(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Returns a function that starts a new service and returns its address."""
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

    monkeypatch.setattr(ps.Client, "checkpoint", checkpoint, raising=False)
    monkeypatch.setattr(ps.Client, "restore", restore, raising=False)
    return start
