"""Tells Prometheus where the service's metrics are, by a file of targets that is kept current (its `file_sd_configs`).

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from ps.wire.routing import Routing

log = logging.getLogger(__name__)


def targets(service: str, routing: Routing, coordinator: str) -> list[dict[str, object]]:
    """Returns a group for each endpoint. A shard keeps its labels wherever it comes back, so that its series go on; one
    that is down stays in the file, so that its alert fires. `coordinator` is the address of its metrics, "" for
    none."""
    found = [
        (shard.metrics_address, {"cluster": service, "role": "shard", "shard": str(shard.shard_id)})
        for shard in routing.shards
    ]
    found.append((coordinator, {"cluster": service, "role": "coordinator"}))
    return [{"targets": [address], "labels": labels} for address, labels in found if address]


class Discovery:
    """Keeps the file of one service, `SERVICE.json` in a folder. An error is only logged: training does not wait for
    monitoring. Not thread-safe."""

    def __init__(self, folder: Path, service: str) -> None:
        self._service = service
        self.path = folder.expanduser() / f"{service}.json"

    def write(self, routing: Routing, coordinator: str) -> None:
        """Replaces the file atomically: Prometheus reads it whenever it changes."""
        fresh = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(
                json.dumps(targets(self._service, routing, coordinator), indent=2) + "\n", encoding="utf-8"
            )
            fresh.chmod(0o644)
            fresh.replace(self.path)
        except OSError as error:
            log.error("Prometheus is not told where the shards are: %s (watching.discovery_path)", error)

    def remove(self) -> None:
        """Removes the file when the service has ended: nothing must be scraped any more, and no alert must fire."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.error("Prometheus is not told that the service has ended: %s (watching.discovery_path)", error)
