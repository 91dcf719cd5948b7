"""Draws the graphs of docs/operations.md: panels of the dashboard, of a service that trains, from a real Prometheus.

    python -m benchmarks.service.watch docs/img/watch.svg [SECONDS]

Two shards with a disk and little RAM; the ids are new at first, so memory fills up and rows begin to move. For the
second half of the time the trainer compresses what it sends. Needs the `prometheus` of tests/install_packages.sh.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

import ps
from benchmarks.harness.service import cluster
from benchmarks.harness.timeplot import Chart, Series, svg
from benchmarks.service.prometheus import Prometheus, prometheus
from deploy.grafana.pages import PAGES
from deploy.grafana.panel import Panel
from ps.nn.prefetch import Prefetcher
from ps.nn.sparsify.sparsifiers import TopK
from worker.data.synthetic import Synthetic
from worker.train.trainer import Trainer

PANELS = (
    *("RAM by tier and purpose", "RAM against budget", "Swap in and out", "Prepared on time, and late"),
    *("Traffic by kind and direction", "Compression"),
)
RAM_BYTES = 96 << 20
TABLE, DIM, IDS, BATCH = "ids", 64, 4_000_000, 1024
EVERY_S = 2
RATE_OVER = "8s"
DENSITY = 0.1


def main(arguments: Sequence[str]) -> None:
    """Writes the graphs: PLOT.svg [SECONDS]"""
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("usage: python -m benchmarks.service.watch PLOT.svg [SECONDS]")
    seconds = float(arguments[1]) if len(arguments) == 2 else 120.0
    Path(arguments[0]).write_text(watch(seconds), encoding="utf-8")


def watch(seconds: float) -> str:
    """Trains for so long and returns the panels as SVG."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(prometheus(folder, f"{EVERY_S}s"))
        config = ps.ServiceConfig(
            memory=ps.MemoryConfig(ram_bytes=RAM_BYTES),
            disk=ps.DiskConfig(path=folder / "rows", max_bytes=8 << 30),
            watching=ps.WatchingConfig(discovery_path=folder / "targets"),
        )
        coordinator, _ = stack.enter_context(cluster(2, config))
        source = Synthetic(rows=1 << 40, total_ids=IDS, table=TABLE)
        started = time.time()
        train(coordinator.address, source, seconds / 2)
        compressed = time.time()
        train(coordinator.address, source, seconds / 2, wire_dtype="fp16", sparsify=TopK(density=DENSITY, hold=None))
        ended = time.time()
        time.sleep(2 * EVERY_S)  # the last scrape is in
        charts = [drawn(running, panel, started, ended) for panel in panels()]
    return svg(charts, [(compressed, f"fp16, {DENSITY:.0%} of the rows")])


def train(
    address: str, source: Synthetic, seconds: float, wire_dtype: str = "fp32", sparsify: TopK | None = None
) -> None:
    """Runs a trainer of its own for so long."""
    table = ps.TableConfig(name=TABLE, dim=DIM, half_life_pushes=256)
    with ps.connect(address, wire_dtype=wire_dtype, compress_ids=sparsify is not None) as client:
        trainer = Trainer(client, source, [table], dense_lr=0.02, seed=0, sparsify=sparsify)
        end = time.monotonic() + seconds
        for batch in Prefetcher(source.batches(BATCH), trainer.embeddings):
            trainer.step(batch)
            if time.monotonic() > end:
                return


def panels() -> list[Panel]:
    """Finds the panels, in the order of PANELS."""
    by_title = {panel.title: panel for page in PAGES.values() for panel in page}
    return [by_title[title] for title in PANELS]


def drawn(running: Prometheus, panel: Panel, start: float, end: float) -> Chart:
    """Returns a panel's series over the time."""
    series = []
    for expression, legend in panel.queries.items():
        asked = expression.replace("$__rate_interval", RATE_OVER).replace("$cluster", "default")
        asked = asked.replace("$shard", ".*").replace("$table", ".*")
        for found in running.query_range(asked, start, end, EVERY_S):
            points = [(float(at), float(value)) for at, value in found["values"]]
            series.append(Series(named(legend, found["metric"]), [p for p in points if p[1] == p[1]]))
    return Chart(panel.title, panel.unit, series, panel.stacked)


def named(legend: str, labels: dict[str, str]) -> str:
    """Fills labels into a legend: "{{table}}: up" becomes "ids: up"."""
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend)


if __name__ == "__main__":
    main(sys.argv[1:])
