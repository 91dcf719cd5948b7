"""A disk that fails below a shard that serves: typed errors for the rows concerned, the shard lives on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2

import ps
from ps.errors import CorruptRow, DiskFull
from ps.server.shard_server import ShardServer
from ps.storage.disk_tier import DiskTier
from ps.storage.tier import Records
from tests.conftest import StartServer
from tests.loopback.tables import DIM, block, contents
from tests.loopback.test_server import health
from tests.unit.storage.test_disk_failures import put_raw, raw_value
from tests.waiting import until

IDS = np.arange(200)
TABLE = ps.TableConfig(name="t", dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant(), swap_fraction=0.9)


def on_disk(server: ShardServer) -> np.ndarray:
    """Ids without a row in RAM."""
    table = server.shard.tables["t"]
    slots_N = server.shard.engine.run(lambda: table.find(IDS))
    return IDS[slots_N < 0]


def tier(server: ShardServer) -> DiskTier:
    disk = server.shard.tables["t"].store._disk
    assert isinstance(disk, DiskTier)
    return disk


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ShardServer:
    return start_server(disk_path=tmp_path)


@pytest.fixture
def client(server: ShardServer) -> Iterator[ps.Client]:
    """Of a table of which nine rows in ten are on disk."""
    with ps.connect(server.address) as connected:
        connected.create_table(TABLE)
        connected.push("t", IDS, block(-IDS))
        until(lambda: len(on_disk(server)) >= 150)
        yield connected


def spoil(server: ShardServer, id_: int) -> None:
    """Changes a byte of a row where RocksDB would not notice."""
    value = bytearray(raw_value(tier(server), id_))
    value[-1] ^= 0x10
    put_raw(tier(server), id_, bytes(value))


def only(client: ps.Client) -> dict[str, object]:
    (shard,) = client.stats()["shards"]
    return shard


def test_a_corrupt_row_is_an_error_of_those_who_ask_for_it_and_of_nobody_else(
    server: ShardServer, client: ps.Client
) -> None:
    bad, *others = on_disk(server).tolist()
    spoil(server, bad)
    step = client.prepare({"t": [bad, others[0]]})
    calls = [
        step.pull,
        lambda: step.push({"t": block([1, 1])}),
        lambda: client.pull("t", [others[0], bad]),
        lambda: client.push("t", [bad], block([1])),
        lambda: client.upsert("t", [bad], block([1])),
        lambda: client.assign("t", [bad], block([1])),
    ]
    for call in calls:
        with pytest.raises(CorruptRow, match=f"table 't': the row of id {bad} on disk is not what was written"):
            call()
    well = np.setdiff1d(IDS, [bad])
    np.testing.assert_array_equal(client.pull("t", well), block(well))
    client.push("t", others[:3], block([0, 0, 0]))
    assert health(server) == health_pb2.HealthCheckResponse.SERVING
    shard = only(client)
    assert str(shard["degraded"]).startswith("rows on disk cannot be read: table 't'")
    assert int(str(shard["disk_errors"])) >= len(calls)


def test_rows_go_down_again_after_a_push_that_met_a_corrupt_row(server: ShardServer, client: ps.Client) -> None:
    """A read that failed must not hold slots for ever."""
    spoil(server, int(on_disk(server)[0]))
    with pytest.raises(CorruptRow):
        client.push("t", on_disk(server)[:3], block([1, 1, 1]))
    before = server.shard.tables["t"].store.rows_demoted
    more = np.arange(1000, 2000)
    client.push("t", more, block(more))
    until(lambda: server.shard.tables["t"].store.rows_demoted > before + 500)


def test_a_corrupt_row_can_be_removed_and_starts_anew(server: ShardServer, client: ps.Client) -> None:
    first, second, third = on_disk(server)[:3].tolist()
    for bad in (first, second):
        spoil(server, bad)
    existed = client.remove("t", [first, 5000, third, second])
    assert existed.tolist() == [True, False, True, True]
    gone = [first, second, third]
    assert client.size("t") == len(IDS) - 3
    assert tier(server).rows_read > 0
    np.testing.assert_array_equal(client.pull("t", gone), block([0, 0, 0]))
    client.push("t", gone, block([-7, -7, -7]))
    np.testing.assert_array_equal(client.pull("t", gone), block([7, 7, 7]))
    assert contents(client, "t") == {int(i): [7.0 if i in gone else float(i)] * DIM for i in IDS}
    assert client.remove("t", IDS).all()
    assert (client.size("t"), len(tier(server))) == (0, 0)


def test_a_disk_that_refuses_writes_degrades_the_shard_and_is_asked_again_after_a_while(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(disk_path=tmp_path)
    asked: list[int] = []

    def full(_: DiskTier, records: Records, held: int | None = None) -> None:
        asked.append(len(records))
        raise DiskFull("no room", retry_after_s=5)

    with monkeypatch.context() as patched, ps.connect(server.address) as client:
        patched.setattr(DiskTier, "write", full)
        client.create_table(TABLE)
        client.push("t", IDS, block(-IDS))
        until(lambda: only(client)["degraded"] == "rows cannot go down to disk: no room")
        for _ in range(20):
            client.push("t", IDS, block(0 * IDS))
        assert len(asked) == 1, "not again for five seconds, however many pushes"
        assert only(client)["disk_errors"] == 1
        assert health(server) == health_pb2.HealthCheckResponse.SERVING
        np.testing.assert_array_equal(client.pull("t", IDS), block(IDS))
        patched.undo()
        server.shard._disk_health._not_before = 0.0  # five seconds later
        client.push("t", IDS[:1], block([0]))
        until(lambda: len(on_disk(server)) >= 150)
        assert only(client)["degraded"] is None
        np.testing.assert_array_equal(client.pull("t", IDS), block(IDS))
