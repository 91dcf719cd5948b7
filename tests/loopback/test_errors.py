"""Every error arrives as the class that the shard raised; after it nothing is lost and the shard serves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import InProcessTransport
from ps.cluster import inprocess
from ps.cluster.coordinator.coordinator import Coordinator
from ps.errors import PsError
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.encodings import encode
from ps.wire.methods import METHODS, Method, Shape
from ps.wire.routing import Routing
from tests.clusters import LoopbackCluster
from tests.conftest import StartServer
from tests.loopback.tables import DIM, block, contents, summing
from tests.wire_calls import RawCalls, error_of, fp32_shape, id_set, rows_bytes, table_ids

NAN, INF = float("nan"), float("inf")
NOWHERE, NO_CHECKPOINT = "memory://nowhere", "20261201T012300Z-000001"


@pytest.fixture
def server(start_server: StartServer) -> Iterator[ShardServer]:
    """A shard with 100 rows, which are there still when the test is over, and trained on."""
    running = start_server(limits={"max_ids": 1000, "max_body_bytes": 1 << 20, "max_message_bytes": 1 << 20})
    with ps.connect(running.address) as client:
        for name in ("t", "u"):
            client.create_table(summing(name))
            client.push(name, range(100), block(range(100)))
        before = {name: contents(client, name) for name in ("t", "u")}
        yield running
        assert {name: contents(client, name) for name in ("t", "u")} == before
        client.push("t", range(100), block(np.ones(100)))
        np.testing.assert_array_equal(client.pull("t", range(100)), -block(range(1, 101)))


Push = Callable[[RawCalls], object]
one_row = rows_bytes(block([1]))

ROWS = pb.ENCODING_ROWS_FP32
BLOCK = bytes(encode(ps.Selected(np.array([1]), block([1])), ROWS, 2))
"""The second of two rows."""
INT8_BLOCK = bytes(encode(ps.Selected(np.array([0]), block([1])), pb.ENCODING_ROWS_INT8, 2))
"""The first."""


def push_block(
    calls: RawCalls, encoding: int, body: bytes, rows: int = 2, dim: int = DIM, announced: int | None = None
) -> bytes:
    size = len(body) if announced is None else announced
    return push_blocks(calls, [(encoding, size)], body, rows, dim)


def push_blocks(
    calls: RawCalls, blocks: Sequence[tuple[int, int]], body: bytes, rows: int = 2, dim: int = DIM
) -> bytes:
    """blocks: (encoding, bytes announced)."""
    messages = [pb.Block(encoding=pb.Encoding.ValueType(encoding), bytes=size) for encoding, size in blocks]
    shape = pb.PushedTable(table="t", rows=rows, dim=dim, blocks=messages)
    return calls.push_shapes(1, [shape], body, ids=id_set(t=[1, 2]))


def pull_format(calls: RawCalls, **fields: object) -> object:
    """A pull of one table in a format that is right but for these fields."""
    known = {"important": pb.PRECISION_FP32, "others": pb.PRECISION_INT8}
    return calls.pull(ids=id_set(t=[1]), formats=[pb.PullFormat(**{**known, **fields})])


WIRE_ERRORS: dict[str, tuple[type[PsError], Push]] = {
    "pull of an unknown table": (ps.TableNotFound, lambda c: c.pull(ids=id_set(absent=[1]))),
    "push to an unknown table": (
        ps.TableNotFound,
        lambda c: c.push(1, [("absent", 1, DIM)], one_row, ids=id_set(absent=[1])),
    ),
    "an unknown table with a long name": (ps.TableNotFound, lambda c: c.pull(ids=id_set(**{"x" * 128: [1]}))),
    "a name that no table can have": (ps.InvalidArgument, lambda c: c.pull(ids=id_set(**{"x" * 20_000: [1]}))),
    "an unknown table with a name of no ASCII": (ps.TableNotFound, lambda c: c.pull(ids=id_set(**{"größe": [1]}))),
    "prepare for an unknown table": (ps.TableNotFound, lambda c: c.prepare(1, id_set(absent=[1]))),
    "pull of an unknown step": (ps.StepNotFound, lambda c: c.pull(step=pb.StepRef(step=99))),
    "push of an unknown step": (
        ps.StepNotFound,
        lambda c: c.push(1, [("t", 1, DIM)], one_row, step=pb.StepRef(step=99)),
    ),
    "neither step nor ids": (ps.InvalidArgument, lambda c: c.pull()),
    "another dim": (
        ps.DimensionMismatch,
        lambda c: c.push(1, [("t", 1, 5)], rows_bytes(np.ones(5)), ids=id_set(t=[1])),
    ),
    "another dim in the second table": (
        ps.DimensionMismatch,
        lambda c: c.push(1, [("t", 1, DIM), ("u", 1, 5)], one_row, rows_bytes(np.ones(5)), ids=id_set(t=[1], u=[1])),
    ),
    "rows of dim 0": (ps.DimensionMismatch, lambda c: c.push(1, [("t", 1, 0)], ids=id_set(t=[1]))),
    "a pull in an unknown precision": (ps.DtypeMismatch, lambda c: pull_format(c, others=99)),
    "a pull in no precision": (ps.DtypeMismatch, lambda c: pull_format(c, important=pb.PRECISION_UNSPECIFIED)),
    "a pull of a share beyond all rows": (ps.InvalidArgument, lambda c: pull_format(c, important_share=1.1)),
    "a pull of a share below none": (ps.InvalidArgument, lambda c: pull_format(c, important_share=-0.1)),
    "a pull of a share that is no number": (ps.InvalidArgument, lambda c: pull_format(c, important_share=NAN)),
    "a pull with a negative mask": (ps.InvalidArgument, lambda c: pull_format(c, mask_below=-1)),
    "a pull with a mask of all": (ps.InvalidArgument, lambda c: pull_format(c, mask_below=INF)),
    "a pull with a mask that is no number": (ps.InvalidArgument, lambda c: pull_format(c, mask_below=NAN)),
    "a pull of more formats than tables": (
        ps.LengthMismatch,
        lambda c: c.pull(
            ids=id_set(t=[1]),
            formats=[pb.PullFormat(important=pb.PRECISION_FP32, others=pb.PRECISION_FP32)] * 2,
        ),
    ),
    "a body shorter than announced": (
        ps.LengthMismatch,
        lambda c: c.push(1, [("t", 2, DIM)], one_row, ids=id_set(t=[1, 2])),
    ),
    "no body": (ps.LengthMismatch, lambda c: c.push(1, [("t", 1, DIM)], ids=id_set(t=[1]))),
    "a body longer than announced": (
        ps.LengthMismatch,
        lambda c: c.push(1, [("t", 1, DIM)], one_row, one_row, ids=id_set(t=[1])),
    ),
    "a chunk that ends inside a row": (
        ps.LengthMismatch,
        lambda c: c.push(1, [("t", 1, DIM)], one_row[:8], one_row[8:], ids=id_set(t=[1])),
    ),
    "half a float": (ps.LengthMismatch, lambda c: c.push(1, [("t", 1, DIM)], one_row[:7], ids=id_set(t=[1]))),
    "fewer rows than ids": (
        ps.LengthMismatch,
        lambda c: c.push(1, [("t", 1, DIM)], one_row, ids=id_set(t=[1, 2])),
    ),
    "fewer tables than ids": (ps.LengthMismatch, lambda c: c.push(1, [], ids=id_set(t=[1]))),
    "counts of another length": (
        ps.LengthMismatch,
        lambda c: c.push(1, [("t", 1, DIM)], one_row, ids=pb.IdSet(tables=[table_ids("t", [1], [1, 2])])),
    ),
    "ids that are no whole number of int64": (
        ps.LengthMismatch,
        lambda c: c.pull(ids=pb.IdSet(tables=[pb.TableIds(table="t", ids=b"1234567")])),
    ),
    "duplicate ids in a push": (
        ps.DuplicateIds,
        lambda c: c.push(1, [("t", 2, DIM)], one_row * 2, ids=id_set(t=[1, 1])),
    ),
    "duplicate ids in a prepare": (ps.DuplicateIds, lambda c: c.prepare(1, id_set(t=[1, 1]))),
    "one table twice": (
        ps.InvalidArgument,
        lambda c: c.prepare(1, pb.IdSet(tables=[table_ids("t", [1]), table_ids("t", [2])])),
    ),
    "NaN": (
        ps.NonFiniteGradient,
        lambda c: c.push(1, [("t", 1, DIM)], rows_bytes([1, NAN, 1, 1]), ids=id_set(t=[1])),
    ),
    "infinity in the second table, in the last chunk": (
        ps.NonFiniteGradient,
        lambda c: c.push(
            1, [("t", 1, DIM), ("u", 1, DIM)], one_row, rows_bytes([1, 1, 1, -INF]), ids=id_set(t=[1], u=[1])
        ),
    ),
    "infinity in fp16": (
        ps.NonFiniteGradient,
        lambda c: push_block(c, pb.ENCODING_FP16, np.array([1, INF, 1, 1] * 2, "<f2").tobytes()),
    ),
    "an unknown encoding": (ps.DtypeMismatch, lambda c: push_block(c, 99, b"1234", rows=1)),
    "a block shorter than announced": (
        ps.LengthMismatch,
        lambda c: push_block(c, ROWS, BLOCK[:-4], announced=len(BLOCK)),
    ),
    "a block longer than announced": (
        ps.LengthMismatch,
        lambda c: push_block(c, ROWS, BLOCK, announced=len(BLOCK) - 4),
    ),
    "a block without its bitmap": (ps.LengthMismatch, lambda c: push_block(c, ROWS, b"")),
    "a block with a row beyond the last": (ps.InvalidArgument, lambda c: push_block(c, ROWS, b"\x04" + BLOCK[1:])),
    "a block of more rows than ids": (ps.LengthMismatch, lambda c: push_block(c, ROWS, BLOCK, rows=3)),
    "a block of another dim": (ps.LengthMismatch, lambda c: push_block(c, ROWS, BLOCK, dim=DIM + 1)),
    "NaN in a block": (
        ps.NonFiniteGradient,
        lambda c: push_block(c, ROWS, BLOCK[:4] + rows_bytes([NAN] * DIM)),
    ),
    "a block larger than any body": (
        ps.ResourceExhausted,
        lambda c: push_block(c, ROWS, BLOCK, announced=1 << 62),
    ),
    "a row in two blocks": (
        ps.InvalidArgument,
        lambda c: push_blocks(c, [(ROWS, len(BLOCK)), (ROWS, len(BLOCK))], BLOCK * 2),
    ),
    "all rows, and one again": (
        ps.InvalidArgument,
        lambda c: push_blocks(c, [(pb.ENCODING_FP32, 8 * DIM), (ROWS, len(BLOCK))], one_row * 2 + BLOCK),
    ),
    "blocks of all rows, over and over": (
        ps.ResourceExhausted,
        lambda c: push_blocks(c, [(pb.ENCODING_INT8, 1 << 19)] * 1000, b""),
    ),
    "the second block cut": (
        ps.LengthMismatch,
        lambda c: push_blocks(c, [(ROWS, len(BLOCK)), (pb.ENCODING_INT8, 99)], BLOCK),
    ),
    "fp32 rows announced with other bytes than they have": (
        ps.LengthMismatch,
        lambda c: push_block(c, pb.ENCODING_FP32, one_row * 2, announced=4),
    ),
    "an upsert of some of its rows": (
        ps.LengthMismatch,
        lambda c: c.write(
            1,
            table_ids("t", [1, 2]),
            DIM,
            BLOCK,
            shape=pb.PushedTable(table="t", rows=2, dim=DIM, blocks=[pb.Block(encoding=ROWS, bytes=len(BLOCK))]),
        ),
    ),
    "a pull that names a table twice": (
        ps.InvalidArgument,
        lambda c: c.pull(ids=pb.IdSet(tables=[table_ids("t", [1]), table_ids("t", [2])])),
    ),
    "ids that are sent twice": (
        ps.InvalidArgument,
        lambda c: c.pull(ids=pb.IdSet(tables=[pb.TableIds(table="t", ids=b"12345678", sorted_ids=b"\0\0\0\0")])),
    ),
    "sorted ids that end early": (
        ps.LengthMismatch,
        lambda c: c.pull(ids=pb.IdSet(tables=[pb.TableIds(table="t", sorted_ids=b"\x02\0\0\0" + b"\0" * 8)])),
    ),
    "more sorted ids than a request may have": (
        ps.ResourceExhausted,
        lambda c: c.pull(ids=pb.IdSet(tables=[pb.TableIds(table="t", sorted_ids=b"\xff\xff\xff\xff")])),
    ),
    "NaN in an upsert": (
        ps.NonFiniteGradient,
        lambda c: c.write(1, table_ids("t", [1]), DIM, rows_bytes([NAN] * DIM)),
    ),
    "another routing epoch": (
        ps.StaleRouting,
        lambda c: c.pull(header=pb.Header(routing_epoch=2, worker_id=1), ids=id_set(t=[1])),
    ),
    "an unknown write mode": (ps.InvalidArgument, lambda c: c.write(1, table_ids("t", [1]), DIM, one_row, mode=9)),
    "an upsert of another dim": (
        ps.DimensionMismatch,
        lambda c: c.write(1, table_ids("t", [1]), 5, rows_bytes(np.ones(5))),
    ),
    "an upsert of duplicate ids": (ps.DuplicateIds, lambda c: c.write(1, table_ids("t", [1, 1]), DIM, one_row * 2)),
    "a removal of duplicate ids": (ps.DuplicateIds, lambda c: c.remove(1, table_ids("t", [1, 1]))),
    "too many ids in a pull": (ps.ResourceExhausted, lambda c: c.pull(ids=id_set(t=range(1001)))),
    "too many ids over two tables": (
        ps.ResourceExhausted,
        lambda c: c.prepare(1, id_set(t=range(501), u=range(500))),
    ),
    "too many ids in a push": (
        ps.ResourceExhausted,
        lambda c: c.push(1, [("t", 1001, DIM)], one_row * 1001, ids=id_set(t=range(1001))),
    ),
    "too many ids in an upsert": (
        ps.ResourceExhausted,
        lambda c: c.write(1, table_ids("t", range(200, 1201)), DIM, one_row * 1001),
    ),
    "too many ids in a removal": (
        ps.ResourceExhausted,
        lambda c: c.remove(1, table_ids("t", range(200, 1201))),
    ),
    "a body too large to hold": (
        ps.ResourceExhausted,
        lambda c: c.push(1, [("t", 2**20, DIM)], one_row, ids=id_set(t=[1])),
    ),
    "a message too large": (
        ps.ResourceExhausted,
        lambda c: c.push(1, [("t", 1, DIM)], bytes(2 << 20), ids=id_set(t=[1])),
    ),
    "export of an unknown table": (
        ps.TableNotFound,
        lambda c: c.call(
            methods.EXPORT, pb.ExportRequest(header=c.header, table="absent", max_rows=1).SerializeToString()
        ),
    ),
    "a push without a message": (ps.InvalidArgument, lambda c: c.call(methods.PUSH)),
    "a method of the coordinator's with nonsense": (
        ps.ConfigError,
        lambda c: c.call(methods.CREATE_TABLE, control.CreateTableRequest(config_json="{}").SerializeToString()),
    ),
    "a table that exists": (
        ps.TableExists,
        lambda c: c.call(
            methods.CREATE_TABLE, control.CreateTableRequest(config_json=summing().to_json()).SerializeToString()
        ),
    ),
    "dropping an unknown table": (
        ps.TableNotFound,
        lambda c: c.call(methods.DROP_TABLE, control.DropTableRequest(table="absent").SerializeToString()),
    ),
}


@pytest.mark.parametrize("case", WIRE_ERRORS)
def test_what_a_shard_refuses_arrives_as_its_own_class(server: ShardServer, case: str) -> None:
    kind, call = WIRE_ERRORS[case]
    with RawCalls(server.address) as calls:
        error = error_of(call, calls)
    assert type(error) is kind, error
    assert server.address in str(error), "which shard said it"


def test_a_sequence_with_another_body_is_a_conflict_and_one_too_old_as_well(start_server: StartServer) -> None:
    server = start_server(limits={"ledger_window": 16})
    with ps.connect(server.address) as client, RawCalls(server.address) as calls:
        client.create_table(summing())

        def push(sequence: int, value: float) -> pb.PushResponse:
            answer = calls.push(sequence, [("t", 1, DIM)], rows_bytes(block([value])), ids=id_set(t=[1]))
            return pb.PushResponse.FromString(answer)

        assert not push(1, 1).repeated
        assert push(1, 1).repeated
        assert type(error_of(push, 1, 2)) is ps.SequenceConflict
        for sequence in range(2, 20):
            push(sequence, 1)
        assert type(error_of(push, 1, 1)) is ps.SequenceConflict
        assert type(error_of(calls.remove, 19, table_ids("t", [1]))) is ps.SequenceConflict, "of another kind"
        assert contents(client, "t") == {1: [-19.0] * DIM}


def test_a_push_that_its_client_breaks_off_changes_nothing(server: ShardServer) -> None:
    """The head and half of the rows were there."""
    with RawCalls(server.address) as calls:
        head = requests(calls.header)[methods.PUSH][0].SerializeToString()

        def body() -> Iterator[bytes]:
            yield head
            yield codec.payload_message(one_row)
            raise ConnectionAbortedError

        assert isinstance(error_of(calls.transport.stream_in, methods.PUSH, body(), 5.0), PsError)


# the client's own checks


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ps.TableNotFound, lambda c: c.pull("absent", [1])),
        (ps.TableNotFound, lambda c: c.size("absent")),
        (ps.TableNotFound, lambda c: next(c.export("absent"))),
        (ps.DtypeMismatch, lambda c: c.pull("t", [0.5])),
        (ps.DtypeMismatch, lambda c: c.push("t", [1], [[1, 2, 3, 4]])),
        (ps.DtypeMismatch, lambda c: c.pull("t", [[1], [1, 2]])),
        (ps.DtypeMismatch, lambda c: c.push("t", [1, 2], [[1.0] * DIM, [1.0]])),
        (ps.DimensionMismatch, lambda c: c.push("t", [1, 2], np.ones((2, 5)))),
        (ps.LengthMismatch, lambda c: c.push("t", [1, 2], np.ones((3, DIM)))),
        (ps.NonFiniteGradient, lambda c: c.push("t", [1, 2], block([1, NAN]))),
        (ps.NonFiniteGradient, lambda c: c.push("t", [1], block([INF]))),
        (ps.NonFiniteGradient, lambda c: c.push("t", [1, 1], block([3e38, 3e38]))),
        (ps.NonFiniteGradient, lambda c: c.upsert("t", [1], block([NAN]))),
        (ps.InvalidArgument, lambda c: c.upsert("t", [1, 1], block([1, 2]))),
        (ps.ResourceExhausted, lambda c: c.pull("t", range(1001))),
        (ps.ResourceExhausted, lambda c: c.push("t", range(1001), block(np.ones(1001)))),
        (ps.InvalidArgument, lambda c: c.pull("t", [1], timeout_s=0)),
        (ps.InvalidArgument, lambda c: c.pull("t", [1], timeout_s=-1)),
        (ps.TableExists, lambda c: c.create_table(summing())),
        (ps.TableExists, lambda c: c.create_table(summing(dim=7), exist_ok=True)),
        (ps.TableNotFound, lambda c: c.drop_table("absent")),
    ],
)
def test_what_a_user_does_wrong_has_a_class_of_its_own(
    server: ShardServer, error: type[PsError], call: Callable[[ps.Client], object]
) -> None:
    with ps.connect(server.address) as client, pytest.raises(error) as raised:
        call(client)
    assert type(raised.value) is error


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("wire_dtype", ["fp32", "fp16"])
def test_one_shards_bad_part_is_found_before_any_shard_gets_its_own(
    cluster: LoopbackCluster, wire_dtype: str, value: float
) -> None:
    """A shard that refuses its part cannot undo what the others have applied. The step may be mended and pushed."""
    ids, grads = np.repeat(np.arange(-30, 30), 2), block(np.ones(120))
    grads[2 * 37] = value
    with ps.connect(cluster.address, wire_dtype=wire_dtype) as client:
        client.create_table(summing())
        step = client.prepare({"t": ids})
        for call in (
            lambda: step.push({"t": grads}),
            lambda: client.push("t", ids, grads),
            lambda: client.upsert("t", ids[::2], grads[::2]),
            lambda: client.assign("t", ids[::2], grads[::2]),
        ):
            with pytest.raises(ps.NonFiniteGradient, match=rf"table 't': {value} in the row of id 7; nothing was sent"):
                call()
        assert client.stats()["client"]["sent_bytes"].keys().isdisjoint({"Push", "Write"})
        assert client.size("t") == 0
        grads[2 * 37] = 1
        step.push({"t": grads})
        np.testing.assert_array_equal(client.pull("t", ids), -2 * grads)


def test_rows_too_large_to_hold_are_refused_in_pulls_too(start_server: StartServer) -> None:
    """`max_body_bytes` bounds what one call makes the shard hold until it is sent."""
    server = start_server(limits={"max_body_bytes": 1 << 20})
    with ps.connect(server.address) as client:
        client.create_table(summing(dim=1024))
        assert client.pull("t", range(200)).shape == (200, 1024)
        with pytest.raises(ps.ResourceExhausted, match="max_body_bytes"):
            client.pull("t", range(300))


# another routing table than the client's


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.pull("t", range(50)),
        lambda c: c.push("t", range(50), block(np.zeros(50))),
        lambda c: c.assign("t", range(50), -block(range(50))),
        lambda c: c.remove("t", [1000]),
        lambda c: list(c.export("t")),
        lambda c: c.prepare({"t": range(50)}).pull(),
        lambda c: c.prepare({"t": range(50)}).push({"t": block(np.zeros(50))}),
    ],
    ids=["pull", "push", "assign", "remove", "export", "step pull", "step push"],
)
def test_a_client_with_an_old_routing_table_fetches_the_new_one(
    cluster: LoopbackCluster, call: Callable[[ps.Client], object]
) -> None:
    connection = Connection(cluster.address)
    with ps.Client(connection) as client:
        client.create_table(summing())
        client.push("t", range(50), block(range(50)))
        old = cluster.coordinator.routing
        cluster.coordinator.routing = Routing.even(old.epoch + 1, old.shards, old.coordinator)
        cluster.tell(cluster.coordinator.routing)
        call(client)
        assert connection.routing.epoch == old.epoch + 1
        np.testing.assert_array_equal(client.pull("t", range(50)), -block(range(50)))


def test_a_table_remade_with_another_dim_is_no_bug_of_the_shards(shard_server: ShardServer) -> None:
    """The client's idea of the table is old: it may ask again or say what is wrong, but not blame the service."""
    with ps.connect(shard_server.address) as old, ps.connect(shard_server.address) as other:
        old.create_table(summing(dim=4))
        old.pull("t", [1])
        other.drop_table("t")
        other.create_table(summing(dim=8))
        try:
            assert old.pull("t", [1]).shape == (1, 8)
        except ps.InternalError:
            raise
        except ps.DimensionMismatch as error:
            assert "8" in str(error)


# nobody there


def test_a_port_where_nobody_listens_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ps.client.connection.connection.DESCRIBE_TIMEOUT_S", 0.3)
    with ShardServer(0, ps.ServiceConfig(watching={"metrics": False})) as gone:
        address = gone.address
    with pytest.raises(ps.Unavailable, match=address):
        ps.connect(address)
    with pytest.raises(ps.Unavailable, match="no service"):
        ps.connect("inproc:nobody")


def test_a_coordinator_without_shards_yet_is_unavailable_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that comes a moment too early may come again."""
    monkeypatch.setattr("ps.client.connection.connection.DESCRIBE_TIMEOUT_S", 0.3)
    coordinator = Coordinator(ps.ServiceConfig())
    try:
        with pytest.raises(ps.Unavailable):
            ps.connect(coordinator.address)
    finally:
        coordinator.stop()


# bytes from anywhere


def requests(header: pb.Header) -> dict[Method, list[Message]]:
    return {
        methods.PREPARE: [pb.PrepareRequest(header=header, step=1, ids=id_set(t=[1, 2]))],
        methods.FORGET: [pb.ForgetRequest(header=header, step=1)],
        methods.PULL: [
            pb.PullRequest(
                header=header,
                ids=id_set(t=[1, 2]),
                return_exists=True,
                formats=[
                    pb.PullFormat(
                        important=pb.PRECISION_FP16, others=pb.PRECISION_INT8, important_share=0.5, mask_below=0.5
                    )
                ],
            )
        ],
        methods.PUSH: [
            pb.PushChunk(
                head=pb.PushHead(
                    header=header,
                    sequence=1,
                    ids=id_set(t=[1, 2]),
                    tables=[
                        pb.PushedTable(
                            table="t",
                            rows=2,
                            dim=DIM,
                            blocks=[
                                pb.Block(encoding=ROWS, bytes=len(BLOCK)),
                                pb.Block(encoding=pb.ENCODING_ROWS_INT8, bytes=len(INT8_BLOCK)),
                            ],
                        )
                    ],
                )
            ),
            pb.PushChunk(payload=BLOCK + INT8_BLOCK),
        ],
        methods.WRITE: [
            pb.WriteChunk(
                head=pb.WriteHead(
                    header=header,
                    sequence=1,
                    mode=pb.WRITE_MODE_UPSERT,
                    ids=table_ids("t", [1, 2]),
                    shape=fp32_shape("t", 2, DIM),
                )
            ),
            pb.WriteChunk(payload=one_row * 2),
        ],
        methods.REMOVE: [pb.RemoveRequest(header=header, ids=table_ids("t", [1, 2]))],
        methods.REPORT_IMPORTANCE: [
            pb.ReportImportanceRequest(scores=bytes(4), header=header, ids=table_ids("t", [1, 2]))
        ],
        methods.EXPORT: [pb.ExportRequest(header=header, table="t", cursor=1, max_rows=10)],
        methods.DESCRIBE: [control.DescribeRequest()],
        methods.CREATE_TABLE: [control.CreateTableRequest(config_json=summing("n", dim=2).to_json(), exist_ok=True)],
        methods.DROP_TABLE: [control.DropTableRequest(table="absent", missing_ok=True)],
        methods.SET_OPTIMIZER: [control.SetOptimizerRequest(sequence=1, table="t", settings={"lr": 1.0})],
        methods.STATS: [control.StatsRequest()],
        methods.ADVANCE: [control.AdvanceRequest(group="g", rank=1, clocks=[1, 1], max_staleness=1)],
        methods.CHECKPOINT: [control.CheckpointRequest(url=NOWHERE)],
        methods.CHECKPOINT_PART: [control.CheckpointPartRequest(url=NOWHERE, name=NO_CHECKPOINT)],
        methods.KEEP_PART: [control.KeepPartRequest(url=NOWHERE, name=NO_CHECKPOINT, truncate=1)],
        methods.RESTORE: [control.RestoreRequest(url=NOWHERE)],
        methods.RESTORE_PART: [control.RestorePartRequest(url=NOWHERE, name=NO_CHECKPOINT, exact=True)],
    }


@pytest.fixture(scope="module")
def fuzzed() -> str:
    address = inprocess.start(ps.ServiceConfig(limits={"max_ids": 1000, "max_body_bytes": 1 << 20}))
    with ps.connect(address) as client:
        client.create_table(summing())
    return address


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@settings(max_examples=120)
@given(data=st.data())
def test_no_bytes_whatever_are_an_internal_error(
    fuzzed: str, tmp_path_factory: pytest.TempPathFactory, method: Method, data: st.DataObject
) -> None:
    """A well-formed request with bytes changed, cut and inserted: answered, or refused by a class that says why."""
    with RawCalls(fuzzed, transport=InProcessTransport(fuzzed)) as calls:
        messages = [message.SerializeToString() for message in requests(calls.header)[method]]
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(messages) - 1))
        message = bytearray(messages[at])
        where = data.draw(st.integers(0, len(message)))
        cut = data.draw(st.integers(0, 4))
        message[where : where + cut] = data.draw(st.binary(max_size=4))
        messages[at] = bytes(message)
    folder = tmp_path_factory.getbasetemp()  # of what becomes a path here
    with chdir(folder), RawCalls(fuzzed, transport=InProcessTransport(fuzzed)) as calls:
        try:
            assert calls.call(method, *messages) or method.shape is Shape.STREAM_OUT
        except ps.InternalError as error:
            raise AssertionError(f"{method.name}: {error}") from error
        except PsError:
            pass
    if data.draw(st.integers(0, 20)) == 0:
        with ps.Client(Connection(fuzzed)) as client:
            client.create_table(summing(), exist_ok=True)
            assert client.pull("t", [5]).shape == (1, DIM)


@pytest.mark.parametrize("cursor", [2**31, 2**63, 2**64 - 1])
def test_an_export_from_beyond_the_end_is_an_empty_last_page(server: ShardServer, cursor: int) -> None:
    with RawCalls(server.address) as calls:
        request = pb.ExportRequest(header=calls.header, table="t", cursor=cursor, max_rows=10)
        (answer,) = calls.call(methods.EXPORT, request.SerializeToString())
    head = pb.ExportChunk.FromString(answer).head
    assert (head.next_cursor, head.ids) == (0, b"")
