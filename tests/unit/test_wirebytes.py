"""What `wirebytes` counts with: sockets, messages by kind, and the arithmetic bound."""

from __future__ import annotations

import math
import socket

import numpy as np
import pytest

import ps
from benchmarks.wire import bounds as wirebounds
from benchmarks.wire import kinds as wirekinds
from benchmarks.wire.clicks import Clicks
from benchmarks.wire.tcp import tcp_bytes
from ps.server.shard_server import ShardServer
from ps.v1 import embedding_pb2 as pb
from ps.wire import encodings


def receive(connection: socket.socket, size: int) -> None:
    while size:
        size -= len(connection.recv(size))


def test_the_kernel_counts_both_ways_and_only_the_port_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours, server.accept()[0] as theirs:
            before = tcp_bytes(port)
            ours.sendall(bytes(70_000))
            receive(theirs, 70_000)
            theirs.sendall(bytes(300))
            receive(ours, 300)
            assert tcp_bytes(port) - before == 70_300
            assert tcp_bytes(theirs.getpeername()[1]) - 70_300 in (0, 1)  # theirs; the handshake may count as a byte
            unused = 1
            assert tcp_bytes(unused) == 0


def test_the_last_push_and_kinds_since_the_last_time() -> None:
    tally = wirekinds.Tally()
    ids_U = np.array([5, 9, 70_000], np.int64)
    counts_U = np.array([1, 2, 3], np.uint32)
    with (
        ShardServer(0, ps.ServiceConfig()) as server,
        wirekinds.connect(server.address, tally, wire_dtype="fp16", compress_ids=True) as client,
    ):
        client.create_table(ps.TableConfig(name="t", dim=4))
        step = client.prepare({"t": ids_U}, counts={"t": counts_U})
        step.pull_rows()
        step.push({"t": ps.Selected(np.array([1]), np.ones((1, 4), np.float32))})
    sent = wirebounds.sent(tally.push_head.tables[0], tally.push_body)
    kinds = tally.take()
    assert (kinds["flags"], kinds["rows"], kinds["gradients"]) == (1, 3 * 4 * 2, 4 + 4 * 2)
    assert 3 < kinds["ids"] < 3 * 9, "of the step alone, and with their counts"
    assert sent == wirebounds.Sent(rows=1, values=4, by_elements=False, number_bytes=8)
    assert not tally.take()


def test_what_was_sent_by_elements_is_read_from_the_bytes() -> None:
    grads_RD = np.array([[1, 0, 2, 0], [0, 0, 0, 1e-12]], np.float32)  # the last is 0 as fp16, and sent
    body = bytes(encodings.encode(ps.Selected(np.array([0, 2]), grads_RD, True), pb.ENCODING_ELEMENTS_FP16, 3))
    shape = pb.PushedTable(rows=3, dim=4, blocks=[pb.Block(encoding=pb.ENCODING_ELEMENTS_FP16, bytes=len(body))])
    found = wirebounds.sent(shape, body)
    assert (found.rows, found.by_elements) == (2, True)
    assert found.values in (3, 4)  # padding to 4 bytes looks like one more


def test_a_choice_takes_the_logarithm_of_how_many_there_are() -> None:
    assert wirebounds.choice_bytes(50, 7) == pytest.approx(math.log2(math.comb(50, 7)) / 8)
    assert wirebounds.choice_bytes(9, 9) == pytest.approx(0, abs=1e-9)


def test_bounds_are_below_what_is_sent() -> None:
    sent = wirebounds.Sent(rows=10, values=640, by_elements=False, number_bytes=1280)
    assert wirebounds.gradients_bound(sent, 100, 64) == pytest.approx(1280 + math.log2(math.comb(100, 10)) / 8)
    exists_U = np.array([True] * 4)
    even = wirebounds.reads_bound(1000, np.array([1, 1, 2, 2]), exists_U, rows=32)
    assert even == pytest.approx(math.log2(math.comb(1000, 4)) / 8 + 4 / 8 + 32)


def test_clicks_are_the_same_again_and_within_the_table() -> None:
    clicks = Clicks(10_000, 26 * 40 + 25)
    first, again = clicks.batch(3), clicks.batch(3)
    ids = {name: bags.ids.numpy() for name, bags in first.sparse.items()}
    assert all(np.array_equal(ids_B, again.sparse[name].ids.numpy()) for name, ids_B in ids.items())
    assert len(first) == 40
    everything = np.concatenate(list(ids.values()))
    assert everything.min() >= 0
    assert everything.max() < 10_000
    sets = [set(ids_B.tolist()) for ids_B in ids.values()]
    assert sum(map(len, sets)) == len(set().union(*sets))
