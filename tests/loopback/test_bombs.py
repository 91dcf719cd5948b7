"""Small messages that ask for much: refused before anything is built, by an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import ps
from ps.storage.budget.budget import RamBudget
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.methods import Method
from ps.wire.sorted_ids import encode_sorted_ids
from tests.conftest import StartServer
from tests.fuzz import fuzz
from tests.loopback.tables import DIM, block, summing
from tests.wire_calls import RawCalls, error_of, fp32_shape, id_set

MB = 1 << 20
RAM_BYTES = 128 << 20


@pytest.fixture
def calls(start_server: StartServer) -> Iterator[RawCalls]:
    """To a shard with a budget and a row, which is there still when the test is over."""
    server = start_server(memory={"ram_bytes": RAM_BYTES})
    with ps.connect(server.address) as client, RawCalls(server.address) as raw:
        client.create_table(summing())
        client.push("t", [1], block([5]))
        yield raw
        assert client.pull("t", [1]).tolist() == block([-5]).tolist()


def within(number: int, body: bytes) -> bytes:
    """A message in that field of another."""
    return _tag(number) + _varint(len(body)) + body


def _tag(number: int) -> bytes:
    return bytes((number << 3 | 2,))


def _varint(n: int) -> bytes:
    return bytes((n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21))


def headed(calls: RawCalls) -> bytes:
    return pb.PullRequest(header=calls.header).SerializeToString()


def bags_of_nothing(size: int) -> bytes:
    count = 4 * size
    return count.to_bytes(4, "little") + b"\x01" + bytes(count // 4)


def with_bags(calls: RawCalls) -> bytes:
    part = pb.TableIds(table="t", ids=bytes(8), bags=bags_of_nothing(2 * MB))
    return pb.PrepareRequest(header=calls.header, step=1, ids=pb.IdSet(tables=[part])).SerializeToString()


def with_dense_ids(calls: RawCalls) -> bytes:
    part = pb.TableIds(table="t", sorted_ids=encode_sorted_ids(np.arange(4 * MB)))
    return pb.PullRequest(header=calls.header, ids=pb.IdSet(tables=[part])).SerializeToString()


def config(more: str) -> bytes:
    return control.CreateTableRequest(config_json=f'{{"name": "x", "dim": 4, {more}}}').SerializeToString()


BOMBS: dict[str, tuple[type[ps.PsError], Method, Callable[[RawCalls], bytes]]] = {
    "a push of empty tables": (
        ps.ResourceExhausted,
        methods.PUSH,
        lambda calls: within(1, headed(calls) + b"\x2a\x00" * MB),
    ),
    "a prepare of empty tables": (
        ps.ResourceExhausted,
        methods.PREPARE,
        lambda calls: headed(calls) + within(3, b"\x0a\x00" * MB),
    ),
    "a pull of empty formats": (
        ps.ResourceExhausted,
        methods.PULL,
        lambda calls: headed(calls) + b"\x22\x00" * MB,
    ),
    "a push of fields that nobody knows": (ps.InvalidArgument, methods.PUSH, lambda calls: b"\xa0\x06\x01" * MB),
    "a removal of them": (ps.ResourceExhausted, methods.REMOVE, lambda calls: headed(calls) + b"\xa0\x06\x01" * MB),
    "bags of one bit": (ps.ResourceExhausted, methods.PREPARE, with_bags),
    "ids of one bit": (ps.ResourceExhausted, methods.PULL, with_dense_ids),
    "a table of a million settings": (
        ps.InvalidArgument,
        methods.CREATE_TABLE,
        lambda calls: config(",".join(f'"k{number}": 1' for number in range(10**5))),
    ),
    "a table of more settings than there are": (
        ps.errors.ConfigError,
        methods.CREATE_TABLE,
        lambda calls: config(",".join(f'"k{number}": 1' for number in range(5000))),
    ),
    "a number of very many digits": (
        ps.errors.ConfigError,
        methods.CREATE_TABLE,
        lambda calls: config('"seed": ' + "9" * 60_000),
    ),
    "cores larger than the budget": (
        ps.ResourceExhausted,
        methods.CREATE_TABLE,
        lambda calls: config('"dim": 4096, "cold": {"kind": "tensor_train", "rows": 1099511627776, "cores": 2}'),
    ),
    "cores of absurd factors": (
        ps.errors.ConfigError,
        methods.CREATE_TABLE,
        lambda calls: config('"cold": {"kind": "tensor_train", "rows": 9, "p_shapes": [9, 9, 1' + "0" * 400 + "]}"),
    ),
    "a name of megabytes": (
        ps.InvalidArgument,
        methods.DROP_TABLE,
        lambda calls: control.DropTableRequest(table="x" * MB).SerializeToString(),
    ),
    "an export of such a name": (
        ps.TableNotFound,
        methods.EXPORT,
        lambda calls: pb.ExportRequest(header=calls.header, table="x" * MB).SerializeToString(),
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_what_asks_for_much_is_refused(calls: RawCalls, what: str) -> None:
    kind, method, message = BOMBS[what]
    error = error_of(calls.call, method, message(calls))
    assert type(error) is kind
    assert len(str(error)) < 2500
    assert getattr(error, "retry_after_s", None) is None, "it never fits"


def test_a_body_in_very_many_pieces_is_refused(calls: RawCalls) -> None:
    head = pb.PushHead(
        header=calls.header, sequence=1, ids=id_set(t=range(2, 3000)), tables=[fp32_shape("t", 2998, DIM)]
    )
    pieces = [codec.payload_message(b"")] * 5000
    error = error_of(calls.call, methods.PUSH, pb.PushChunk(head=head).SerializeToString(), *pieces)
    assert type(error) is ps.InvalidArgument
    assert "chunks" in str(error)


def test_a_message_larger_than_its_share_of_the_budget_is_not_received(calls: RawCalls) -> None:
    request = pb.PrepareRequest(
        header=calls.header, step=1, ids=pb.IdSet(tables=[pb.TableIds(table="t", ids=bytes(17 * MB))])
    )
    error = error_of(calls.call, methods.PREPARE, request.SerializeToString())
    assert type(error) is ps.ResourceExhausted
    assert "max_message_bytes" in str(error)


@pytest.mark.parametrize("dense", [100_000, 700_000])
def test_ids_of_any_number_are_pulled_with_compressed_ids(start_server: StartServer, dense: int) -> None:
    """Where gaps of a bit would be too much to unpack, they go as they are."""
    server = start_server()
    with ps.connect(server.address, compress_ids=True) as client:
        client.create_table(summing(dim=1))
        client.push("t", [dense - 1], [[3.0]])
        rows_N1 = client.pull("t", np.arange(dense))
        assert rows_N1.shape == (dense, 1)
        assert rows_N1[-1] == -3
        assert client.upsert("t", np.arange(dense), np.ones((dense, 1), np.float32)).sum() == 1


@pytest.mark.slow
def test_no_message_costs_much_more_than_its_bytes() -> None:
    """A short run of `tests.fuzz`: each message costs at most 10 times its bytes and 10 MB, and a second."""
    with fuzz(seed=1) as running:
        costs = [running.step() for _ in range(1500)]
    assert [str(cost) for cost in costs if cost.too_much] == []
    assert sum(cost.outcome == "OK" for cost in costs) > 300


def test_ids_are_counted_among_the_messages_under_way(start_server: StartServer) -> None:
    """For as long as their call lasts, and not beside the rows that they are pulled as."""
    server = start_server(memory={"ram_bytes": RAM_BYTES})
    bodies, ids_N = server.shard.budget.bodies, np.arange(100_000)
    with ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", ids_N, np.ones((len(ids_N), DIM), np.float32))
        assert bodies.used == 0
        limit = RamBudget(ps.ServiceConfig(memory={"ram_bytes": RAM_BYTES})).aside.bodies
        with bodies.holding(limit - 16 * len(ids_N)):
            assert client.pull("t", ids_N).sum() == -len(ids_N) * DIM, "rows of 16 bytes, ids of as many"
        with bodies.holding(limit - 16 * len(ids_N) + 1), pytest.raises(ps.ResourceExhausted) as refused:
            client.pull("t", ids_N, timeout_s=3.0)
        assert refused.value.retry_after_s, "alone it fits"
        client.remove("t", ids_N)
        assert bodies.used == 0


def test_pages_of_an_export_are_counted_too(start_server: StartServer) -> None:
    server = start_server(memory={"ram_bytes": RAM_BYTES})
    bodies, limit = (
        server.shard.budget.bodies,
        RamBudget(ps.ServiceConfig(memory={"ram_bytes": RAM_BYTES})).aside.bodies,
    )
    with ps.connect(server.address) as client:
        client.create_table(summing(dim=64))
        client.push("t", np.arange(1000), np.ones((1000, 64), np.float32))
        with bodies.holding(limit - 276 * 1000):
            assert sum(len(ids_N) for ids_N, _, _ in client.export("t")) == 1000
        with bodies.holding(limit - 276 * 1000 + 1), pytest.raises(ps.ResourceExhausted) as refused:
            list(client.export("t", timeout_s=3.0))
        assert refused.value.retry_after_s
        assert bodies.used == 0
