"""What a shard's metrics endpoint says, read as Prometheus reads it."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from ps.server.shard_server import ShardServer

Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: ShardServer) -> Scrape:
    return scrape_at(server.metrics_address)


def scrape_at(metrics_address: str) -> Scrape:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past http_proxy
    with direct.open(f"http://{metrics_address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Scrape, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def labels_by_name(found: Scrape) -> dict[str, set[str]]:
    """Without the figures that Prometheus clients add by themselves."""
    names: dict[str, set[str]] = {}
    for name, labels in found:
        if not name.startswith("process_") and not name.endswith(("_created", "_sum", "_count")):
            names.setdefault(name, set()).update(label for label, _ in labels)
    return names
