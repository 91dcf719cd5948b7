"""Prometheus metrics of one server, on a registry of its own.

RPC figures are counted as calls end. Everything else is plain integers of the shard, read when Prometheus asks: hot
loops do not use this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ps.config import ServiceConfig
from ps.counting import declared
from ps.durability.log.counters import LogCounters
from ps.shard import Shard
from ps.shard.staleness import BOUNDS
from ps.storage.tier import Traffic
from ps.table.counters import Counters

FLOAT_BYTES = 4
ALARMING = ("INTERNAL", "DATA_LOSS")
"""Codes that a healthy shard never answers with."""
_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RpcMetrics:
    """Counts calls, seconds and bytes by method; bytes by kind too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_code = ["method", "code"]
        self.calls = Counter("ps_rpc", "Calls answered.", by_code, registry=registry)
        self.seconds = Histogram(
            "ps_rpc_duration_seconds",
            "Seconds from the first byte of a call to its last.",
            by_code,
            registry=registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        by_kind = ["method", "kind"]  # of `ps.wire.kinds`
        self.received = Counter("ps_rpc_received_bytes", "Bytes of messages received.", by_kind, registry=registry)
        self.sent = Counter("ps_rpc_sent_bytes", "Bytes of messages sent.", by_kind, registry=registry)
        self.active = Gauge("ps_rpc_active", "Calls in progress, which limits.max_requests bounds.", registry=registry)

    def expect(self, methods: Iterable[str]) -> None:
        """Creates the counters that should stay 0, because Prometheus sees a counter rise, but not one appear."""
        for method in methods:
            for code in ALARMING:
                self.calls.labels(method, code)

    def traffic(self) -> dict[str, dict[str, int]]:
        """Returns the calls, and the bytes of their messages, since the start, by method."""
        found = {"calls": self.calls, "received_bytes": self.received, "sent_bytes": self.sent}
        return {name: _by_method(counter) for name, counter in found.items()}


class ShardCollector(Collector):
    """Reads the shard's counters at scrape time. All of them are of one moment: now or, while the engine is busy with
    one task for long, the time of the last reading."""

    def __init__(self, shard: Shard, config: ServiceConfig, state_lost: Callable[[], str | None]) -> None:
        """config: the shard's configuration. state_lost: returns why the shard refuses calls, if it does."""
        self._shard = shard
        self._budgets = {"ram": config.memory.ram_bytes, "gpu": config.memory.gpu_bytes, "disk": config.disk.max_bytes}
        self._state_lost = state_lost

    def collect(self) -> Iterator[Metric]:
        """Yields one metric family after the other."""
        stats = self._shard.stats()
        yield _gauge("ps_stats_age_seconds", "Age of the shard's figures: 0 unless the shard is busy.", stats["age_s"])
        yield from self._tables(stats)
        yield from self._engine()
        yield _counter("ps_writes", "Writes of any kind that were carried out: the shard's version.", stats["version"])
        yield _counter("ps_pushes", "Pushes applied.", stats["pushes"])
        yield _counter(
            "ps_pushes_repeated", "Retried writes that were answered from the ledger.", stats["repeated_pushes"]
        )
        yield _counter("ps_steps_prepared", "Steps prepared.", stats["steps_prepared"])
        yield _counter("ps_steps_expired", "Steps that expired unused.", stats["steps_expired"])
        yield _gauge(
            "ps_state_lost", "1 if the shard was restarted and its rows are gone.", int(self._state_lost() is not None)
        )
        yield _gauge("ps_poisoned", "1 since a write failed half-way.", int(stats["poisoned"] is not None))
        yield from _log(stats["log"])
        yield _budgets(self._budgets)
        yield from _disk(stats)
        yield _gauge("ps_steps_held", "Steps prepared and not yet pushed.", stats["steps_held"])
        memory = GaugeMetricFamily("ps_process_bytes", "Bytes held outside the tables.", labels=["purpose"])
        for purpose, n in _mapping(stats["bytes"]).items():
            memory.add_metric([purpose], n)
        yield memory
        yield self._staleness()

    def _tables(self, stats: dict[str, Any]) -> Iterator[Metric]:
        rows = GaugeMetricFamily("ps_rows", "Rows that exist.", labels=["table", "tier"])
        held = GaugeMetricFamily("ps_bytes", "Bytes committed.", labels=["table", "tier", "purpose"])
        counters = dict(_families(Counters))
        plain = CounterMetricFamily(
            "ps_plain_bytes", "Bytes that rows and gradients would take in float32.", labels=["table", "direction"]
        )
        for name, table in stats["tables"].items():
            for direction, rows_key in (("sent", "rows_read"), ("received", "rows_pushed")):
                plain.add_metric([name, direction], table[rows_key] * table["dim"] * FLOAT_BYTES)
            for tier, n in table["rows"].items():
                rows.add_metric([name, tier], n)
            for tier, purposes in table["bytes"].items():
                for purpose, n in purposes.items():
                    held.add_metric([name, tier, purpose], n)
            for key, counter in counters.items():
                counter.add_metric([name], table[key])
        yield from (rows, held, plain, *counters.values())

    def _engine(self) -> Iterator[Metric]:
        engine = self._shard.engine
        yield _gauge("ps_engine_queue_length", "Tasks that wait for the engine thread.", engine.queue_length)
        yield _counter("ps_engine_tasks", "Tasks done by the engine thread.", engine.tasks_done)
        yield _counter("ps_engine_wait_seconds", "Seconds that tasks waited for the engine thread.", engine.wait_s)
        yield _counter("ps_engine_busy_seconds", "Seconds that the engine thread worked.", engine.busy_s)

    def _staleness(self) -> Metric:
        seen = self._shard.staleness
        counted, buckets = 0, []
        for bound, n in zip([*map(str, BOUNDS), "+Inf"], seen.buckets, strict=True):
            counted += n
            buckets.append((bound, counted))
        family = HistogramMetricFamily(
            "ps_push_staleness", "Pushes that the shard applied between a pull and its push."
        )
        family.add_metric([], buckets, sum_value=seen.total)
        return family


def _families(counters: type[Any]) -> Iterator[tuple[str, CounterMetricFamily]]:
    """Yields the metrics that a class of counters declares, each with its key in the stats of a table."""
    for each in declared(counters):
        if each.metric is not None:
            yield each.name, CounterMetricFamily(each.metric, each.help, labels=["table"])


def _disk(stats: dict[str, Any]) -> Iterator[Metric]:
    """Yields metrics of the whole disk, then those of each table's traffic; without a disk only the first two."""
    yield _gauge(
        "ps_degraded",
        "1 while the disk refuses rows or reads, or the work after writes fails.",
        _flag(stats),
    )
    errors = CounterMetricFamily(
        "ps_disk_errors", "Reads that failed, and writes that were refused.", labels=["operation"]
    )
    for operation, n in _mapping(stats["disk_errors"]).items():
        errors.add_metric([operation], n)
    yield errors
    if stats["disk_bytes"] is None:
        return
    yield _gauge("ps_disk_bytes", "Bytes of files on disk.", stats["disk_bytes"])
    for key, family in _families(Traffic):
        for table, figures in stats["tables"].items():
            family.add_metric([table], figures["disk"][key])
        yield family


def _log(stats: Any) -> Iterator[Metric]:
    """Yields figures of the log, given its stats; without a log only that it has not failed."""
    yield _gauge("ps_log_failed", "1 since the log could not be written.", int(bool(stats and stats["failed"])))
    if stats is None:
        return
    yield _gauge("ps_log_bytes", "Bytes of the log's files.", stats["nbytes"])
    for each in declared(LogCounters):
        if each.metric is not None:
            yield _counter(each.metric, each.help, stats[each.name])


def _budgets(given: Mapping[str, int | None]) -> Metric:
    """Returns the budgets by kind. A kind without a bound has no entry."""
    family = GaugeMetricFamily("ps_budget_bytes", "Bytes that the configuration lets the shard take.", labels=["kind"])
    for kind, n in given.items():
        if n is not None:
            family.add_metric([kind], n)
    return family


def _by_method(counter: Counter) -> dict[str, int]:
    total: dict[str, int] = {}
    for sample in next(iter(counter.collect())).samples:
        if sample.name.endswith("_total"):
            method = sample.labels["method"]
            total[method] = total.get(method, 0) + int(sample.value)
    return total


def _flag(stats: dict[str, Any]) -> int:
    return int(stats["degraded"] is not None)


def _mapping(value: object) -> dict[str, int]:
    assert isinstance(value, dict)
    return value


def _counter(name: str, text: str, value: object) -> Metric:
    assert isinstance(value, int | float)
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: object) -> Metric:
    assert isinstance(value, int | float)
    return GaugeMetricFamily(name, text, value=value)
