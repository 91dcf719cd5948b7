"""The step protocol: ids travel once, and a lost hint changes speed and never a value."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import Transport, open_transport
from ps.server.shard_server import ShardServer
from ps.wire import methods
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET, StartServer
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, block, contents, summing
from tests.optimizers import EVERY
from tests.waiting import busy_engine, until


def prepared(step: ps.Step) -> list[bool]:
    """Whether each shard took the step, once all have answered."""
    return [future.result(20) for future in step._lease.preparing.values()]


@pytest.mark.parametrize("optimizer", EVERY.values(), ids=lambda value: value.kind)
def test_steps_and_one_shot_calls_give_the_same_bytes(client: ps.Client, optimizer: object) -> None:
    """Also with several steps prepared ahead, and with duplicates."""
    rng = np.random.default_rng(5)
    batches = [(rng.integers(-50, 50, (8, 5)), rng.standard_normal((8, 5, DIM), np.float32)) for _ in range(12)]
    for name in ("s", "o"):
        initializer = ps.Constant(value=0.1)  # not random: the names of tables differ
        client.create_table(ps.TableConfig(name=name, dim=DIM, optimizer=optimizer, initializer=initializer))
    steps = [client.prepare({"s": ids}) for ids, _ in batches]
    for step, (ids, grads) in zip(steps, batches, strict=True):
        np.testing.assert_array_equal(step.pull()["s"], client.pull("o", ids))
        step.push({"s": grads})
        client.push("o", ids, grads)
    assert contents(client, "s") == contents(client, "o")
    assert all(all(prepared(step)) for step in steps)


def test_ids_travel_once(client: ps.Client) -> None:
    client.create_table(summing())
    ids = np.arange(10_000)
    step = client.prepare({"t": ids})
    assert all(prepared(step))
    step.pull()
    step.push({"t": block(ids)})
    sent = client.stats()["client"]["sent_bytes"]
    assert sent["Prepare"] > 80_000
    assert sent["Pull"] < 1000
    assert sent["Push"] < 10_000 * DIM * 4 + 1000


def test_a_step_of_several_tables_pulls_and_pushes_them_together(client: ps.Client) -> None:
    tables = {"a": 3, "b": 64, "c": 1}
    for name, dim in tables.items():
        client.create_table(summing(name, dim))
    ids = {"a": np.arange(20).reshape(4, 5), "b": np.array([7, 7, 7]), "c": np.array([], np.int64)}
    step = client.prepare(ids)
    rows = step.pull()
    assert {name: value.shape for name, value in rows.items()} == {"a": (4, 5, 3), "b": (3, 64), "c": (0, 1)}
    step.push({name: block(ids[name] + 1, dim) for name, dim in reversed(tables.items())})
    rows = client.prepare(ids).pull()
    np.testing.assert_array_equal(rows["a"], -block(ids["a"] + 1, 3))
    np.testing.assert_array_equal(rows["b"], -block([24, 24, 24], 64))
    versions = [shard["pushes"] for shard in client.stats()["shards"]]
    assert max(versions) == 1, "all tables in one push"


def test_an_empty_step_is_no_error(client: ps.Client) -> None:
    client.create_table(summing())
    step = client.prepare({"t": []})
    assert step.pull()["t"].shape == (0, DIM)
    step.push({"t": np.empty((0, DIM), np.float32)})


def test_gradients_for_other_tables_than_prepared_are_refused_and_nothing_is_applied(client: ps.Client) -> None:
    client.create_table(summing("a"))
    client.create_table(summing("b"))
    step = client.prepare({"a": [1], "b": [1]})
    for grads in ({"a": block([1])}, {"a": block([1]), "b": block([1]), "c": block([1])}, {}):
        with pytest.raises(ps.LengthMismatch, match="the step has tables"):
            step.push(grads)
    with pytest.raises(ps.DimensionMismatch):
        step.push({"a": block([1]), "b": np.ones((1, DIM + 1))})
    assert client.size("a") == 0
    step.push({"a": block([1]), "b": block([2])})
    assert contents(client, "b") == {1: [-2.0] * DIM}


def test_what_cannot_be_prepared_is_refused_at_once(client: ps.Client) -> None:
    client.create_table(summing())
    with pytest.raises(ps.InvalidArgument, match="no tables"):
        client.prepare({})
    with pytest.raises(ps.TableNotFound):
        client.prepare({"absent": [1]})
    with pytest.raises(ps.InvalidArgument, match="counts for tables"):
        client.prepare({"t": [1]}, counts={"u": [1]})
    with pytest.raises(ps.DtypeMismatch):
        client.prepare({"t": [0.5]})


def test_pushing_a_step_again_is_the_same_push(client: ps.Client) -> None:
    client.create_table(summing())
    step = client.prepare({"t": range(100)})
    step.pull()
    for _ in range(3):
        step.push({"t": block(np.ones(100))})
    np.testing.assert_array_equal(client.pull("t", range(100)), -block(np.ones(100)))
    with pytest.raises(ps.SequenceConflict, match="another body"):
        step.push({"t": block(np.full(100, 2))})
    np.testing.assert_array_equal(client.pull("t", range(100)), -block(np.ones(100)))


def test_a_push_that_ran_out_of_time_is_applied_once_when_pushed_again(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as client:
        client.create_table(summing())
        step = client.prepare({"t": [1]})
        step.pull()
        with busy_engine(shard_server.shard), pytest.raises(ps.DeadlineExceeded):
            step.push({"t": block([1])}, timeout_s=0.2)
        step.push({"t": block([1])})
        assert contents(client, "t") == {1: [-1.0] * DIM}


def test_the_callers_arrays_are_free_once_prepare_has_returned(shard_server: ShardServer) -> None:
    """A loader that reuses its buffer must not change which rows an earlier step is about."""
    faults = Faults(0, Rates(drop_request=1.0, methods=(methods.PREPARE,)))
    with ps.Client(Connection(shard_server.address, faults.open)) as client:
        client.create_table(summing())
        client.push("t", range(10), block(range(10)))
        ids = np.arange(5)
        step = client.prepare({"t": ids})
        ids += 5
        np.testing.assert_array_equal(step.pull()["t"], -block(range(5)))


def test_a_step_first_pushed_after_many_other_writes_is_no_conflict(start_server: StartServer) -> None:
    """Its sequence is taken when it is sent: steps prepared long ahead are not too old to judge."""
    server = start_server(limits={"ledger_window": 16})
    with ps.connect(server.address) as client:
        client.create_table(summing())
        step = client.prepare({"t": [1]})
        for _ in range(20):
            client.push("t", [2], block([1]))
        step.push({"t": block([1])})
        step.push({"t": block([1])})
        assert contents(client, "t") == {1: [-1.0] * DIM, 2: [-20.0] * DIM}


def test_a_step_pushed_by_many_threads_at_once_is_one_push(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ps.connect(cluster.address) as client, ThreadPoolExecutor(8) as pool:
        client.create_table(summing())
        quick = client._session.new_push
        monkeypatch.setattr(client._session, "new_push", lambda *given: (time.sleep(0.01), quick(*given))[1])
        for number in range(3):
            step = client.prepare({"t": range(20)})
            pushes = [pool.submit(step.push, {"t": block(np.ones(20))}) for _ in range(8)]
            for push in pushes:
                push.result(30)
            np.testing.assert_array_equal(client.pull("t", range(20)), -block(np.full(20, number + 1)))


def test_a_push_that_waits_for_another_of_its_step_keeps_its_deadline(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as client, ThreadPoolExecutor(1) as pool:
        client.create_table(summing())
        step = client.prepare({"t": [1]})
        step.pull()
        with busy_engine(shard_server.shard):
            first = pool.submit(step.push, {"t": block([1])})
            until(lambda: step._pushing.locked())
            with pytest.raises(ps.DeadlineExceeded):
                step.push({"t": block([1])}, timeout_s=0.2)
        first.result(20)


# hints that come to nothing


class SlowPrepares:
    """A network on which prepares hang until `release`, or until their deadline."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def open(self, address: str) -> Transport:
        inner = open_transport(address)
        passed = inner.unary

        def unary(method: methods.Method, data: bytes, timeout_s: float) -> bytes:
            if method is methods.PREPARE and not self.release.wait(timeout_s):
                raise ps.DeadlineExceeded("no answer")
            return passed(method, data, timeout_s)

        inner.unary = unary  # type: ignore[method-assign]
        return inner


@pytest.mark.parametrize("timeout_s", [0.8, 30.0])
def test_a_prepare_that_hangs_leaves_the_pull_and_the_push_their_time(
    cluster: LoopbackCluster, timeout_s: float
) -> None:
    """It is a hint: the ids go along with the pull, and the push does not wait for it again."""
    slow = SlowPrepares()
    with ps.Client(Connection(cluster.address, slow.open)) as client:
        client.create_table(summing())
        steps = [client.prepare({"t": range(100)}) for _ in range(10)]  # more than the client sends at once
        started = time.monotonic()
        assert not steps[0].pull(timeout_s=timeout_s)["t"].any()
        pulled = time.monotonic()
        assert pulled - started < min(timeout_s / 2, 5.0)
        steps[0].push({"t": block(np.ones(100))}, timeout_s=timeout_s)
        assert time.monotonic() - pulled < min(timeout_s / 2, 0.9)
        np.testing.assert_array_equal(client.pull("t", range(100)), -block(np.ones(100)))
        steps[-1].pull(timeout_s=0.8)
        assert all(future.cancelled() for future in steps[-1]._lease.preparing.values()), "what is too late is not sent"
        slow.release.set()
        for step in steps[1:]:
            step.push({"t": block(np.ones(100))})
        np.testing.assert_array_equal(client.pull("t", range(100)), -block(np.full(100, 10)))


@pytest.mark.parametrize(
    ("rates", "settings"),
    [
        (Rates(drop_request=1.0, methods=(methods.PREPARE,)), {}),
        (Rates(drop_response=1.0, methods=(methods.PREPARE,)), {}),
        (Rates(), {"max_steps": 1}),
        (Rates(), {"prepare_ttl_s": 1e-9}),
    ],
    ids=["prepares are lost", "answers are lost", "one step is kept", "steps expire at once"],
)
def test_steps_whose_prepare_came_to_nothing_fall_back_to_ids(rates: Rates, settings: dict[str, float]) -> None:
    with (
        LoopbackCluster(3, QUIET.having(performance=settings)) as cluster,
        ps.Client(Connection(cluster.address, Faults(0, rates).open)) as client,
    ):
        client.create_table(summing())
        ids = np.arange(200)
        steps = [client.prepare({"t": np.repeat(ids, 2)}) for _ in range(4)]
        for step in steps:
            prepared(step)
        for number, step in enumerate(steps):
            np.testing.assert_array_equal(step.pull()["t"], -block(np.full(400, 2 * number)))
            step.push({"t": block(np.ones(400))})
        np.testing.assert_array_equal(client.pull("t", ids), -block(np.full(200, 8)))
        assert sum(shard["pushes"] for shard in client.stats()["shards"]) == 4 * 3


def test_a_push_by_step_that_falls_back_after_a_lost_answer_is_the_same_push(cluster: LoopbackCluster) -> None:
    """Applied by its handle, then repeated by ids: the ledger must see one push, not a conflict and not two."""
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        step = client.prepare({"t": np.arange(100)})
        step.pull()
        step.push({"t": block(np.ones(100))})
        step.push({"t": block(np.ones(100))})
        np.testing.assert_array_equal(client.pull("t", np.arange(100)), -block(np.ones(100)))


def test_a_dropped_and_remade_table_does_not_meet_the_old_steps(client: ps.Client) -> None:
    client.create_table(summing())
    client.push("t", [1, 2], block([5, 5]))
    step = client.prepare({"t": [1, 2]})
    assert all(prepared(step))
    client.drop_table("t")
    client.create_table(summing())
    assert not step.pull()["t"].any()
    step.push({"t": block([1, 2])})
    assert contents(client, "t") == {1: [-1.0] * DIM, 2: [-2.0] * DIM}


def test_staleness_is_the_pushes_of_others_in_between(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as slow, ps.connect(shard_server.address) as fast:
        slow.create_table(summing())
        fast.push("t", [1], block([1]))
        step = slow.prepare({"t": [1]})
        step.pull()
        for _ in range(5):
            fast.push("t", [1], block([1]))
        step.push({"t": block([1])})
        assert shard_server.shard.staleness.total == 5


def test_many_background_pushes_do_not_wait_for_each_other_for_ever(cluster: LoopbackCluster) -> None:
    """Each push to three shards makes calls of its own; were they to queue behind the pushes, none would end."""
    with ps.connect(cluster.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=2, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        ids = np.arange(300)
        pushes = [client.background(lambda: client.push("t", ids, np.ones((300, 2), np.float32))) for _ in range(200)]
        for push in pushes:
            push.result(timeout=60)
        assert (client.pull("t", ids) == -200.0).all()
