"""Adam's bias correction goes by the steps of the table: the same for any number of shards, as in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import torch

import ps
from ps.client.connection.connection import Connection
from ps.round import Round
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.faults import Faults, Rates
from tests.wire_calls import RawCalls, error_of, fp32_shape, id_set, rows_bytes

IDS = np.arange(2)
STEPS = 40
CONFIG = ps.TableConfig(name="t", dim=1, optimizer=ps.Adam(lr=0.1), initializer=ps.Constant())


@pytest.fixture(params=[1, 8], ids=["1 shard", "8 shards"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LoopbackCluster]:
    """On 8 shards the two ids are on different ones."""
    with LoopbackCluster(request.param, QUIET) as running, ps.connect(running.address) as client:
        client.create_table(CONFIG)
        yield running


def rare(step: int) -> list[int]:
    """Row 0 is in one push of ten."""
    return [0 if step % 10 == 9 else 1]


def sparse_adam(ids_of_step: Callable[[int], list[int]], steps: int = STEPS) -> np.ndarray:
    table = torch.nn.Embedding(len(IDS), 1, sparse=True)
    torch.nn.init.zeros_(table.weight)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        table(torch.tensor(ids_of_step(step))).sum().backward()
        optimizer.step()
    return table.weight.detach().numpy()


def push(client: ps.Client, ids: list[int]) -> None:
    client.push("t", ids, np.ones((len(ids), 1), np.float32))


def pulled(cluster: LoopbackCluster) -> np.ndarray:
    with ps.connect(cluster.address) as client:
        return client.pull("t", IDS)


def close(expected: np.ndarray, rel: float = 1e-5) -> object:
    return pytest.approx(expected, rel=rel)


def test_a_row_that_few_pushes_name_is_as_in_one_process(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        for step in range(STEPS):
            push(client, rare(step))
    assert pulled(cluster) == close(sparse_adam(rare))


def test_steps_that_are_pushed_again_count_once(cluster: LoopbackCluster) -> None:
    faults = Faults(1, Rates(drop_request=0.2, drop_response=0.2, repeat=0.2))
    with ps.Client(Connection(cluster.address, faults.open, Hurried())) as client:
        for step in range(STEPS):
            prepared = client.prepare({"t": rare(step)})
            prepared.pull()
            for _ in range(2):
                prepared.push({"t": np.ones((1, 1), np.float32)})
    assert faults.seen["drop_response"]
    assert pulled(cluster) == close(sparse_adam(rare))


def test_two_trainers_in_turn_are_nearly_one(cluster: LoopbackCluster) -> None:
    """A shard knows of the other trainer what its last push there said: it may be nine pushes behind."""
    with ps.connect(cluster.address) as one, ps.connect(cluster.address) as other:
        for step in range(STEPS):
            push((one, other)[step % 2], rare(step // 2))
    assert pulled(cluster) == close(sparse_adam(lambda step: rare(step // 2)), 0.05)


def test_a_trainer_started_again_nearly_goes_on_where_the_last_has_ended(cluster: LoopbackCluster) -> None:
    """What the last one's last pushes said is known to the shards that got those."""
    for start in range(0, STEPS, STEPS // 2):
        with ps.connect(cluster.address) as client:
            for step in range(start, start + STEPS // 2):
                push(client, rare(step))
    assert pulled(cluster) == close(sparse_adam(rare), 0.02)


def test_a_round_is_one_step_of_all_its_ranks(cluster: LoopbackCluster) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(ps.connect(cluster.address)) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        for number in range(STEPS):

            def push_part(rank: int, number: int = number) -> None:
                ids = rare(number) if rank else []  # the other has nothing to say, and takes part
                step = clients[rank].prepare({"t": np.array(ids, np.int64)})
                step.push({"t": np.ones((len(ids), 1), np.float32)}, in_round=Round("g", number, rank, 2))

            list(pool.map(push_part, range(2)))
    assert pulled(cluster) == close(sparse_adam(rare))


def test_a_table_made_anew_starts_at_its_first_step(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        for step in range(STEPS):
            push(client, rare(step))
        client.drop_table("t")
        client.create_table(CONFIG)
        for step in range(STEPS):
            push(client, rare(step))
    assert pulled(cluster) == close(sparse_adam(rare))


def test_of_a_client_that_does_not_say_the_shard_counts(cluster: LoopbackCluster) -> None:
    address = cluster.servers[0].address
    with RawCalls(address) as calls:
        for number in range(1, 4):
            calls.push(number, [("t", 2, 1)], rows_bytes(np.ones((2, 1))), ids=id_set(t=IDS))
        pull = calls.pull(ids=id_set(t=IDS))[1].reshape(2, 1)
    assert pull == close(sparse_adam(lambda step: [0, 1], 3))


def test_what_nobody_can_have_pushed_is_refused(cluster: LoopbackCluster) -> None:
    shape = fp32_shape("t", 1, 1)
    shape.pushes = 2**63
    with RawCalls(cluster.servers[0].address) as calls:
        error = error_of(calls.push_shapes, 1, [shape], rows_bytes([[1.0]]), ids=id_set(t=[0]))
    assert isinstance(error, ps.InvalidArgument)
    assert f"{2**63:,}" in str(error)
