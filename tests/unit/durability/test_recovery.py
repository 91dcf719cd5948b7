"""A shard acknowledges what its log has, and comes back from it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.durability.log.log import Mode
from ps.durability.recovery import take_up
from ps.durability.state import restore
from ps.errors import DiskError, InvalidArgument, LogCorrupt, LogFailed, ResourceExhausted, ShardPoisoned, Unavailable
from ps.runtime.files import RealFiles
from ps.server.shard_server import ShardServer
from ps.server.unpacking import WIRE
from ps.shard import Shard, StepRef
from ps.shard.ledger import Ledger, WriteId
from tests.conftest import QUIET
from tests.unit.durability.logs import opened, write
from tests.unit.durability.memory import again, saved
from tests.unit.shard.helpers import a_write, grads_of, ids_of, new_table, push, read
from tests.unit.shard.histories import History, answers, held
from tests.unit.shard.test_poison import EARLIER, IDS, KINDS, ONES, OWN, REPEATABLE, WRITE, begun

SOON_S = 20.0
ASKED = [name for name, do in KINDS.items() if do not in OWN]


class Held(History):
    """A log that is slow: its test says when what it has is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[int, Future[None]]] = []
        self.asked = threading.Semaphore(0)
        self.open = True

    def durable(self, version: int) -> Future[None]:
        if self.open:
            return super().durable(version)
        self.waits.append((version, Future()))
        self.asked.release()
        return self.waits[-1][1]


@pytest.mark.parametrize(
    ("name", "again"), [*((name, False) for name in ASKED), *((name, True) for name in REPEATABLE)]
)
def test_no_write_is_answered_before_it_is_durable(name: str, again: bool) -> None:
    """Nor its repeat, which the ledger answers."""
    history = Held()
    shard = begun(Shard(0, QUIET, history=history))
    do = KINDS[name]
    with ThreadPoolExecutor(1) as pool:
        if again:
            do(shard, WRITE)
        history.open = False
        call = pool.submit(do, shard, WRITE)
        assert history.asked.acquire(timeout=SOON_S), "it waits for its log"
        assert not call.done()
        waits, history.open = list(history.waits), True
        assert waits[0][0] == shard.version == len(history.records)
        while not call.done():
            for _, wait in history.waits:
                if not wait.done():
                    wait.set_result(None)
            history.asked.acquire(timeout=0.01)
        call.result()
    shard.close()


def test_a_write_whose_log_failed_is_not_acknowledged() -> None:
    history = Held()
    shard = begun(Shard(0, QUIET, history=history))
    for name in sorted(ASKED, key="drop".__eq__):  # last: the others need the table
        history.open = False
        history.durable = lambda _: failed()  # type: ignore[method-assign]
        with pytest.raises(LogFailed, match="the disk is gone"):
            KINDS[name](shard, a_write(9))
    shard.close()


def failed() -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(LogFailed("the disk is gone"))
    return future


def settings(path: Path, **others: object) -> ps.LogConfig:
    return ps.LogConfig(mode="interval", path=path, segment_bytes=1 << 20, **others)


def logged(path: Path, **others: object) -> Shard:
    shard = Shard(0, QUIET)
    try:
        take_up(shard, settings(path, **others), WIRE)
    except BaseException:
        shard.close()
        raise
    return shard


def test_a_shard_comes_back_from_its_log(tmp_path: Path) -> None:
    """Every kind of write, a shard that ends after each."""
    shard = begun(logged(tmp_path))
    for k, name in enumerate([name for name in ASKED if name not in ("create", "drop")]):
        write = WriteId(5, k + 1, k)
        shard.prepare(StepRef(1, 1), [IDS])  # a hint, which no log has
        KINDS[name](shard, write)
        before = held(shard), answers(shard, [*EARLIER, write])
        shard.close()
        shard = logged(tmp_path)
        assert (held(shard), answers(shard, [*EARLIER, write])) == before
        KINDS[name](shard, write)
        assert held(shard) == before[0], "the ledger came back too"
    shard.close()


def test_what_is_replayed_is_not_logged_again(tmp_path: Path) -> None:
    shard = begun(logged(tmp_path))
    shard.close()
    size = {path.name: path.stat().st_size for path in tmp_path.rglob("*.log")}
    shard = logged(tmp_path)
    stats = shard.stats()["log"]
    shard.close()
    assert {path.name: path.stat().st_size for path in tmp_path.rglob("*.log")} == size
    assert stats["nbytes"] == sum(size.values())
    assert stats["records"] == 0
    assert stats["synced"] == shard.version == 4


def test_a_full_log_refuses_writes_and_changes_nothing(tmp_path: Path) -> None:
    shard = logged(tmp_path, max_bytes=1 << 20)
    new_table(shard, "t", dim=64)
    rows = ids_of("t", range(2000)), grads_of("t", np.ones((2000, 64), np.float32))
    refused = None
    for _ in range(5):
        before = shard.version
        try:
            push(shard, [rows[0]], rows[1])
        except ResourceExhausted as error:
            refused = error
            break
    assert refused is not None
    assert "log.max_bytes" in str(refused)
    assert refused.retry_after_s is None, "nothing makes room by itself yet"
    assert shard.version == before
    with pytest.raises(ResourceExhausted, match=r"log\.max_bytes"):
        shard.drop_table("t")
    assert len(read(shard, "t", [1])) == 1
    shard.close()


def test_rows_make_room_also_after_the_write_that_fills_the_log(tmp_path: Path) -> None:
    shard = Shard(0, QUIET.having(disk={"path": tmp_path / "disk", "max_bytes": 1 << 20}))
    take_up(shard, settings(tmp_path / "log", max_bytes=1 << 20), WIRE)
    new_table(shard, "t", dim=64)

    def fill() -> None:
        for start in range(0, 10_000, 500):
            push(shard, [ids_of("t", range(start, start + 500))], grads_of("t", np.ones((500, 64), np.float32)))

    with pytest.raises(ResourceExhausted, match=r"log\.max_bytes"):
        fill()
    table = shard.tables["t"]
    assert len(table) * table.bytes_each <= 0.8 * (1 << 20)
    assert shard.stats()["degraded"] is None
    before = held(shard)
    shard.close()
    shard = Shard(0, QUIET.having(memory={"ram_bytes": 64 << 20}))
    take_up(shard, settings(tmp_path / "log"), WIRE)
    assert held(shard) == before
    shard.close()


def test_a_replay_waits_for_rows_to_go_to_disk(tmp_path: Path) -> None:
    """As clients had to, or with more RAM did not have to. Each push alone takes most of the room."""
    shard = logged(tmp_path / "log")
    new_table(shard, "t", dim=1024)
    values_ND = np.ones((3000, 1024), np.float32)
    for start in (0, 3000, 6000):
        push(shard, [ids_of("t", range(start, start + 3000))], grads_of("t", values_ND))
    before = read(shard, "t", range(0, 9000, 100))
    shard.close()
    small = Shard(0, QUIET.having(memory={"ram_bytes": 64 << 20}, disk={"path": tmp_path / "disk"}))
    assert small.budget.for_slots(1) < 2 * values_ND.nbytes, "two pushes do not fit together"
    take_up(small, settings(tmp_path / "log"), WIRE)
    assert small.version == 4
    np.testing.assert_array_equal(read(small, "t", range(0, 9000, 100)), before)
    small.close()


def test_a_restored_shard_takes_up_what_its_log_has_behind_it(tmp_path: Path) -> None:
    """And a shard that logs already is not restored: its log would not have the versions before."""
    shard = begun(logged(tmp_path))
    copy = saved(shard)
    push(shard, [IDS], grads_of("t", ONES))
    before = held(shard)
    shard.close()
    with again(copy, QUIET) as other:
        assert other.version == 4
        take_up(other, settings(tmp_path), WIRE)
        assert held(other) == before
        push(other, [IDS], grads_of("t", ONES))
        before = held(other)
    shard = logged(tmp_path)
    assert held(shard) == before
    shard.close()
    new = logged(tmp_path / "new")
    with pytest.raises(InvalidArgument, match="logs already"):
        restore(new, copy)
    new_table(new, "t")
    new.close()


def test_a_poisoned_shard_is_as_its_log_says_once_it_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to load an export over it, which would take back what was acknowledged since."""
    shard = begun(logged(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", lambda *_: [][0])
        with pytest.raises(ShardPoisoned, match="restart the service and its log brings back the rows"):
            push(shard, [IDS], grads_of("t", ONES), write=WRITE)
    shard.close()
    shard = logged(tmp_path)
    assert shard.version == 5
    assert push(shard, [IDS], grads_of("t", ONES), write=WRITE).repeated
    shard.close()


def test_a_log_is_let_go_where_its_shard_ends_badly_or_cannot_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = begun(logged(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(shard.tables["t"], "close", lambda: [][0])
        with pytest.raises(IndexError):
            shard.close()
    nowhere = QUIET.having(log=settings(tmp_path).model_dump(), network={"host": "203.0.113.1"})
    with pytest.raises(Unavailable, match="cannot listen"):
        ShardServer(0, nowhere)
    shard = logged(tmp_path)
    assert shard.version == 4
    shard.close()


def spoiled(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def test_damage_is_named_and_the_log_let_go(tmp_path: Path) -> None:
    begun(logged(tmp_path)).close()
    segment = min(tmp_path.rglob("*.log"))
    whole = segment.read_bytes()
    spoiled(segment, lambda data: data.__setitem__(100, data[100] ^ 1))
    for _ in range(2):
        with pytest.raises(LogCorrupt, match=rf"{segment}, byte 32: damaged where version 1 should be"):
            logged(tmp_path)
    segment.write_bytes(whole)
    logged(tmp_path).close()


def test_a_record_that_is_no_write_is_named(tmp_path: Path) -> None:
    raw = opened(RealFiles(), Mode.SYNC, tmp_path)
    write(raw, 1, [b"no write"])
    raw.close()
    with pytest.raises(LogCorrupt, match="version 1 cannot be read: "):
        logged(tmp_path)


def test_a_shard_has_its_log_to_itself(tmp_path: Path) -> None:
    shard = logged(tmp_path)
    with pytest.raises(DiskError, match="another process writes the log"):
        logged(tmp_path)
    shard.close()


def test_rows_are_read_while_a_write_waits() -> None:
    history = Held()
    shard = begun(Shard(0, QUIET, history=history))
    history.open = False
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(push, shard, [IDS], grads_of("t", ONES))
        assert history.asked.acquire(timeout=SOON_S)
        assert len(read(shard, "t", [0])) == 1
        history.waits[0][1].set_result(None)
        call.result(SOON_S)
    shard.close()
