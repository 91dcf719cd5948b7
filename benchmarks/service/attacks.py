"""What one client can do to a shard to stop the others: python -m benchmarks.service.attacks NAME ADDRESS
METRICS_ADDRESS

A process of its own, so that it takes nothing of the honest clients' interpreter. It prints a line when it has begun,
and ends with its stdin. To add an attack: a function, and its name in ATTACKS.
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from benchmarks.service.half_calls import HalfCall
from ps.address import parse
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.sorted_ids import encode_sorted_ids

TABLE, DIM = "t", 64
"""The table that the shard has, and its dim."""
BODY_ROWS = 8_000
"""Rows of a body: 2 MB, of which half is sent."""
PULL_ROWS = 200_000
"""Rows of a pull: 51 MB of answer, for a few bytes of sorted ids."""
LOOK_S = 0.05


class Target:
    """The shard to attack, and when to stop."""

    def __init__(self, address: str, metrics_address: str) -> None:
        self.address = address
        self.metrics_address = metrics_address
        self.over = threading.Event()
        with grpc.insecure_channel(address) as channel:
            describe: Any = channel.unary_unary(methods.DESCRIBE.path)
            answer = describe(b"", timeout=10)
        epoch = control.DescribeResponse.FromString(answer).routing.epoch
        self.header = pb.Header(routing_epoch=epoch, worker_id=666)

    def keep(self, count: int, begin: Callable[[], HalfCall]) -> None:
        """Keeps so many calls open at once until the attack ends: one that is ended is begun again."""
        calls: list[HalfCall] = []
        while not self.over.wait(LOOK_S):
            calls = [call for call in calls if not call.has_ended()]
            while len(calls) < count:
                try:
                    calls.append(begin())
                except OSError:  # turned away
                    break
        for call in calls:
            call.close()

    def push_head(self, sequence: int = 1) -> bytes:
        """Returns the first message of a push of BODY_ROWS rows."""
        ids = pb.TableIds(table=TABLE, ids=np.arange(BODY_ROWS, dtype="<i8").tobytes())
        blocks = [pb.Block(encoding=pb.ENCODING_FP32, bytes=BODY_ROWS * DIM * 4)]
        shape = pb.PushedTable(table=TABLE, rows=BODY_ROWS, dim=DIM, blocks=blocks)
        head = pb.PushHead(header=self.header, sequence=sequence, ids=pb.IdSet(tables=[ids]), tables=[shape])
        return pb.PushChunk(head=head).SerializeToString()

    def pull(self) -> bytes:
        """Returns a pull of PULL_ROWS rows."""
        ids = pb.TableIds(table=TABLE, sorted_ids=encode_sorted_ids(np.arange(PULL_ROWS)))
        return pb.PullRequest(header=self.header, ids=pb.IdSet(tables=[ids])).SerializeToString()


def stalled_streams(target: Target) -> None:
    """Opens 64 pushes that send their head and then nothing, and 16 calls of each other kind that stop in the middle of
    a message."""

    def begin() -> HalfCall:
        call = HalfCall(target.address, next(kinds))
        if call.method is methods.PUSH:
            call.send(target.push_head())
        else:
            call.send(bytes(1000), upto=10)
        return call

    others = [methods.PREPARE, methods.PULL, methods.DESCRIBE, methods.STATS]
    kinds = itertools.cycle([*4 * [methods.PUSH], *others])
    target.keep(128, begin)


def stalled_bodies(target: Target) -> None:
    """Opens 16 pushes that send half of their body, again and again."""
    half = pb.PushChunk(payload=bytes(BODY_ROWS // 2 * DIM * 4)).SerializeToString()

    def begin() -> HalfCall:
        call = HalfCall(target.address, methods.PUSH)
        call.send(target.push_head())
        call.send_slowly(half)
        return call

    target.keep(16, begin)


def unread_pulls(target: Target) -> None:
    """Opens 16 pulls whose reader does not read."""

    def begin() -> HalfCall:
        call = HalfCall(target.address, methods.PULL)
        call.send(target.pull())
        call.end()
        return call

    target.keep(16, begin)


def cancelled_pulls(target: Target) -> None:
    """Starts 15 large pulls at once and cancels them at once, four times a second."""
    with grpc.insecure_channel(target.address) as channel:
        pull: Any = channel.unary_stream(methods.PULL.path)
        request = target.pull()
        while not target.over.wait(0.25):
            calls = [pull(request) for _ in range(15)]
            target.over.wait(LOOK_S)
            for call in calls:
                call.cancel()


def idle_metrics(target: Target) -> None:
    """Opens 200 connections to the metrics port that ask nothing."""
    connections: list[socket.socket] = []
    while not target.over.wait(LOOK_S):
        while len(connections) < 200:
            try:
                connections.append(socket.create_connection(parse(target.metrics_address), timeout=5))
            except OSError:
                break
    for connection in connections:
        connection.close()


def all_at_once(target: Target) -> None:
    """Runs all other attacks at once."""
    threads = [threading.Thread(target=attack, args=[target]) for attack in (*ATTACKS.values(),)[:-1]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ATTACKS: dict[str, Callable[[Target], None]] = {
    "stalled_streams": stalled_streams,
    "stalled_bodies": stalled_bodies,
    "unread_pulls": unread_pulls,
    "cancelled_pulls": cancelled_pulls,
    "idle_metrics": idle_metrics,
    "all_at_once": all_at_once,
}


def main(name: str, address: str, metrics_address: str) -> None:
    """Attacks until stdin ends."""
    target = Target(address, metrics_address)
    attack = threading.Thread(target=ATTACKS[name], args=[target])
    attack.start()
    print("begun", flush=True)
    sys.stdin.read()
    target.over.set()
    attack.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
