"""A client that goes away in the middle of an answer leaves nothing behind, wherever the answer stood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.kernels.ranking import score
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.bags import encode_bags
from ps.wire.methods import METHODS, Shape
from tests.conftest import QUIET
from tests.unit.shard.helpers import ids_of
from tests.waiting import busy_engine, until
from tests.wire_calls import table_ids

DIM, ROWS = 1024, 600
STEP = 5
IDS = range(ROWS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardServer]:
    """Half of the rows on disk; a step of all of them is prepared."""
    folder: Path = tmp_path_factory.mktemp("disk")
    with ShardServer(0, QUIET.having(disk={"path": folder})) as running, ps.connect(running.address) as c:
        c.create_table(ps.TableConfig(name="t", dim=DIM, swap_fraction=0.5))
        c.push("t", IDS, np.ones((ROWS, DIM)))
        yield running


def header(server: ShardServer) -> pb.Header:
    data = server.dispatcher.unary(methods.DESCRIBE, control.DescribeRequest().SerializeToString())
    return pb.Header(routing_epoch=control.DescribeResponse.FromString(data).routing.epoch, worker_id=7)


def bagged() -> pb.IdSet:
    ids = table_ids("t", IDS)
    ids.bags = encode_bags(np.ones(ROWS, np.int64), np.arange(ROWS, dtype=np.int64), ROWS)
    return pb.IdSet(tables=[ids])


def pulls() -> dict[str, dict[str, object]]:
    plain = pb.IdSet(tables=[table_ids("t", IDS)])
    return {
        "by ids": {"ids": plain},
        "by step": {"step": pb.StepRef(step=STEP)},
        "in fp16": {"ids": plain, "formats": [pb.PullFormat(important=pb.PRECISION_FP16, others=pb.PRECISION_FP16)]},
        "of bags": {"ids": bagged()},
        "of nobody's step": {"step": pb.StepRef(step=404)},
    }


LONG_WORK = {methods.CHECKPOINT, methods.CHECKPOINT_PART, methods.RESTORE, methods.RESTORE_PART}
"""They stream how far they are: test_checkpoints.py gives them up."""
STREAMS = [(methods.PULL, kind) for kind in pulls()] + [(methods.EXPORT, "a page")]


def held(server: ShardServer) -> dict[str, object]:
    """All that a call may hold of a shard, at rest."""
    shard, table = server.shard, server.shard.tables["t"]
    marks_S = shard.engine.run(lambda: table.ram.marks_S[: table.ram.slots_end].copy())
    return {
        "bodies": shard.budget.bodies.used,
        "pins": int((marks_S // score.PIN).sum()),
        "open reads": len(table.store._fetches._open),
        "steps": shard.stats()["steps_held"],
        "calls": len(server.dispatcher.calls),
    }


def test_every_answer_that_streams_is_tried_here() -> None:
    streams = {method for method in METHODS if method.shape is Shape.STREAM_OUT}
    assert {method for method, _ in STREAMS} == streams - LONG_WORK


@pytest.mark.parametrize(("method", "kind"), STREAMS)
def test_a_stream_that_is_closed_anywhere_gives_back_what_it_held(
    server: ShardServer, method: methods.Method, kind: str
) -> None:
    head = header(server)
    request = pb.ExportRequest(header=head, table="t") if method is methods.EXPORT else pb.PullRequest(header=head)
    if kind == "by step":
        prepare = pb.PrepareRequest(header=head, step=STEP, ids=pb.IdSet(tables=[table_ids("t", IDS)]))
        server.dispatcher.unary(methods.PREPARE, prepare.SerializeToString())
    if method is methods.PULL:
        request = pb.PullRequest(header=head, **pulls()[kind])
    before = held(server)
    taken, ended = 0, False
    while not ended:
        stream = server.dispatcher.stream_out(method, request.SerializeToString())
        try:
            ended = len([message for _, message in zip(range(taken), stream, strict=False)]) < taken
        except ps.StepNotFound:
            ended = True
        stream.close()
        until(lambda: held(server) == before)
        taken += 1
    assert taken > 2 or kind == "of nobody's step"


def test_a_reader_that_goes_before_the_engine_has_begun_holds_nothing(server: ShardServer) -> None:
    shard, before = server.shard, held(server)
    with busy_engine(shard):
        stream = shard.pull([ids_of("t", IDS)])
        stream.close()
    until(lambda: held(server) == before)
    with pytest.raises(ps.Unavailable, match="gone"):
        stream.head()
