"""Pulls and pushes one batch over gRPC, with one shard in a process of its own and one client in this one.

In the same rounds: empty echoes of the same bytes, plain and tuned, and raw TCP of the rows alone. Two forms: one-shot,
which carries the ids, and step, whose ids the shard has been told before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ps
from benchmarks.harness.data import batches, generator, gradients, random_ids
from benchmarks.harness.measure import Contender, Rounds, interleave, rss_bytes
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard, prepared
from benchmarks.harness.sizes import Sizes
from benchmarks.wire.loopback import GrpcEcho, PlainEcho, TcpEcho, messages, touched

TABLE = "t"
STEP_BYTES = 32
"""Bytes of a request that names a step, about."""
STATE_FLOATS = 1
"""Floats of state beside a row's value: row-wise Adagrad has one."""


@dataclass(frozen=True)
class _Setting:
    client: ps.Client
    echo: GrpcEcho
    plain: PlainEcho
    tcp: TcpEcho


def pull(report: Report, sizes: Sizes) -> None:
    """Pulls rows of random ids."""
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    ids = batches(rng, ids_N, sizes.batch)
    ids_bytes, rows_bytes = sizes.batch * 8, sizes.batch * sizes.dim * 4
    few, rows = touched(STEP_BYTES), touched(rows_bytes)
    with _setting(report, sizes) as setting:
        client, echo, tcp = setting.client, setting.echo, setting.tcp
        by_ids, by_step = echo.request(ids_bytes, rows_bytes), echo.request(STEP_BYTES, rows_bytes)
        rounds = interleave(
            sizes.rounds,
            {
                "one_shot": Contender(lambda part_N: client.pull(TABLE, part_N), ids),
                "one_shot_echo": Contender(lambda _: setting.plain.pull(ids_bytes, rows_bytes)),
                "one_shot_tuned_echo": Contender(lambda _: echo.pull(by_ids)),
                "step": Contender(lambda step: step.pull(), lambda i: prepared(client, {TABLE: ids(i)})),
                "step_echo": Contender(lambda _: setting.plain.pull(STEP_BYTES, rows_bytes)),
                "step_tuned_echo": Contender(lambda _: echo.pull(by_step)),
                "tcp": Contender(lambda _: tcp.exchange(few, rows)),
            },
        )
    _add(report, sizes, rounds)


def push(report: Report, sizes: Sizes) -> None:
    """Pushes gradients of random ids, all of which have rows."""
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    ids = batches(rng, ids_N, sizes.batch)
    grads_ND = gradients(rng, sizes.batch, sizes.dim)
    ids_bytes, rows_bytes = sizes.batch * 8, sizes.batch * sizes.dim * 4
    few, rows = touched(STEP_BYTES), touched(rows_bytes)
    with _setting(report, sizes) as setting:
        client, echo, tcp = setting.client, setting.echo, setting.tcp
        by_ids, by_step = messages(ids_bytes + rows_bytes), messages(STEP_BYTES + rows_bytes)
        rounds = interleave(
            sizes.rounds,
            {
                "one_shot": Contender(lambda part_N: client.push(TABLE, part_N, grads_ND), ids),
                "one_shot_echo": Contender(lambda _: setting.plain.push(ids_bytes + rows_bytes)),
                "one_shot_tuned_echo": Contender(lambda _: echo.push(by_ids)),
                "step": Contender(
                    lambda step: step.push({TABLE: grads_ND}), lambda i: prepared(client, {TABLE: ids(i)})
                ),
                "step_echo": Contender(lambda _: setting.plain.push(STEP_BYTES + rows_bytes)),
                "step_tuned_echo": Contender(lambda _: echo.push(by_step)),
                "tcp": Contender(lambda _: tcp.exchange(rows, few)),
            },
        )
    _add(report, sizes, rounds)


def _add(report: Report, sizes: Sizes, rounds: Rounds) -> None:
    for form in ("one_shot", "step"):
        report.add(form, "rows_per_s", rounds.per_second(form, sizes.batch))
        report.add(form, "vs_echo", rounds.speed_ratio(form, f"{form}_echo"))
        report.add(form, "vs_tuned_echo", rounds.speed_ratio(form, f"{form}_tuned_echo"))
        report.add(form, "vs_tcp", rounds.speed_ratio(form, "tcp"))
    for name in ("one_shot_echo", "one_shot_tuned_echo", "step_echo", "step_tuned_echo", "tcp"):
        report.add(name, "rows_per_s", rounds.per_second(name, sizes.batch))


@contextmanager
def _setting(report: Report, sizes: Sizes) -> Iterator[_Setting]:
    """Makes a full table, and beside it the echoes. Reports the memory that the table takes."""
    ids_N = random_ids(generator(), sizes.rows)
    with one_shard() as (client, server), GrpcEcho() as echo, PlainEcho() as plain, TcpEcho() as tcp:
        for name in ("first", TABLE):
            client.create_table(ps.TableConfig(name=name, dim=sizes.dim, optimizer=ps.RowwiseAdagrad()))
        fill(client, "first", ids_N[: sizes.batch], sizes.dim, sizes.batch)  # pages in what any push needs once
        client.drop_table("first")
        before = rss_bytes(server.pid)
        fill(client, TABLE, ids_N, sizes.dim, sizes.batch)
        grown = rss_bytes(server.pid) - before
        row_bytes = (sizes.dim + STATE_FLOATS) * 4
        used = client.memory_usage()["tables"][TABLE]["hot"]
        for purpose, n in used.items():
            report.add("memory", f"{purpose}_bytes_per_row", n / sizes.rows)
        report.add("memory", "beyond_row_bytes_per_row", sum(used.values()) / sizes.rows - row_bytes)
        report.add("memory", "rss_growth_bytes_per_row", grown / sizes.rows)
        yield _Setting(client, echo, plain, tcp)
