"""Measures the wire alone: the least time that a pull and a push of one batch could take."""

from __future__ import annotations

from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.wire.loopback import GrpcEcho, TcpEcho, messages, touched


def run(report: Report, sizes: Sizes) -> None:
    """Sends ids out and rows in as a pull does, and both out as a push does."""
    ids, rows = sizes.batch * 8, sizes.batch * sizes.dim * 4
    with GrpcEcho() as echo, TcpEcho() as tcp:
        request, body = echo.request(ids, rows), messages(ids + rows)
        few, some, many, both = touched(16), touched(ids), touched(rows), touched(ids + rows)
        rounds = interleave(
            sizes.rounds,
            {
                "grpc_pull": Contender(lambda _: echo.pull(request)),
                "grpc_push": Contender(lambda _: echo.push(body)),
                "tcp_pull": Contender(lambda _: tcp.exchange(some, many)),
                "tcp_push": Contender(lambda _: tcp.exchange(both, few)),
            },
        )
    for name in rounds.seconds:
        report.add(name, "gb_per_s", rounds.per_second(name, (ids + rows) / 1e9))
        report.add(name, "rows_per_s", rounds.per_second(name, sizes.batch))
    for shape in ("pull", "push"):
        report.add(f"grpc_{shape}", "grpc_vs_tcp", rounds.speed_ratio(f"grpc_{shape}", f"tcp_{shape}"))
