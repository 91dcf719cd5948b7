"""Runs whole training steps of two tables, with duplicates and the skew of real tables: prepare, pull, push."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import ps
from benchmarks.harness.data import generator, gradients, random_ids, skewed
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.kernels.index.unique import segment_sum, unique
from ps.kernels.rows.rows import take

TABLES = ("user", "item")
DISTINCT_BATCHES = 8

Batch = dict[str, Ids]


def run(report: Report, sizes: Sizes) -> None:
    """Runs steps in process and over gRPC in turn, and beside them the client's share: deduplicate, expand, sum."""
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    given: list[Batch] = [{t: skewed(rng, ids_N, sizes.batch) for t in TABLES} for _ in range(DISTINCT_BATCHES)]
    grads = dict.fromkeys(TABLES, gradients(rng, sizes.batch, sizes.dim))

    def step_of(client: ps.Client) -> Callable[[Batch], None]:
        def step(ids: Batch) -> None:
            prepared = client.prepare(ids)
            prepared.pull()
            prepared.push(grads)

        return step

    def dedupe(ids: Batch) -> None:
        for table, ids_N in ids.items():
            unique_U, inverse_N, _ = unique(ids_N)
            rows_UD = np.empty((len(unique_U), sizes.dim), np.float32)
            take(rows_UD, inverse_N, np.empty((len(ids_N), sizes.dim), np.float32))
            segment_sum(grads[table], inverse_N, rows_UD)

    def batch(turn: int) -> Batch:
        return given[turn % DISTINCT_BATCHES]

    with one_shard() as (remote, _), ps.connect("inproc:") as local:
        for client in (local, remote):
            for table in TABLES:
                client.create_table(ps.TableConfig(name=table, dim=sizes.dim, optimizer=ps.RowwiseAdagrad()))
                fill(client, table, ids_N, sizes.dim, sizes.batch)
        rounds = interleave(
            sizes.rounds,
            {
                "inproc": Contender(step_of(local), batch),
                "grpc": Contender(step_of(remote), batch),
                "dedupe": Contender(dedupe, batch),
            },
        )
    for way in ("inproc", "grpc"):
        report.add(way, "steps_per_s", rounds.per_second(way, 1))
        report.add(way, "rows_per_s", rounds.per_second(way, len(TABLES) * sizes.batch))
        report.add(way, "dedupe_share", rounds.time_share("dedupe", way))
    report.add("grpc", "grpc_vs_inproc", rounds.speed_ratio("grpc", "inproc"))
