"""The coordinator's state as metrics for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ps.wire.routing import Routing


class CoordinatorCollector(Collector):
    """Reads the coordinator's state at scrape time."""

    def __init__(self, routing: Callable[[], Routing], tables: Callable[[], int]) -> None:
        self._routing = routing
        self._tables = tables

    def collect(self) -> Iterator[Metric]:
        """Yields one metric family after the other."""
        routing = self._routing()
        shards = GaugeMetricFamily("ps_shards", "Shards by state, as the coordinator tells clients.", labels=["state"])
        for state, n in Counter(shard.state for shard in routing.shards).items():
            shards.add_metric([state], n)
        yield shards
        yield GaugeMetricFamily("ps_tables", "Tables of the service.", value=self._tables())
        yield GaugeMetricFamily("ps_routing_epoch", "Epoch of the routing table.", value=routing.epoch)
