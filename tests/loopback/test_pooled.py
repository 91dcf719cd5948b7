"""Bags over the wire: two shards sum them, and apply their gradients, as one process would.

Whole numbers and tables that add up, so results are exact whatever the order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.client.connection.connection import Connection
from ps.errors import PsError
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.bags import encode_bags
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET, StartServer
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, block, contents, summing
from tests.loopback.test_reroute import change, even_ones_moved, stored, taken
from tests.wire_calls import RawCalls, error_of

IDS = np.arange(-40, 60)


@pytest.fixture(scope="module")
def pair() -> Iterator[LoopbackCluster]:
    with LoopbackCluster(2, QUIET) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(pair: LoopbackCluster) -> Iterator[ps.Client]:
    with ps.connect(pair.address) as client:
        yield client


def fresh(client: ps.Client, *names: str) -> None:
    for name in names:
        client.drop_table(name, missing_ok=True)
        client.create_table(summing(name))


@dataclass
class Drawn:
    """A step's ids and bags of them, and what they come to."""

    ids_U: np.ndarray
    bags: ps.PooledBags

    @property
    def bag_of_P(self) -> np.ndarray:  # noqa: N802  an array, so its name carries its shape
        return np.repeat(np.arange(len(self.bags)), self.bags.lengths_B)

    def sums(self, rows_UD: np.ndarray) -> np.ndarray:
        sums_BD = np.zeros((len(self.bags), DIM), np.float32)
        np.add.at(sums_BD, self.bag_of_P, rows_UD[self.bags.positions_P])
        return sums_BD

    def spread(self, grads_BD: np.ndarray) -> np.ndarray:
        grads_UD = np.zeros((len(self.ids_U), DIM), np.float32)
        np.add.at(grads_UD, self.bags.positions_P, grads_BD[self.bag_of_P])
        return grads_UD


def draw(rng: np.random.Generator, most: int = 12, unique: int = 50) -> Drawn:
    lengths_B = rng.integers(0, most, 20)
    return Drawn(
        rng.choice(IDS, unique, replace=False), ps.PooledBags(rng.integers(0, unique, lengths_B.sum()), lengths_B)
    )


def whole(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(-9, 10, (n, DIM)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 12]), st.booleans())
def test_sums_and_rows_are_those_of_numpy_and_of_the_way_by_rows(
    client: ps.Client, seed: int, most: int, prepared: bool
) -> None:
    """Beside a table that goes by rows and gets the same gradients. Bags of no ids, ids of no bag, ids twice in one."""
    rng = np.random.default_rng(seed)
    fresh(client, "t", "u")
    rows = {int(id_): np.zeros(DIM, np.float32) for id_ in IDS}
    for _ in range(3):
        step_of = draw(rng, most)
        step = client.prepare({"t": step_of.ids_U, "u": step_of.ids_U}, bags={"t": step_of.bags})
        rows_UD = np.stack([rows[int(id_)] for id_ in step_of.ids_U])
        if prepared:
            pulled = step.pull()
            assert (pulled["t"] == step_of.sums(rows_UD)).all()
            assert (pulled["u"] == rows_UD).all()
        grads_BD = whole(rng, len(step_of.bags))
        grads_UD = step_of.spread(grads_BD)
        step.push({"t": grads_BD, "u": grads_UD})
        for id_, grad_D in zip(step_of.ids_U.tolist(), grads_UD, strict=True):
            rows[id_] = rows[id_] - grad_D
    expected = np.stack([rows[int(id_)] for id_ in IDS])
    assert (client.pull("t", IDS) == expected).all()
    assert (client.pull("u", IDS) == expected).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_some_bags_and_some_rows_are_applied_and_nothing_else(client: ps.Client, seed: int, elements: bool) -> None:
    rng = np.random.default_rng(seed)
    fresh(client, "t")
    step_of = draw(rng)
    step = client.prepare({"t": step_of.ids_U}, bags={"t": step_of.bags})
    bags_R, rows_R = (np.flatnonzero(rng.random(n) < 0.4) for n in (20, 50))
    bags_RD, rows_RD = whole(rng, len(bags_R)), whole(rng, len(rows_R))
    if elements:
        bags_RD *= rng.random(bags_RD.shape) < 0.3
    step.push({"t": ps.PooledGradients(ps.Selected(bags_R, bags_RD, elements), ps.Selected(rows_R, rows_RD))})
    grads_BD = np.zeros((20, DIM), np.float32)
    grads_BD[bags_R] = bags_RD
    expected = step_of.spread(grads_BD)
    expected[rows_R] += rows_RD
    assert (client.pull("t", step_of.ids_U) == -expected).all()
    touched = set(step_of.bags.positions_P[np.isin(step_of.bag_of_P, bags_R)].tolist()) | set(rows_R.tolist())
    assert set(contents(client, "t")) == {int(step_of.ids_U[at]) for at in touched}


def test_pushes_of_bags_are_applied_once_whatever_the_network_does(pair: LoopbackCluster, client: ps.Client) -> None:
    """Prepares are lost as well: then pull and push carry ids and bags."""
    fresh(client, "t")
    faults = Faults(1, Rates(drop_request=0.1, drop_response=0.2, repeat=0.2))
    rng, rows = np.random.default_rng(3), dict.fromkeys(IDS.tolist(), np.zeros(DIM, np.float32))
    with ps.Client(Connection(pair.address, faults.open, Hurried())) as shaky:
        for number in range(40):
            step_of = draw(rng)
            step = shaky.prepare({"t": step_of.ids_U}, bags={"t": step_of.bags})
            rows_UD = np.stack([rows[int(id_)] for id_ in step_of.ids_U])
            if number % 2:
                assert (step.pull()["t"] == step_of.sums(rows_UD)).all()
            grads_BD = whole(rng, 20)
            step.push({"t": grads_BD})
            rows |= dict(zip(step_of.ids_U.tolist(), rows_UD - step_of.spread(grads_BD), strict=True))
    assert (client.pull("t", IDS) == np.stack([rows[int(id_)] for id_ in IDS])).all()
    assert sum(faults.seen.values()) > 20


def test_a_step_whose_prepare_never_came_carries_its_bags(pair: LoopbackCluster, client: ps.Client) -> None:
    fresh(client, "t")
    step_of = draw(np.random.default_rng(0))
    rows_UD, grads_BD = whole(np.random.default_rng(1), 50), whole(np.random.default_rng(2), 20)
    client.upsert("t", step_of.ids_U, rows_UD)
    faults = Faults(1, Rates(drop_request=1.0, methods=(methods.PREPARE,)))
    with ps.Client(Connection(pair.address, faults.open, Hurried())) as shaky:
        step = shaky.prepare({"t": step_of.ids_U}, bags={"t": step_of.bags})
        assert (step.pull()["t"] == step_of.sums(rows_UD)).all()
        step.push({"t": grads_BD})
        step.push({"t": grads_BD})
    assert faults.seen["drop_request"] == 2
    assert (client.pull("t", step_of.ids_U) == rows_UD - step_of.spread(grads_BD)).all()


def test_a_step_lost_between_pull_and_push_is_pushed_by_ids_once(pair: LoopbackCluster, client: ps.Client) -> None:
    fresh(client, "t")
    step_of = draw(np.random.default_rng(4))
    grads_BD = whole(np.random.default_rng(5), 20)
    step = taken(client.prepare({"t": step_of.ids_U}, bags={"t": step_of.bags}))
    step.pull()
    for server in pair.servers:
        steps = server.shard.core.steps
        server.shard.engine.run(lambda steps=steps: steps.expire(math.inf))
    step.push({"t": grads_BD})
    step.push({"t": grads_BD})
    assert (client.pull("t", step_of.ids_U) == -step_of.spread(grads_BD)).all()


def test_after_a_change_of_routing_bags_are_parted_anew(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        ids_U, lengths_B = np.arange(60), np.full(12, 5)
        step = taken(client.prepare({"t": ids_U}, bags={"t": ps.PooledBags(np.arange(60), lengths_B)}))
        change(cluster, even_ones_moved(cluster))
        assert not step.pull()["t"].any()
        step.push({"t": block(np.arange(1, 13))})
        assert stored(cluster) == {id_: -float(id_ // 5 + 1) for id_ in range(60)}


@pytest.mark.parametrize("wire_dtype", ["fp16", "int8", ps.ByImportance(share=0.5, others="fp16")])
def test_sums_and_their_gradients_travel_in_the_precision_of_the_table(
    pair: LoopbackCluster, client: ps.Client, wire_dtype: str | ps.ByImportance
) -> None:
    """Small whole numbers are exact in all but int8."""
    fresh(client, "t")
    rng = np.random.default_rng(0)
    step_of = draw(rng)
    rows_UD, grads_BD = whole(rng, 50), whole(rng, 20)
    client.upsert("t", step_of.ids_U, rows_UD)
    with ps.connect(pair.address, wire_dtype=wire_dtype, compress_ids=True) as other:
        step = other.prepare({"t": step_of.ids_U}, bags={"t": step_of.bags})
        sums = step.pull_rows({"t": 0.5})["t"]
        step.push({"t": grads_BD})
    error = 0.01 * np.abs(step_of.sums(rows_UD)).max() if wire_dtype == "int8" else 0
    np.testing.assert_allclose(sums.rows, step_of.sums(rows_UD), rtol=0, atol=error)
    assert sums.exists.all()
    assert sums.important.shape == (50,)
    change_UD = client.pull("t", step_of.ids_U) - rows_UD
    np.testing.assert_allclose(change_UD, -step_of.spread(grads_BD), rtol=0, atol=error and 2)


def test_torch_gets_torch_and_long_bags_are_fewer_bytes(client: ps.Client) -> None:
    fresh(client, "t")
    rng, received = np.random.default_rng(0), []
    ids_U = np.arange(5000)
    lengths_B = np.full(50, 100)
    positions_P = rng.permutation(5000)
    for bags in ({}, {"t": ps.PooledBags(positions_P, lengths_B)}):
        before = client.stats()["client"]
        step = client.prepare({"t": torch.from_numpy(ids_U)}, bags=bags)
        rows = step.pull()["t"]
        assert isinstance(rows, torch.Tensor)
        step.push({"t": torch.ones_like(rows)})
        after = client.stats()["client"]
        received.append(
            after["received_bytes"]["Pull"]
            - before["received_bytes"]["Pull"]
            + sum(after["sent_bytes"][name] - before["sent_bytes"][name] for name in ("Prepare", "Push"))
        )
    assert rows.shape == (50, DIM)
    assert received[1] < 0.35 * received[0], "ids and positions are left"


def test_wrong_gradients_are_refused_before_anything_is_sent(client: ps.Client) -> None:
    fresh(client, "t")
    bags = ps.PooledBags(np.array([0, 1]), np.array([1, 0, 1]))
    step = client.prepare({"t": [5, 6]}, bags={"t": bags})
    nan = block([0, 1, np.nan])
    for wrong, error, match in (
        (block([1, 1]), ps.LengthMismatch, "for the bags of table 't'"),
        (block([1, 1, 1], dim=3), ps.DimensionMismatch, "the last dimension must be 4"),
        (nan, ps.NonFiniteGradient, "nan in bag 2; nothing was sent"),
        (ps.Selected(np.array([2]), nan[2:]), ps.NonFiniteGradient, "nan in bag 2"),
        (ps.Selected(np.array([3]), block([1])), ps.InvalidArgument, r"within \[0, 3\)"),
        (block([3e38, 0, 3e38]), ps.NonFiniteGradient, "could add up to more than float32 holds"),
    ):
        with pytest.raises(error, match=match):
            step.push({"t": wrong})
    with pytest.raises(ps.InvalidArgument, match="bags for tables"):
        client.prepare({"t": [5]}, bags={"u": bags})
    rows = ps.Selected(np.array([0]), block([1]))
    with pytest.raises(ps.InvalidArgument, match="the step was prepared without bags"):
        client.prepare({"t": [5]}).push({"t": ps.PooledGradients(rows, rows)})
    assert client.size("t") == 0


def bag_ids(bags: bytes) -> pb.IdSet:
    return pb.IdSet(tables=[pb.TableIds(table="t", ids=codec.encode_ids(np.array([1, 2])), bags=bags)])


BAG = encode_bags(np.array([2]), np.array([0, 1]), 2)
FP32 = pb.ENCODING_FP32


@pytest.mark.parametrize(
    ("bags", "shape", "body", "error"),
    [
        (b"\1", {}, b"", ps.LengthMismatch),
        (BAG[:-1] + b"\xff", {}, b"", ps.InvalidArgument),
        (BAG, {"bags": 2, "bag_blocks": [pb.Block(encoding=FP32, bytes=8 * DIM)]}, bytes(8 * DIM), ps.LengthMismatch),
        (BAG, {"bags": 1, "bag_blocks": [pb.Block(encoding=FP32, bytes=8 * DIM)]}, bytes(8 * DIM), ps.LengthMismatch),
        (BAG, {"bags": 1, "bag_blocks": [pb.Block(encoding=FP32, bytes=4 * DIM)]}, bytes(DIM), ps.LengthMismatch),
        (BAG, {"bags": 2**31, "bag_blocks": [pb.Block(encoding=FP32)]}, b"", ps.LengthMismatch),
        (BAG, {"bags": 2**31, "bag_blocks": [pb.Block(encoding=8)]}, b"", ps.ResourceExhausted),
        (b"", {"bags": 1, "bag_blocks": [pb.Block(encoding=FP32, bytes=4 * DIM)]}, bytes(4 * DIM), ps.LengthMismatch),
        (BAG, {"bags": 1, "bag_blocks": [pb.Block(encoding=FP32, bytes=0)], "dim": 0}, b"", ps.DimensionMismatch),
    ],
)
def test_what_a_broken_client_sends_is_refused_and_changes_nothing(
    start_server: StartServer, bags: bytes, shape: dict[str, object], body: bytes, error: type[PsError]
) -> None:
    server = start_server()
    with ps.connect(server.address) as client, RawCalls(server.address) as calls:
        client.create_table(summing())
        pushed = pb.PushedTable(**{"table": "t", "rows": 2, "dim": DIM, **shape})
        found = error_of(calls.push_shapes, 1, [pushed], body, ids=bag_ids(bags))
        assert type(found) is error
        assert client.size("t") == 0
        assert "bags are for steps" in str(error_of(calls.write, 1, bag_ids(BAG).tables[0], DIM, bytes(8 * DIM)))
