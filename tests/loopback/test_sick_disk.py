"""A disk that fails below a shard that serves: typed errors for the rows concerned, the shard lives on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2

import ps
from ps.errors import CorruptRow, DiskError, DiskFull
from ps.server.shard_server import ShardServer
from ps.storage.disk.tier import DiskTier
from ps.storage.tier import Records
from tests.conftest import StartServer
from tests.loopback.tables import DIM, block, contents
from tests.loopback.test_server import health
from tests.unit.storage.disks import spoil_a_block
from tests.unit.storage.test_disk_failures import mounted, put_raw, raw_value
from tests.waiting import until

IDS = np.arange(200)
TABLE = ps.TableConfig(name="t", dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant(), swap_fraction=0.9)


def on_disk(server: ShardServer) -> np.ndarray:
    """Ids without a row in RAM."""
    table = server.shard.tables["t"]
    slots_N = server.shard.engine.run(lambda: table.find(IDS))
    return IDS[slots_N < 0]


def tier(server: ShardServer) -> DiskTier:
    disk = server.shard.tables["t"].store.below.tier
    assert isinstance(disk, DiskTier)
    return disk


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ShardServer:
    return start_server(disk={"path": tmp_path})


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


def only(client: ps.Client) -> dict[str, Any]:
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
    assert shard["disk_errors"]["read"] >= len(calls)


def test_rows_go_down_again_after_a_push_that_met_a_corrupt_row(server: ShardServer, client: ps.Client) -> None:
    """A read that failed must not hold slots for ever."""
    spoil(server, int(on_disk(server)[0]))
    with pytest.raises(CorruptRow):
        client.push("t", on_disk(server)[:3], block([1, 1, 1]))
    before = server.shard.tables["t"].counts.rows_demoted
    more = np.arange(1000, 2000)
    client.push("t", more, block(more))
    until(lambda: server.shard.tables["t"].counts.rows_demoted > before + 500)


def test_a_corrupt_row_can_be_removed_and_starts_anew(server: ShardServer, client: ps.Client) -> None:
    first, second, third = on_disk(server)[:3].tolist()
    for bad in (first, second):
        spoil(server, bad)
    existed = client.remove("t", [first, 5000, third, second])
    assert existed.tolist() == [True, False, True, True]
    gone = [first, second, third]
    assert client.size("t") == len(IDS) - 3
    assert tier(server).traffic.rows_read > 0
    np.testing.assert_array_equal(client.pull("t", gone), block([0, 0, 0]))
    client.push("t", gone, block([-7, -7, -7]))
    np.testing.assert_array_equal(client.pull("t", gone), block([7, 7, 7]))
    assert contents(client, "t") == {int(i): [7.0 if i in gone else float(i)] * DIM for i in IDS}
    assert client.remove("t", IDS).all()
    assert (client.size("t"), len(tier(server))) == (0, 0)


def test_a_disk_that_refuses_writes_degrades_the_shard_and_is_asked_again_after_a_while(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(disk={"path": tmp_path})
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
        assert only(client)["disk_errors"] == {"read": 0, "write": 1}
        assert health(server) == health_pb2.HealthCheckResponse.SERVING
        np.testing.assert_array_equal(client.pull("t", IDS), block(IDS))
        patched.undo()
        server.shard.core.disk_health._not_before = 0.0  # five seconds later
        client.push("t", IDS[:1], block([0]))
        until(lambda: len(on_disk(server)) >= 150)
        assert only(client)["degraded"] is None
        np.testing.assert_array_equal(client.pull("t", IDS), block(IDS))


WIDE = 1024
WIDE_TABLE = TABLE.model_copy(update={"dim": WIDE})
BATCH = 2000
"""8 MB of rows: eight such fill a write buffer of RocksDB's."""


def wide(ids_N: np.ndarray) -> np.ndarray:
    return np.repeat(ids_N.astype(np.float32)[:, None], WIDE, axis=1)


def push_until_refused(client: ps.Client) -> np.ndarray:
    """Pushes new rows until the disk takes no more of them; the ids."""
    for k in range(40):
        ids_N = np.arange(k * BATCH, (k + 1) * BATCH)
        client.push("t", ids_N, -wide(ids_N))
        if only(client)["degraded"] is not None:
            return np.arange((k + 1) * BATCH)
    raise AssertionError("the disk took everything")


@pytest.mark.slow
def test_a_disk_that_is_full_costs_no_row_and_is_used_again_when_there_is_room(tmp_path: Path) -> None:
    config = ps.ServiceConfig(disk={"path": tmp_path / "m" / "d"}, watching={"metrics": False})
    with (
        mounted(tmp_path / "m", "12m") as remount,
        ShardServer(0, config) as server,
        ps.connect(server.address) as client,
    ):
        client.create_table(WIDE_TABLE)
        ids_N = push_until_refused(client)
        assert "no room on the disk" in only(client)["degraded"]
        assert only(client)["disk_errors"]["write"] >= 1
        client.push("t", ids_N[::1000], 0 * wide(ids_N[::1000]))
        assert client.size("t") == len(ids_N)
        np.testing.assert_array_equal(client.pull("t", ids_N[::7]), wide(ids_N[::7]))
        remount("size=1g")

        def well_again() -> bool:
            client.push("t", ids_N[:1], 0 * wide(ids_N[:1]))
            return only(client)["degraded"] is None

        until(well_again)
        until(lambda: only(client)["tables"]["t"]["rows"]["hot"] <= 0.2 * len(ids_N))
        np.testing.assert_array_equal(client.pull("t", ids_N[::7]), wide(ids_N[::7]))


def test_a_disk_that_cannot_be_written_to_any_more_is_read_on(tmp_path: Path) -> None:
    """As a mount that is gone, or read-only from now on: files that are open can be read, no new one can be made."""
    config = ps.ServiceConfig(disk={"path": tmp_path / "d"}, watching={"metrics": False})
    with ShardServer(0, config) as server, ps.connect(server.address) as client:
        client.create_table(WIDE_TABLE)
        (tmp_path / "d" / "shard-0" / "rocksdb").rename(tmp_path / "elsewhere")
        ids_N = push_until_refused(client)
        assert "No such file" in only(client)["degraded"]
        client.push("t", ids_N[::1000], 0 * wide(ids_N[::1000]))
        assert only(client)["tables"]["t"]["rows"]["disk"] > 0, "some had gone down before"
        np.testing.assert_array_equal(client.pull("t", ids_N[::7]), wide(ids_N[::7]))
        assert client.remove("t", ids_N[-10:]).all()
        assert health(server) == health_pb2.HealthCheckResponse.SERVING
        client.drop_table("t")
        with pytest.raises(ps.NotFound):
            client.size("t")


def test_a_read_only_disk_is_a_typed_error_at_the_start(tmp_path: Path) -> None:
    with mounted(tmp_path / "m", "12m") as remount:
        remount("ro")
        with pytest.raises(DiskError, match="Read-only file system"):
            ShardServer(0, ps.ServiceConfig(disk={"path": tmp_path / "m" / "d"}))


def test_changed_bytes_in_a_file_cost_the_rows_there_and_no_others(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(disk={"path": tmp_path})
    ids_N = np.arange(20_000)
    with ps.connect(server.address) as client:
        client.create_table(TABLE)
        client.push("t", ids_N, block(-ids_N))
        until(lambda: only(client)["tables"]["t"]["rows"]["hot"] <= 2000)
        tier(server).flush()
        spoil_a_block(tmp_path / "shard-0")
        with pytest.raises(CorruptRow, match=r"others of this batch\) on disk .*checksum mismatch"):
            client.pull("t", ids_N)
        pieces = np.split(ids_N, 200)
        lost = []
        for piece_N in pieces:
            try:
                np.testing.assert_array_equal(client.pull("t", piece_N), block(piece_N))
            except CorruptRow:
                lost.append(piece_N)
        assert 1 <= len(lost) < len(pieces)
        gone_N = np.concatenate(lost)
        assert client.remove("t", gone_N).all()
        assert client.size("t") == len(ids_N) - len(gone_N)
        np.testing.assert_array_equal(client.pull("t", gone_N), block(0 * gone_N))
