"""What a step costs that is spread over many shards: each call has a few rows, as in a service of a thousand nodes.

Shards, coordinator and client are in this process, so that its CPU time is that of both ends of all calls: a figure
that other work on the machine hardly moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

import ps
from benchmarks.harness.data import generator, gradients, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.cluster.coordinator.coordinator import Coordinator
from ps.server.shard_server import ShardServer

Grads = npt.NDArray[np.float32]

SHARDS = (1, 4, 16)
IDS = 1_000
"""Ids of a step, over all shards."""
CALLS = 3
"""Calls of a step to every shard: prepare, pull and push."""


def run(report: Report, sizes: Sizes) -> None:
    """Runs the same step over services of all sizes."""
    rng = generator()
    ids_N, grads_ND = random_ids(rng, IDS), gradients(rng, IDS, sizes.dim)
    with ExitStack() as stack:
        clients = {count: _service(stack, count, sizes.dim) for count in SHARDS}
        contenders = {f"shards_{n}": Contender(_stepping(client, ids_N, grads_ND)) for n, client in clients.items()}
        rounds = interleave(sizes.rounds, contenders)
        cpu_s = {count: _cpu(client, ids_N, grads_ND, sizes.rounds) for count, client in clients.items()}
    for count in SHARDS[1:]:
        calls = CALLS * (count - 1)
        report.add(f"shards_{count}", "time_vs_one_shard", rounds.time_share(f"shards_{count}", "shards_1"))
        more_s = np.subtract(cpu_s[count], cpu_s[1])
        report.add(f"shards_{count}", "cpu_us_a_call_more", [s / calls * 1e6 for s in more_s])


def _service(stack: ExitStack, count: int, dim: int) -> ps.Client:
    config = ps.ServiceConfig(watching=ps.WatchingConfig(metrics=False))
    servers = [stack.enter_context(ShardServer(i, config, alone=False)) for i in range(count)]
    coordinator = Coordinator(config)
    stack.callback(coordinator.stop)
    routing = coordinator.assemble([server.info for server in servers])
    for server in servers:
        server.set_routing(routing)
    client = stack.enter_context(ps.connect(coordinator.address))
    client.create_table(ps.TableConfig(name="t", dim=dim))
    return client


def _stepping(client: ps.Client, ids_N: Ids, grads_ND: Grads) -> Callable[[int], None]:
    return lambda _: _step(client, ids_N, grads_ND)


def _step(client: ps.Client, ids_N: Ids, grads_ND: Grads) -> None:
    step = client.prepare({"t": ids_N})
    step.pull()
    step.push({"t": grads_ND})


def _cpu(client: ps.Client, ids_N: Ids, grads_ND: Grads, rounds: int) -> list[float]:
    """Returns the CPU seconds of this process for each step."""
    marks = [time.process_time()]
    for _ in range(rounds):
        _step(client, ids_N, grads_ND)
        marks.append(time.process_time())
    return np.diff(marks).tolist()
