"""The routing changes under a live client: every gradient lands on its own id, or the call says that it did not.

Gradients are whole numbers, the learning rate is 1 and rows start at 0, so every row is minus the sum of its gradients.
No rows move here: the shards are read directly, and an id's row is what it has on all of them together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import Begun, Transport, open_transport
from ps.errors import PsError
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.methods import Method
from ps.wire.routing import Routing, split_by_shard
from tests.clusters import LoopbackCluster
from tests.loopback.tables import DIM, block, summing
from tests.wire_calls import RawCalls, error_of, id_set, rows_bytes

T = TypeVar("T")

IDS = np.arange(60)
GRADS = IDS + 1


@pytest.fixture
def client(cluster: LoopbackCluster) -> Iterator[ps.Client]:
    with ps.connect(cluster.address) as connected:
        connected.create_table(summing())
        yield connected


def change(cluster: LoopbackCluster, routing: Routing, servers: Iterable[int] = (0, 1, 2)) -> None:
    cluster.coordinator.routing = routing
    for number in servers:
        cluster.servers[number].set_routing(routing)


def turned(cluster: LoopbackCluster) -> Routing:
    """Every partition to the next shard."""
    now = cluster.coordinator.routing
    owners = (now.shard_of_partition + 1) % len(now.shards)
    return replace(now, epoch=now.epoch + 1, shard_of_partition=owners.astype(np.int32))


def even_ones_moved(cluster: LoopbackCluster) -> Routing:
    """Every other partition to the next shard: each shard's ids are some of the old and some new."""
    now, moved = cluster.coordinator.routing, turned(cluster)
    owners = now.shard_of_partition.copy()
    owners[::2] = moved.shard_of_partition[::2]
    return replace(moved, shard_of_partition=owners)


def fewer_shards(cluster: LoopbackCluster) -> Routing:
    now = cluster.coordinator.routing
    return Routing.even(now.epoch + 1, now.shards[:1], now.coordinator)


def launched_anew(cluster: LoopbackCluster) -> Routing:
    """Another service at the same addresses may count its epochs alike: a lone shard's is always 1."""
    return replace(fewer_shards(cluster), epoch=cluster.coordinator.routing.epoch)


CHANGES = {"all moved": turned, "half moved": even_ones_moved, "fewer shards": fewer_shards}


def stored(cluster: LoopbackCluster) -> dict[int, float]:
    """The first float of each row that is not zero, over all shards."""
    found: dict[int, float] = {}
    for server in cluster.servers:
        page = server.shard.export_page("t", 0, 10_000)
        ids_N, rows_ND, cursor = page.ids_N, page.values_ND, page.next_cursor
        assert not cursor
        for id_, row in zip(ids_N.tolist(), rows_ND[:, 0].tolist(), strict=True):
            found[id_] = found.get(id_, 0.0) + row
    return {id_: value for id_, value in found.items() if value}


def assert_at_home(cluster: LoopbackCluster) -> None:
    """Each row is on the shard that the routing table says."""
    for shard, server in enumerate(cluster.servers):
        ids_N = server.shard.export_page("t", 0, 10_000).ids_N
        split = split_by_shard(ids_N, cluster.coordinator.routing)
        elsewhere = [n for n in range(len(split.starts) - 1) if n != shard and len(split.ids_N[split.of(n)])]
        assert not elsewhere, f"shard {shard} has rows of shards {elsewhere}"


def once(ids: Iterable[int] = IDS.tolist()) -> dict[int, float]:
    return {int(id_): -float(id_ + 1) for id_ in ids}


def taken(step: ps.Step) -> ps.Step:
    """The step, once every shard has taken it."""
    assert all(future.result(20) for future in step._lease.preparing.values())
    return step


# steps


@pytest.mark.parametrize("kind", CHANGES)
def test_a_step_pulled_and_pushed_after_a_change_lands_on_its_ids(
    cluster: LoopbackCluster, client: ps.Client, kind: str
) -> None:
    """The pull learns the new table; the push after it must not go by the old handle with the new split."""
    step = taken(client.prepare({"t": IDS}))
    change(cluster, CHANGES[kind](cluster))
    assert not step.pull()["t"].any()
    step.push({"t": block(GRADS)})
    assert stored(cluster) == once()
    assert_at_home(cluster)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_step_pushed_after_another_call_learnt_of_the_change_lands_on_its_ids(
    cluster: LoopbackCluster, client: ps.Client, kind: str
) -> None:
    """The header's epoch and the split must be of one table, also when the client already has a newer one."""
    steps = [taken(client.prepare({"t": IDS})) for _ in range(2)]
    steps[1].pull()
    change(cluster, CHANGES[kind](cluster))
    client.tables()
    for step in steps:
        step.push({"t": block(GRADS)})
    assert stored(cluster) == {id_: 2 * value for id_, value in once().items()}
    assert_at_home(cluster)


def test_as_many_ids_on_each_shard_as_before_are_not_taken_for_the_same(
    cluster: LoopbackCluster, client: ps.Client
) -> None:
    """With equal numbers nothing but the handle's own epoch can tell."""
    split = split_by_shard(np.arange(1000), cluster.coordinator.routing)
    ids = np.concatenate([split.ids_N[split.of(shard)][:5] for shard in range(3)])
    step = taken(client.prepare({"t": ids}))
    change(cluster, turned(cluster))
    step.pull()
    step.push({"t": block(ids + 1)})
    assert stored(cluster) == once(ids.tolist())
    assert_at_home(cluster)


def test_one_step_goes_on_through_several_changes(cluster: LoopbackCluster, client: ps.Client) -> None:
    step = taken(client.prepare({"t": IDS}))
    for kind in (turned, even_ones_moved, fewer_shards):
        change(cluster, kind(cluster))
        step.pull()
    step.push({"t": block(GRADS)})
    step.push({"t": block(GRADS)})
    assert stored(cluster) == once()
    assert_at_home(cluster)
    assert [server.shard.commit.repeats for server in cluster.servers] == [1, 0, 0]


def test_a_step_prepared_under_another_epoch_is_not_found(cluster: LoopbackCluster, client: ps.Client) -> None:
    """Whatever a client believes: the shard itself tells steps of two epochs apart."""
    server = cluster.servers[0]
    with RawCalls(server.address) as calls:
        calls.header = pb.Header(routing_epoch=cluster.coordinator.routing.epoch, worker_id=7)
        calls.prepare(1, id_set(t=[1, 2]))
        assert calls.pull(step=pb.StepRef(step=1))[0].tables[0].rows == 2
        change(cluster, turned(cluster))
        calls.header = pb.Header(routing_epoch=cluster.coordinator.routing.epoch, worker_id=7)
        for call in (
            lambda: calls.pull(step=pb.StepRef(step=1)),
            lambda: calls.push(1, [("t", 2, DIM)], rows_bytes(block([1, 2])), step=pb.StepRef(step=1)),
        ):
            assert type(error_of(call)) is ps.StepNotFound
    assert not stored(cluster)


def test_versions_of_another_table_say_nothing_of_staleness(cluster: LoopbackCluster, client: ps.Client) -> None:
    for _ in range(5):
        client.push("t", IDS, block(np.zeros(len(IDS))))
    step = client.prepare({"t": IDS})
    step.pull()
    client.push("t", IDS, block(np.zeros(len(IDS))))
    change(cluster, turned(cluster))
    step.push({"t": block(GRADS)})
    assert [server.shard.staleness.total for server in cluster.servers] == [0, 0, 0]


# one-shot calls


@pytest.mark.parametrize("known", [False, True], ids=["the shard says it", "the client knows it"])
@pytest.mark.parametrize("kind", CHANGES)
def test_one_shot_calls_follow_a_change(cluster: LoopbackCluster, client: ps.Client, kind: str, known: bool) -> None:
    change(cluster, CHANGES[kind](cluster))
    if known:
        client.tables()
    client.push("t", IDS, block(GRADS))
    assert stored(cluster) == once()
    np.testing.assert_array_equal(client.pull("t", IDS), -block(GRADS))
    assert client.assign("t", IDS[:30], block(GRADS[:30])).all()
    change(cluster, turned(cluster))
    assert len(client.stats()["shards"]) == len(cluster.coordinator.routing.shards)


def test_a_service_launched_anew_with_the_same_epoch_and_fewer_shards_is_another_table(
    cluster: LoopbackCluster, client: ps.Client
) -> None:
    step = taken(client.prepare({"t": IDS}))
    change(cluster, launched_anew(cluster))
    client.tables()
    step.pull()
    step.push({"t": block(GRADS)})
    assert len(client.stats()["shards"]) == 1
    assert stored(cluster) == once()


def test_an_export_that_a_change_overtakes_says_so(cluster: LoopbackCluster, client: ps.Client) -> None:
    """Its rows are elsewhere now: going on would give some twice and some not at all."""
    client.push("t", IDS, block(GRADS))
    pages = client.export("t", page_rows=5)
    next(pages)
    change(cluster, fewer_shards(cluster))
    client.tables()
    with pytest.raises(ps.StaleRouting, match="start again"):
        list(pages)


# a write that is half done


class Meddling:
    """Opens transports whose calls of one method can be made to do something else."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.before: Callable[[str], None] = lambda address: None
        self.after: Callable[[str], None] = lambda address: None

    def open(self, address: str) -> Transport:
        return _Meddled(open_transport(address), address, self)


class _Meddled:
    def __init__(self, inner: Transport, address: str, meddling: Meddling) -> None:
        self._inner, self._address, self._meddling = inner, address, meddling
        self.close = inner.close

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        return iter([*self._around(method, lambda: list(self._inner.stream_out(method, data, timeout_s)))])

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        return self._around(method, lambda: self._inner.unary(method, data, timeout_s))

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float, begun: Begun | None = None) -> bytes:
        return self._around(method, lambda: self._inner.stream_in(method, chunks, timeout_s, begun))

    def _around(self, method: Method, call: Callable[[], T]) -> T:
        if method is not self._meddling.method:
            return call()
        self._meddling.before(self._address)
        answer = call()
        self._meddling.after(self._address)
        return answer


@pytest.mark.parametrize("kind", CHANGES)
def test_a_retry_that_learns_of_another_table_starts_over(cluster: LoopbackCluster, kind: str) -> None:
    """The shard that nobody answered for may be another by its number now, or none."""
    meddling = Meddling(methods.PULL)
    split = split_by_shard(IDS, cluster.coordinator.routing)
    ids = split.ids_N[split.of(2)]  # of the others none: they would say it first
    with meddled(cluster, meddling) as client, ps.connect(cluster.address) as other:

        def gone(address: str) -> None:
            meddling.before = lambda address: None
            change(cluster, CHANGES[kind](cluster))
            other.push("t", ids, block(ids + 1))
            raise ps.Unavailable("nobody there")

        meddling.before = gone
        np.testing.assert_array_equal(client.pull("t", ids), -block(ids + 1))


WRITES: dict[str, tuple[Method, Callable[[ps.Client], object]]] = {
    "push": (methods.PUSH, lambda c: c.push("t", IDS, block(GRADS))),
    "step push": (methods.PUSH, lambda c: c.prepare({"t": IDS}).push({"t": block(GRADS)})),
    "upsert": (methods.WRITE, lambda c: c.upsert("t", IDS, -block(GRADS))),
    "remove": (methods.REMOVE, lambda c: c.remove("t", IDS)),
}


def meddled(cluster: LoopbackCluster, meddling: Meddling) -> ps.Client:
    client = ps.Client(Connection(cluster.address, meddling.open))
    client.create_table(summing())
    return client


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_one_shard_applied_before_the_change_is_not_split_anew(
    cluster: LoopbackCluster, name: str
) -> None:
    method, write = WRITES[name]
    meddling = Meddling(method)
    first = cluster.servers[0].address
    applied = threading.Event()
    with meddled(cluster, meddling) as client:
        if name == "remove":
            client.upsert("t", IDS, -block(GRADS))
        before = stored(cluster)
        at_first = split_by_shard(IDS, cluster.coordinator.routing)
        theirs = at_first.ids_N[at_first.of(0)].tolist()

        def others_wait(address: str) -> None:
            if address != first:
                assert applied.wait(20)

        def changed(address: str) -> None:
            change(cluster, turned(cluster))
            meddling.before = meddling.after = lambda address: None
            applied.set()

        meddling.before, meddling.after = others_wait, changed
        with pytest.raises(ps.StaleRouting, match=r"applied by shards \[0\], and by no other"):
            write(client)
        expected = {id_: value for id_, value in before.items() if id_ not in theirs} if before else once(theirs)
        assert stored(cluster) == expected
        client.push("t", [999], block([1000]))
        assert stored(cluster) == {**expected, 999: -1000.0}, "and the client goes on by the new table"


@pytest.mark.parametrize("error", [ps.Unavailable, ps.DeadlineExceeded])
def test_a_write_whose_answer_was_lost_before_the_change_is_not_split_anew(
    cluster: LoopbackCluster, error: type[PsError]
) -> None:
    """Also over two calls: a step pushed again after an error."""
    meddling = Meddling(methods.PUSH)
    with meddled(cluster, meddling) as client:

        def lose(address: str) -> None:
            if address == cluster.servers[0].address:
                change(cluster, turned(cluster))
                meddling.after = lambda address: None
                raise error("lost on the way back")

        others = threading.Barrier(3)

        def together(address: str) -> None:
            others.wait(20)  # so that every shard has applied its part, or may have, when the change comes
            meddling.before = lambda address: None

        meddling.before, meddling.after = together, lose
        step = client.prepare({"t": IDS})
        for _ in range(3):
            with pytest.raises((error, ps.StaleRouting)) as raised:
                step.push({"t": block(GRADS)}, timeout_s=5)
        assert type(raised.value) is ps.StaleRouting
        assert "perhaps applied by shards [0]" in str(raised.value)
    wrong = {id_: value for id_, value in stored(cluster).items() if value != once()[id_]}
    assert not wrong, "nothing twice"


def test_a_write_that_was_only_refused_goes_on_by_the_new_table(cluster: LoopbackCluster, client: ps.Client) -> None:
    """A shard that refuses has applied nothing: the step is still whole, and may be split anew."""
    step = client.prepare({"t": IDS})
    for server in cluster.servers:
        server.shard.drop_table("t")
    with pytest.raises(ps.TableNotFound):
        step.push({"t": block(GRADS)})
    for server in cluster.servers:
        server.shard.create_table(summing())
    change(cluster, even_ones_moved(cluster))
    step.push({"t": block(GRADS)})
    assert stored(cluster) == once()
