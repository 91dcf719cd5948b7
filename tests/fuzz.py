"""What messages cost a shard: python -m tests.fuzz [MESSAGES] [SEED]

Sends messages of `tests.messages` to a shard in a process of its own, one by one, and looks at what each has cost that
process: the peak of its memory above what it had before, which the kernel keeps (VmHWM), and its CPU time. After each
one the shard answers, and its rows are as they were unless the call was acknowledged.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import ps
from benchmarks.harness.service import one_shard
from ps.client.connection.transport import GrpcTransport
from ps.errors import DeadlineExceeded, InternalError, PsError
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.methods import Method, Shape
from tests.loopback.tables import block
from tests.messages import TABLES, Maker, Sent

TIMES, SPARE_BYTES, SECONDS = 10, 10_000_000, 1.0
"""A call may cost so many times the bytes that it moves, and so many more; and so much CPU time."""
TIMEOUT_S = 3.0
RAM_BYTES = 128 << 20
IDS = np.arange(200)
WRITES = {methods.PUSH, methods.WRITE, methods.REMOVE, methods.CREATE_TABLE, methods.DROP_TABLE, methods.SET_OPTIMIZER}


@dataclass(frozen=True)
class Cost:
    """Of one call."""

    sent: Sent
    answered: int
    outcome: str
    memory: int
    cpu_s: float
    made: int = 0
    """Bytes of a table that the call has made."""

    @property
    def moved(self) -> int:
        return self.sent.nbytes + self.answered

    @property
    def times(self) -> float:
        """How many times its bytes it took beyond SPARE_BYTES."""
        return max(self.memory - SPARE_BYTES - self.made, 0) / max(self.moved, 1)

    @property
    def too_much(self) -> bool:
        return self.times > TIMES or self.cpu_s > SECONDS

    def __str__(self) -> str:
        return (
            f"{self.sent.method.name} ({self.sent.what}) of {self.sent.nbytes:,} bytes in {len(self.sent.messages)}, "
            f"{self.answered:,} back: {self.memory:,} bytes, {self.cpu_s:.2f} s: {self.outcome}"
        )


@dataclass
class Worst:
    """Of one method."""

    calls: int = 0
    answered: int = 0
    memory: int = 0
    times: float = 0.0
    cpu_s: float = 0.0
    too_much: list[Cost] = field(default_factory=list)

    def add(self, cost: Cost) -> None:
        self.calls += 1
        self.answered += cost.outcome == "OK"
        self.memory = max(self.memory, cost.memory)
        self.times = max(self.times, cost.times)
        self.cpu_s = max(self.cpu_s, cost.cpu_s)
        if cost.too_much:
            self.too_much.append(cost)


class Process:
    """A shard's, as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def begin(self) -> tuple[int, float]:
        """What it has now; from here on its peak is counted."""
        (self._folder / "clear_refs").write_text("5")
        return self._status("VmRSS:"), self._cpu_s()

    def since(self, before: tuple[int, float]) -> tuple[int, float]:
        """The peak above that, and CPU seconds."""
        return self._status("VmHWM:") - before[0], self._cpu_s() - before[1]

    def _status(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    def _cpu_s(self) -> float:
        fields = (self._folder / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Fuzz:
    """One shard, one sender, one bystander who looks at the rows."""

    def __init__(self, client: ps.Client, pid: int, seed: int) -> None:
        self._client = client
        self._process = Process(pid)
        self._transport = GrpcTransport(client.address)
        self._make = Maker(pb.Header(routing_epoch=client._session.connection.routing.epoch), seed)
        self._restore()

    def close(self) -> None:
        self._transport.close()

    def step(self) -> Cost:
        """Sends one message; fails where a row has changed that nobody was told of."""
        sent = self._make.message()
        before = self._process.begin()
        outcome, answers = self._call(sent)
        memory, cpu_s = self._process.since(before)
        made = self._made(sent.method, outcome, answers)
        cost = Cost(sent, sum(map(len, answers)), outcome, memory, cpu_s, made)
        if sent.method in WRITES and outcome in ("OK", "DeadlineExceeded"):
            self._restore()
        else:
            np.testing.assert_array_equal(self._rows(), self._expected, err_msg=str(cost))
        return cost

    def _call(self, sent: Sent) -> tuple[str, list[bytes]]:
        method, answers = sent.method, []
        try:
            if method.shape is Shape.STREAM_IN:
                answers.append(self._transport.stream_in(method, sent.messages, TIMEOUT_S))
            elif method.shape is Shape.STREAM_OUT:
                answers.extend(self._transport.stream_out(method, sent.messages[0], TIMEOUT_S))
            else:
                answers.append(self._transport.unary(method, sent.messages[0], TIMEOUT_S))
        except PsError as error:
            waits = isinstance(error, DeadlineExceeded) and method == methods.PUSH  # for the others of its round
            assert not isinstance(error, InternalError | DeadlineExceeded) or waits, (
                f"{method.name} ({sent.what}): {error!r}"
            )
            assert len(str(error)) < 3000
            return type(error).__name__, answers
        return "OK", answers

    def _made(self, method: Method, outcome: str, answers: list[bytes]) -> int:
        """A table that was made goes again; how many bytes it had."""
        if method != methods.CREATE_TABLE or outcome != "OK":
            return 0
        name = json.loads(codec.parse(control.CreateTableResponse, answers[0]).config_json)["name"]
        tables = self._client.memory_usage().get("tables", {})
        if name not in TABLES:
            self._client.drop_table(name)
        return _total(tables.get(name, 0))

    def _restore(self) -> None:
        """After a call that went through: the rows as they are now, and the tables as they were."""
        for name, config in TABLES.items():
            self._client.create_table(config, exist_ok=True)
            if not self._client.size(name):
                self._client.push(name, IDS, block(IDS))
        self._expected = self._rows()

    def _rows(self) -> np.ndarray:
        return np.stack([np.asarray(self._client.pull(name, IDS)) for name in TABLES])


def _total(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_total, value.values()))
    return int(value) if isinstance(value, int | float) else 0


@contextmanager
def fuzz(seed: int, config: ps.ServiceConfig | None = None) -> Iterator[Fuzz]:
    """A shard of its own."""
    config = config or ps.ServiceConfig(memory={"ram_bytes": RAM_BYTES}, watching={"metrics": False})
    with one_shard(config) as (client, server):
        running = Fuzz(client, server.pid, seed)
        try:
            yield running
        finally:
            running.close()


def main(messages: int = 1000, seed: int = 0) -> None:
    """Prints the worst of each method."""
    worst: dict[str, Worst] = {}
    started = time.monotonic()
    with fuzz(seed) as running:
        for number in range(messages):
            cost = running.step()
            worst.setdefault(cost.sent.method.name, Worst()).add(cost)
            if cost.too_much:
                print("TOO MUCH", number, cost, flush=True)
            if number % 5000 == 4999:
                print(f"{number + 1:,} in {time.monotonic() - started:.0f} s", flush=True)
    for name, one in sorted(worst.items()):
        print(
            f"{name:17} {one.calls:6,} calls, {one.answered:6,} answered OK; worst: {one.memory / 1e6:5.1f} MB, "
            f"{one.times:4.1f} times its bytes beyond 10 MB, {one.cpu_s:.2f} s; {len(one.too_much)} too much"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
