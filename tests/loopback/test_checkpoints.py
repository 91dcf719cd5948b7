"""Checkpoints of services that run: what is in them, what comes of them, what is left where one fails."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.durability.checkpoint.catalog import Checkpoints
from ps.runtime.files import File, RealFiles
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2 as control
from ps.wire import methods
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import DIM, block, contents, scores, summing
from tests.waiting import until
from tests.wire_calls import RawCalls, error_of

IDS = np.arange(300)
ADAGRAD = ps.TableConfig(name="a", dim=DIM, optimizer=ps.Adagrad(lr=0.5))


@pytest.fixture
def made(tmp_path: Path) -> tuple[str, dict[str, dict[int, list[float]]]]:
    """A checkpoint of two shards, the second of two, which has only what has changed; and what is in its tables."""
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.create_table(ADAGRAD)
        client.push("t", IDS, block(IDS))
        client.push("a", IDS, block(IDS % 7))
        client.checkpoint(tmp_path)
        client.push("a", IDS[:50], block(IDS[:50] % 5))
        client.remove("t", IDS[:10])
        name = client.checkpoint(tmp_path)
        found = {table: contents(client, table) for table in ("t", "a")}
    manifest = Checkpoints(str(tmp_path)).manifest(name)
    assert manifest.base is not None
    assert all(part.base == manifest.base for part in manifest.parts)
    return str(tmp_path / name), found


def test_a_checkpoint_has_what_was_answered_and_one_version_of_each_shard_while_pushes_go_on(tmp_path: Path) -> None:
    """Each push adds 1 to all ids of a worker's own range: within a shard these are equal in any version."""
    workers, stop = 3, threading.Event()
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())
        answered = [0] * workers

        def train(worker: int) -> None:
            with ps.connect(cluster.address) as own:
                while not stop.is_set():
                    own.push("t", IDS + 1000 * worker, block(-np.ones(len(IDS))))
                    answered[worker] += 1

        threads = [threading.Thread(target=train, args=(worker,)) for worker in range(workers)]
        for thread in threads:
            thread.start()
        until(lambda: min(answered) > 2)
        before = list(answered)
        names = [client.checkpoint(tmp_path) for _ in range(3)]
        after = list(answered)
        stop.set()
        for thread in threads:
            thread.join()
        versions = [server.shard.version for server in cluster.servers]
    catalog = Checkpoints(str(tmp_path))
    manifests = [catalog.manifest(name) for name in names]
    assert [manifest.base for manifest in manifests] == [None, *names[:2]]
    assert all(catalog.verify(name) == [] for name in names)
    for manifest in manifests:
        assert all(part.version <= version for part, version in zip(manifest.parts, versions, strict=True))
        assert all(len(part.workers) == workers for part in manifest.parts)
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        restored = client.restore(tmp_path / names[0])
        assert restored == {
            "name": names[0],
            "exact": True,
            "versions": [part.version for part in manifests[0].parts],
        }
        for worker in range(workers):
            rows = client.pull("t", IDS + 1000 * worker)[:, 0]
            shard = cluster.coordinator.routing.shard_of_partition
            per_shard = _by_shard(IDS + 1000 * worker, shard, rows)
            for sums in per_shard:
                assert len(sums) == 1, "a shard's part of a push is there whole or not at all"
                assert before[worker] <= sums.pop() <= after[worker]


def _by_shard(ids_N: np.ndarray, shard_of_partition: np.ndarray, values_N: np.ndarray) -> list[set[float]]:
    from ps.kernels.index.hashing import partitions

    partition_N = np.empty(len(ids_N), np.int32)
    partitions(ids_N, partition_N)
    owner_N = shard_of_partition[partition_N]
    return [set(values_N[owner_N == owner].tolist()) for owner in range(owner_N.max() + 1)]


def test_a_restored_service_goes_on_as_the_one_that_was_saved(
    made: tuple[str, dict[str, dict[int, list[float]]]],
) -> None:
    path, found = made
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.restore(path)
        assert {table: contents(client, table) for table in ("t", "a")} == found
        assert set(client.tables()) == {"t", "a"}
        client.push("t", IDS, block(IDS))
        with pytest.raises(ps.TableExists, match="there are tables"):
            client.restore(path)
        later = client.checkpoint(Path(path).parent)
        assert Checkpoints(str(Path(path).parent)).manifest(later).base is None, "not built on what others have written"


def test_from_2_shards_to_3_to_1_rows_have_the_same_bits(
    made: tuple[str, dict[str, dict[int, list[float]]]], tmp_path: Path
) -> None:
    path, found = made
    for shards in (3, 1):
        with LoopbackCluster(shards, QUIET) as cluster, ps.connect(cluster.address) as client:
            assert client.restore(path)["exact"] is False
            assert {table: contents(client, table) for table in ("t", "a")} == found
            path = str(tmp_path / client.checkpoint(tmp_path))
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.restore(path)
        client.push("a", IDS, block(IDS % 3))
        moved = contents(client, "a")
    first = str(made[0])
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.restore(first)
        client.push("a", IDS, block(IDS % 3))
        assert contents(client, "a") == moved, "the optimizer's state came along"


def test_other_names_and_values_alone(made: tuple[str, dict[str, dict[int, list[float]]]]) -> None:
    path, found = made
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing("other"))
        client.create_table(ps.TableConfig(name="wide", dim=DIM + 1))
        with pytest.raises(ps.ConfigError, match="restore values only"):
            client.restore(path, tables={"a": "other"})
        with pytest.raises(ps.DimensionMismatch):
            client.restore(path, tables={"a": "wide"})
        with pytest.raises(ps.NotFound, match="it has a, t"):
            client.restore(path, tables={"b": "c"})
        with pytest.raises(ps.InvalidArgument, match="would be one"):
            client.restore(path, tables={"a": "c", "t": "c"})
        assert set(client.tables()) == {"other", "wide"}, "what was refused has left nothing"
        client.restore(path, tables={"a": "other"}, values_only=True)
        assert contents(client, "other") == found["a"]
        client.restore(path, tables={"a": "b"})
        assert contents(client, "b") == found["a"]
        assert scores(client, "b").keys() == found["a"].keys()
        assert client.tables()["b"] == ADAGRAD.model_copy(update={"name": "b"})
        assert set(client.tables()) == {"other", "wide", "b"}


def test_the_lone_shard_makes_its_own(tmp_path: Path) -> None:
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", IDS, block(IDS))
        name = client.checkpoint(tmp_path)
        found = contents(client, "t")
        (shard,) = client.stats()["shards"]
        assert shard["checkpoint"]["under_way"] is None
        assert shard["checkpoint"]["last"]["name"] == name
        assert shard["checkpoint"]["last"]["version"] == 2
    client = ps.connect("inproc:")
    with client:
        client.restore(tmp_path)
        assert contents(client, "t") == found
        with pytest.raises(ps.ConfigError, match="start the service with checkpoint"):
            client.checkpoint()


# what fails


class Faulty(RealFiles):
    """Files of which some cannot be made: as on a disk that is full. `first` is called before one is made, `before`
    before a folder is looked into."""

    def __init__(self) -> None:
        self.fails: str | None = None
        self.first: Callable[[Path], object] = lambda _path: None
        self.before: Callable[[Path], object] = lambda _path: None

    def names(self, folder: Path) -> list[str]:
        self.before(folder)
        return super().names(folder)

    def create(self, path: Path) -> File:
        self.first(path)
        if self.fails is not None and self.fails in str(path):
            raise OSError(errno.ENOSPC, "no room", str(path))
        return super().create(path)


@pytest.fixture
def faulty() -> Iterator[tuple[Faulty, LoopbackCluster, ps.Client]]:
    """Two shards with a table of IDS."""
    files = Faulty()
    with LoopbackCluster(2, QUIET, files=files) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.push("t", IDS, block(IDS))
        yield files, cluster, client


@pytest.mark.parametrize("fails", ["shard-1/rows-", "shard-1/state", "shard-1/part.json", "manifest.json", "/owner"])
def test_where_one_shard_fails_there_is_no_checkpoint_and_older_ones_are_whole(
    faulty: tuple[Faulty, LoopbackCluster, ps.Client], tmp_path: Path, fails: str
) -> None:
    files, cluster, client = faulty
    older = client.checkpoint(tmp_path)
    files.fails = fails
    client.push("t", IDS, block(IDS))
    with pytest.raises(ps.DiskFull) as refused:
        client.checkpoint(tmp_path)
    assert str(refused.value).startswith("shard 1: ") == fails.startswith("shard-1")
    until(lambda: [path.name for path in tmp_path.iterdir() if any(path.rglob("*"))] == [older])
    catalog = Checkpoints(str(tmp_path))
    assert [each.name for each in catalog.list()] == [older]
    assert catalog.verify(older) == []
    assert cluster.coordinator.checkpoints.figures.failures == 1
    files.fails = None
    newer = client.checkpoint(tmp_path)  # on top of the older one: it has what the failed one would have had
    assert catalog.manifest(newer).base == older
    assert catalog.verify(newer) == []
    assert contents(client, "t") == {id_: [-2.0 * id_] * DIM for id_ in IDS.tolist()}
    found = contents(client, "t")
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.restore(tmp_path)
        assert contents(client, "t") == found


def test_one_checkpoint_at_a_time_and_the_next_waits_its_turn(
    faulty: tuple[Faulty, LoopbackCluster, ps.Client], tmp_path: Path
) -> None:
    files, cluster, client = faulty
    reached, go_on = threading.Event(), threading.Event()

    def hold(path: Path) -> None:
        if "shard-1/rows-" in str(path):
            reached.set()
            assert go_on.wait(30)

    files.first = hold
    names: list[str] = []
    first = threading.Thread(target=lambda: names.append(client.checkpoint(tmp_path)))
    first.start()
    assert reached.wait(30)
    client.push("t", IDS, block(IDS))  # pushes go on
    client.create_table(summing("later"))  # and tables can be made, once the cuts are
    with ps.connect(cluster.address) as other:
        (_, busy) = other.stats()["shards"]
        assert busy["checkpoint"]["under_way"]["stage"] == "rows"
        assert busy["checkpoint"]["under_way"]["all_bytes"] > 0
        with pytest.raises(ps.ResourceExhausted, match="a checkpoint is under way"):
            other.checkpoint(tmp_path, timeout_s=0.2)
        with RawCalls(cluster.address) as calls:
            error = error_of(calls.call, methods.RESTORE, control.RestoreRequest(url="/x").SerializeToString())
            assert type(error) is ps.ResourceExhausted
            assert error.retry_after_s == 1.0
    go_on.set()
    files.first = lambda _path: None
    first.join()
    manifest = Checkpoints(str(tmp_path)).manifest(names[0])
    assert set(manifest.tables) == {"t"}
    assert all([table.name for table in part.tables] == ["t"] for part in manifest.parts)


def test_no_table_is_created_between_the_cuts_of_two_shards(
    faulty: tuple[Faulty, LoopbackCluster, ps.Client], tmp_path: Path
) -> None:
    files, cluster, client = faulty
    reached, go_on = threading.Event(), threading.Event()

    def hold(path: Path) -> None:
        if path.name == "shard-1":  # before its cut; shard 0 makes its own
            reached.set()
            assert go_on.wait(30)

    files.before = hold
    names: list[str] = []
    making = threading.Thread(target=lambda: names.append(client.checkpoint(tmp_path)))
    making.start()
    assert reached.wait(30)
    until(lambda: client.stats()["shards"][0]["checkpoint"]["last"] is not None)
    creating = threading.Thread(target=lambda: client.create_table(summing("between")))
    creating.start()
    until(lambda: cluster.coordinator._tables._changing.locked())
    assert "between" not in cluster.servers[0].shard.tables
    go_on.set()
    making.join()
    creating.join()
    manifest = Checkpoints(str(tmp_path)).manifest(names[0])
    assert [[table.name for table in part.tables] for part in manifest.parts] == [["t"], ["t"]]
    assert set(client.tables()) == {"t", "between"}


def test_a_shard_that_ends_meanwhile_is_named(
    faulty: tuple[Faulty, LoopbackCluster, ps.Client], tmp_path: Path
) -> None:
    files, cluster, client = faulty
    ended = threading.Event()

    def end(path: Path) -> None:
        if "shard-1/rows-" in str(path) and not ended.is_set():
            ended.set()
            cluster.servers[1].service.state_lost = "it was restarted"
            cluster.servers[1].checkpoints.parts.close()

    files.first = end
    with pytest.raises(ps.StateLost, match="shard 1: it was restarted"):  # the retry of what was given up says it
        client.checkpoint(tmp_path)
    assert Checkpoints(str(tmp_path)).list() == []


def test_a_caller_that_gives_up_or_asks_twice(
    faulty: tuple[Faulty, LoopbackCluster, ps.Client], tmp_path: Path
) -> None:
    files, cluster, client = faulty
    request = control.CheckpointRequest(worker_id=7, sequence=1, url=str(tmp_path), wait_ms=60_000)
    with RawCalls(cluster.address) as calls:
        results = [
            control.Progress.FromString(calls.call(methods.CHECKPOINT, request.SerializeToString())[-1]).result_json
            for _ in range(2)
        ]
    assert results[0] == results[1], "the answer was lost, and it was asked for again"
    assert [each.name for each in Checkpoints(str(tmp_path)).list()] == [json.loads(results[0])["name"]]
    reached, go_on = threading.Event(), threading.Event()

    def hold(path: Path) -> None:
        if "shard-1/rows-" in str(path):
            reached.set()
            assert go_on.wait(30)

    files.first = hold
    with pytest.raises(ps.DeadlineExceeded):
        client.checkpoint(tmp_path / "slow", full=True, timeout_s=0.4)
    assert reached.wait(30)
    go_on.set()
    until(lambda: not any(tmp_path.glob("slow/*")))
    assert Checkpoints(str(tmp_path / "slow")).list() == []
    assert client.checkpoint(tmp_path / "slow")


def test_a_folder_may_be_any_url(faulty: tuple[Faulty, LoopbackCluster, ps.Client]) -> None:
    _, _, client = faulty
    name = client.checkpoint("memory://checkpoints/of/tests")
    found = contents(client, "t")
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        assert client.restore(f"memory://checkpoints/of/tests/{name}")["exact"]
        assert contents(client, "t") == found
