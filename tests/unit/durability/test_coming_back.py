"""A service with a log comes back: from its log, from what a clean stop has left, or from a checkpoint."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.cluster.coordinator.coordinator import Coordinator
from ps.durability.origin import Origin
from ps.errors import ConfigError, LogCorrupt, RolledBack, StateLost
from ps.server.shard_server import ShardServer
from tests.conftest import QUIET
from tests.documents import ROOT

IDS = np.arange(200)
ONES = np.ones((len(IDS), 4), np.float32)
TABLE = ps.TableConfig(name="t", dim=4, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant())


def settings(path: Path, **others: object) -> ps.ServiceConfig:
    return QUIET.having(
        log={"mode": "interval", "path": path / "log", "segment_bytes": 1 << 20},
        checkpoint={"path": str(path / "checkpoints")},
        **others,
    )


class Cluster:
    """Shards with a log and a coordinator, in this process; a shard may die, and come back at another address."""

    def __init__(self, config: ps.ServiceConfig, shards: int = 2, port: int = 0) -> None:
        self.config, self.shards = config, shards
        self.servers: list[ShardServer] = []
        self.coordinator = Coordinator(config, port)
        try:
            for shard in range(shards):
                self.servers.append(self.server(shard))
            self.coordinator.assemble([server.info for server in self.servers], self.tell)
        except BaseException:
            self.stop()
            raise
        self.address = self.coordinator.address

    def server(self, shard: int, must_come_back: str | None = None) -> ShardServer:
        origin = Origin(self.shards, "default")
        return ShardServer(shard, self.config, alone=False, origin=origin, must_come_back=must_come_back)

    def tell(self, routing: object) -> None:
        for server in self.servers:
            server.set_routing(routing)  # type: ignore[arg-type]

    def die(self, shard: int) -> None:
        """It leaves what kill -9 leaves: its log."""
        server = self.servers[shard]
        server.checkpoints.stop()
        server._stopped = True
        server.stop()

    def back(self, shard: int) -> ShardServer:
        server = self.servers[shard] = self.server(shard, "its rows are gone")
        server.set_routing(self.coordinator.replace_shard(server.info))
        return server

    def stop(self) -> None:
        self.coordinator.stop()
        for server in self.servers:
            server.stop()


@contextmanager
def running(config: ps.ServiceConfig, shards: int = 2, port: int = 0) -> Iterator[Cluster]:
    cluster = Cluster(config, shards, port)
    try:
        yield cluster
    finally:
        cluster.stop()


def rows(client: ps.Client) -> float:
    values = client.pull("t", IDS)
    assert (values == values[:, :1]).all()
    return float(values.sum())


def test_a_shard_that_dies_comes_back_and_its_clients_go_on(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        step = client.prepare({"t": IDS})
        before = cluster.coordinator.routing.epoch
        cluster.die(1)
        back = cluster.back(1)
        assert back.info.state == "SERVING"
        assert back.info.came_back_at == 2
        step.pull()  # by its ids: what was prepared is gone
        step.push({"t": ONES})
        np.testing.assert_array_equal(client.pull("t", IDS), -2 * ONES)
        assert cluster.coordinator.routing.epoch == before


def test_a_clean_stop_leaves_what_the_next_start_begins_from(tmp_path: Path) -> None:
    config = settings(tmp_path, disk={"path": tmp_path / "disk"})
    with running(config) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        epoch, port = cluster.coordinator.routing.epoch, int(cluster.address.rpartition(":")[2])
    segments = sorted((tmp_path / "log").glob("shard-*/*.log"))
    for segment in segments[:1]:
        assert segment.stat().st_size > 0
    with running(config, port=port) as cluster, ps.connect(cluster.address) as client:
        assert cluster.coordinator.routing.epoch == epoch
        starts = [server._recovered.start for server in cluster.servers]  # type: ignore[union-attr]
        assert all(start is not None and start.is_stopped for start in starts)
        assert set(client.tables()) == {"t"}
        np.testing.assert_array_equal(client.pull("t", IDS), -ONES)
        client.push("t", IDS, ONES)
        cluster.die(0)  # and now what was left is older, and the log goes on behind it
        start = cluster.back(0)._recovered.start  # type: ignore[union-attr]
        assert start is not None
        assert start.version == 2
        np.testing.assert_array_equal(client.pull("t", IDS), -2 * ONES)
    assert all(len(list(folder.iterdir())) == 1 for folder in (tmp_path / "log").glob("shard-*/stopped"))


def test_a_start_with_another_number_of_shards_is_refused(tmp_path: Path) -> None:
    with running(settings(tmp_path)):
        pass
    for shards in (1, 3):
        with pytest.raises(ConfigError, match=rf"of a service of 2 shards, and this one has {shards}: .*psctl restore"):
            Cluster(settings(tmp_path), shards)


def test_a_service_of_which_one_shard_has_nothing_is_refused(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
    shutil.rmtree(tmp_path / "log" / "shard-1")
    with pytest.raises(StateLost, match=r"shards \[0\] came back with their rows, and shards \[1\] have no log"):
        Cluster(settings(tmp_path))


def test_a_shard_whose_log_is_gone_says_so(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        cluster.die(1)
        shutil.rmtree(tmp_path / "log" / "shard-1")
        assert cluster.back(1).info.state == "STATE_LOST"
        with pytest.raises(StateLost, match="its rows are gone"):
            client.pull("t", IDS)


def test_a_shard_goes_back_to_a_checkpoint_and_each_client_hears_it_once(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        client.checkpoint()
        with ps.connect(cluster.address) as other:
            other.pull("t", IDS)  # it has acknowledged nothing, so it loses nothing
            client.push("t", IDS, ONES)
            cluster.die(1)
            shutil.rmtree(tmp_path / "log" / "shard-1")
            back = cluster.back(1)
            assert back.info.came_back_at == 2
            with pytest.raises(RolledBack, match="shard 1 came back at version 2, and had acknowledged version 3"):
                client.pull("t", IDS)
            there = cluster.coordinator.routing.shard_of_partition
            assert there.max() == 1
            values = client.pull("t", IDS)
            np.testing.assert_array_equal(other.pull("t", IDS), values)
            assert sorted(np.unique(values)) == [-2, -1], "one shard has both pushes, the other the checkpoint's"
            client.push("t", IDS, ONES)
            np.testing.assert_array_equal(client.pull("t", IDS), values - 1)
        cluster.die(1)  # and its new log goes on behind the checkpoint
        assert cluster.back(1).info.came_back_at == 3
        np.testing.assert_array_equal(client.pull("t", IDS), values - 1)


def test_a_table_that_is_newer_than_the_checkpoint_is_created_again(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.checkpoint()
        client.create_table(TABLE.model_copy(update={"name": "u"}))
        cluster.die(1)
        shutil.rmtree(tmp_path / "log" / "shard-1")
        cluster.back(1)
        assert client.pull("u", IDS).shape == (len(IDS), 4)


def test_a_create_that_reached_some_shards_is_completed_by_the_next_start(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        cluster.servers[0].shard.create_table(TABLE.model_copy(update={"name": "u"}))
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        assert set(client.tables()) == {"t", "u"}
        assert client.pull("u", IDS).shape == (len(IDS), 4)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        for _ in range(2):
            client.push("t", IDS, ONES)
            newest = client.checkpoint()
        client.push("t", IDS, ONES)
        cluster.die(1)
        for file in (tmp_path / "checkpoints" / newest / "shard-1").glob("state"):
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        assert cluster.back(1).info.came_back_at == 4
        np.testing.assert_array_equal(client.pull("t", IDS), -3 * ONES)


def test_a_log_whose_checkpoint_is_gone_says_what_to_do(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.checkpoint()  # too old for what the log has left
        wide = TABLE.model_copy(update={"name": "w", "dim": 512})
        client.create_table(wide)
        for start in range(0, 6000, 1000):
            client.push("w", np.arange(start, start + 1000), np.ones((1000, 512), np.float32))
        version = cluster.servers[0].shard.version
        cluster.servers[0].shard.commit.log.truncate(version)  # type: ignore[attr-defined]
        cluster.die(0)
        with pytest.raises(LogCorrupt, match=r"is left \(checkpoint .* with an empty log\.path"):
            cluster.server(0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "interval"])
def test_all_shards_are_killed_under_pushes_and_clients_go_on(mode: str, tmp_path: Path) -> None:
    """Two clients push integers all the while; each push is applied once, whatever is killed."""
    command = [sys.executable, "-m", "tests.unit.durability.serving", str(tmp_path / "log"), mode, "", "2"]

    def start(port: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([*command, port], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    process, address = start("0")
    errors: list[BaseException] = []
    done = threading.Event()
    counts = [0, 0]

    def train(number: int) -> None:
        try:
            with ps.connect(address) as client:
                while not done.is_set():
                    client.push("t", IDS, ONES, timeout_s=120)
                    counts[number] += 1
        except Exception as error:  # noqa: BLE001  the test says which
            errors.append(error)

    try:
        with ps.connect(address) as client:
            client.create_table(TABLE)
        threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            goal = sum(counts) + 20
            while sum(counts) < goal and not errors:
                done.wait(0.02)
            process.kill()
            process.communicate()
            process, again = start(address.rpartition(":")[2])
            assert again == address
        goal = sum(counts) + 5
        while sum(counts) < goal and not errors:
            done.wait(0.02)
        done.set()
        for thread in threads:
            thread.join()
        assert errors == []
        with ps.connect(address) as client:
            np.testing.assert_array_equal(client.pull("t", IDS), -sum(counts) * ONES)
    finally:
        done.set()
        process.kill()
        process.communicate()
