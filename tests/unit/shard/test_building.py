"""Tables with cores: made beside the engine, and gone without a trace where that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import ps
from ps.shard import Shard
from ps.shard.upkeep.building import MOST
from ps.storage.ram.device_rows import check_device
from ps.table.cold import cores
from tests.unit.shard.helpers import new_table, push_ids, read
from tests.unit.shard.test_refused_tables import held
from tests.waiting import LIMIT_S, until

CONFIG = ps.TableConfig(
    name="tt", dim=16, initializer=ps.Normal(std=0.1), cold=ps.TensorTrain(rows=10_000, ranks=8, hot_rows=100)
)


@pytest.fixture
def shard() -> Iterator[Shard]:
    running = Shard(0, ps.ServiceConfig(memory={"ram_bytes": 256 << 20}, watching={"metrics": False}))
    yield running
    running.close()


class Drawing:
    """The real drawing of cores, which begins when a test lets it."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.begun.set()
        assert self.go.wait(LIMIT_S)
        return self._real(*arguments)


@contextmanager
def drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawing]:
    held_up = Drawing(cores.initial_cores)
    monkeypatch.setattr(cores, "initial_cores", held_up)
    try:
        yield held_up
    finally:
        held_up.go.set()


def test_the_engine_goes_on_while_cores_are_drawn(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    new_table(shard, "t", dim=1)
    with drawing(monkeypatch) as draw, ThreadPoolExecutor() as pool:
        created = pool.submit(shard.create_table, CONFIG)
        assert draw.begun.wait(LIMIT_S)
        push_ids(shard, "t", [1], [[1]])
        assert read(shard, "t", [1]).tolist() == [[-1]]
        assert "tt" not in shard.tables
        assert not shard.drop_table("tt", missing_ok=True), "it is not there yet"
        draw.go.set()
        assert created.result() is True
    assert read(shard, "tt", [1, 2]).any()


def test_a_table_of_that_name_that_came_first_stays(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held(shard)
    with drawing(monkeypatch) as draw, ThreadPoolExecutor() as pool:
        created = pool.submit(shard.create_table, CONFIG, exist_ok=True)
        assert draw.begun.wait(LIMIT_S)
        new_table(shard, "tt", dim=1)
        draw.go.set()
        with pytest.raises(ps.TableExists):
            created.result()
    shard.drop_table("tt")
    assert held(shard) == before


def test_cores_that_cannot_be_drawn_are_given_back(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("injected")

    before = held(shard)
    with monkeypatch.context() as patch:
        patch.setattr(cores, "initial_cores", broken)
        for _ in range(2):
            with pytest.raises(MemoryError):
                shard.create_table(CONFIG)
    assert held(shard) == before
    assert shard.create_table(CONFIG)
    assert not shard.create_table(CONFIG, exist_ok=True)
    with pytest.raises(ps.TableExists):
        shard.create_table(CONFIG)


def test_those_who_wait_for_their_turn_are_few(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [CONFIG.model_copy(update={"name": f"tt{number}"}) for number in range(MOST)]
    with drawing(monkeypatch) as draw, ThreadPoolExecutor() as pool:
        waiting = [pool.submit(shard.create_table, config) for config in configs]
        until(lambda: shard.core.building._places._value == 0)
        with pytest.raises(ps.ResourceExhausted) as refused:
            shard.create_table(CONFIG)
        assert refused.value.retry_after_s
        draw.go.set()
        assert all(each.result() for each in waiting)
    assert shard.create_table(CONFIG)


def test_torch_is_imported_beside_the_engine(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    first: list[str] = []

    def watched(device: str) -> None:
        first.append(threading.current_thread().name)
        check_device(device)

    for module in ("ps.shard.tables", "ps.storage.ram.device_rows"):
        monkeypatch.setattr(f"{module}.check_device", watched)
    new_table(shard, "t", dim=1, device="torch-cpu")
    assert not first[0].startswith("engine")
    if not torch.cuda.is_available():
        with pytest.raises(ps.errors.ConfigError):
            new_table(shard, "u", dim=1, device="cuda")
    assert sum(name.startswith("engine") for name in first) == 1, "of a device that is not there the engine never hears"
