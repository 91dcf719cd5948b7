"""Figures of checkpoints, as metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ps.server.checkpoints.parts import Parts
from ps.server.checkpoints.service import Figures


class ServiceCheckpointCollector(Collector):
    """Figures of the checkpoints of a service, of whoever makes them: the coordinator, or the only shard."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yields one metric family after the other."""
        figures = self._figures
        yield CounterMetricFamily("ps_checkpoints", "Checkpoints that were completed.", value=figures.completed)
        yield CounterMetricFamily("ps_checkpoint_failures", "Checkpoints that failed.", value=figures.failures)
        yield _gauge(
            "ps_checkpoint_age_seconds",
            "Seconds since a checkpoint was last complete, or since this process began.",
            figures.age_s,
        )
        yield _gauge(
            "ps_checkpoint_every_seconds", "How often one is due (checkpoint.every_s); 0: never.", figures.every_s or 0
        )
        yield _gauge("ps_checkpoint_bytes", "Bytes of the last one, without what it builds on.", figures.nbytes)
        yield _gauge("ps_checkpoint_seconds", "Seconds that the last one took.", figures.seconds)


class PartCollector(Collector):
    """Figures of one shard's parts of checkpoints."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Yields one metric family after the other."""
        stats: dict[str, Any] = self._parts.stats()
        now, last = stats["under_way"] or {"done_bytes": 0, "all_bytes": 0}, stats["last"] or {"version": 0}
        yield _gauge(
            "ps_checkpoint_version", "The shard's version in the last checkpoint that it wrote.", last["version"]
        )
        yield _gauge("ps_checkpoint_done_bytes", "Bytes written of the part that is under way.", now["done_bytes"])
        yield _gauge(
            "ps_checkpoint_all_bytes", "About how many bytes that part will have; 0: unknown.", now["all_bytes"]
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
