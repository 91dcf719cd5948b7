"""What a row costs as a table grows and as shards are added, with dim 16, so that ten million rows fit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import ps
from benchmarks.harness.data import batches, generator, gradients, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard, shards
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids

DIM = 16
SHARDS = (1, 2, 4)


def run(report: Report, sizes: Sizes) -> None:
    """Measures tables of all sizes on one shard, then services of all sizes side by side."""
    _rows(report, sizes)
    _shards(report, sizes)


def _rows(report: Report, sizes: Sizes) -> None:
    rng = generator()
    batch = min(sizes.batch, sizes.scale_rows[0])
    grads_ND = gradients(rng, batch, DIM)
    contenders = {}
    with one_shard() as (client, _):
        for rows in sizes.scale_rows:
            name = f"rows_{rows}"
            ids_N = random_ids(rng, rows)
            client.create_table(ps.TableConfig(name=name, dim=DIM))
            fill(client, name, ids_N, DIM, batch)
            ids = batches(rng, ids_N, batch)
            contenders[f"pull {name}"] = Contender(_pull(client, name), ids)
            contenders[f"push {name}"] = Contender(_push(client, name, grads_ND), ids)
        rounds = interleave(sizes.rounds, contenders)
    for call in ("pull", "push"):
        smallest = f"{call} rows_{sizes.scale_rows[0]}"
        for rows in sizes.scale_rows:
            name = f"{call} rows_{rows}"
            case = name.replace(" ", "_")
            report.add(case, "nanoseconds_per_row", [s / batch * 1e9 for s in rounds.seconds[name]])
            report.add(case, "cost_vs_smallest", rounds.speed_ratio(smallest, name))


def _shards(report: Report, sizes: Sizes) -> None:
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    ids = batches(rng, ids_N, sizes.batch)
    grads_ND = gradients(rng, sizes.batch, DIM)
    contenders = {}
    with ExitStack() as stack:
        for count in SHARDS:
            client = stack.enter_context(shards(count))
            client.create_table(ps.TableConfig(name="t", dim=DIM))
            fill(client, "t", ids_N, DIM, sizes.batch)
            contenders[f"pull shards_{count}"] = Contender(_pull(client, "t"), ids)
            contenders[f"push shards_{count}"] = Contender(_push(client, "t", grads_ND), ids)
        rounds = interleave(sizes.rounds, contenders)
    for call in ("pull", "push"):
        for count in SHARDS:
            name = f"{call} shards_{count}"
            case = name.replace(" ", "_")
            report.add(case, "rows_per_s", rounds.per_second(name, sizes.batch))
            report.add(case, "speed_vs_one_shard", rounds.speed_ratio(name, f"{call} shards_1"))


def _pull(client: ps.Client, table: str) -> Callable[[Ids], object]:
    return lambda ids_N: client.pull(table, ids_N)


def _push(client: ps.Client, table: str, grads_ND: object) -> Callable[[Ids], object]:
    return lambda ids_N: client.push(table, ids_N, grads_ND)
