"""Writes embedding-ps.json beside this file: python -m deploy.grafana.generate

A test says whether the JSON is current, and asks a real Prometheus every query.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.grafana.pages import PAGES
from deploy.grafana.panel import SOURCE, WIDTH

TARGET = Path(__file__).with_name("embedding-ps.json")


def panels() -> Iterator[dict[str, Any]]:
    """Lays panels out from left to right, page by page."""
    number, y = 0, 0
    for title, page in PAGES.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(y)}
        x, y, lowest = 0, y + 1, y + 1
        for panel in page:
            width = WIDTH if panel.repeat else panel.width
            if x + width > WIDTH:
                x, y = 0, lowest
            number += 1
            yield panel.to_json(number, x, y)
            x, lowest = x + width, max(lowest, y + panel.height)
        y = lowest


def _place(y: int) -> dict[str, int]:
    return {"x": 0, "y": y, "w": WIDTH, "h": 1}


def choice(name: str, query: str) -> dict[str, Any]:
    """Returns a variable: a list of label values, one of which is chosen."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": False,
        "includeAll": False,
        "current": {},
    }


def choices(name: str, query: str, chosen: tuple[str, ...] = ("$__all",)) -> dict[str, Any]:
    """Returns a variable of which several values may be chosen."""
    current = {"text": list(chosen), "value": list(chosen)}
    return choice(name, query) | {"multi": True, "includeAll": True, "allValue": ".*", "current": current}


def dashboard() -> dict[str, Any]:
    """Returns the whole dashboard."""
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "current": {}}
    variables = [
        source,
        choice("cluster", 'label_values(up{role=~"shard|coordinator"}, cluster)'),
        choices("shard", 'label_values(up{cluster="$cluster", role="shard"}, shard)'),
        choices("table", 'label_values(ps_rows{cluster="$cluster"}, table)'),
        choices(
            "method",
            'label_values(ps_rpc_duration_seconds_count{cluster="$cluster", role="shard"}, method)',
            chosen=("Prepare", "Pull", "Push"),
        ),
    ]
    return {
        "uid": "embedding-ps",
        "title": "embedding-ps",
        "tags": ["embedding-ps"],
        "timezone": "browser",
        "schemaVersion": 38,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "graphTooltip": 1,  # the cursor's line in all panels
        "templating": {"list": variables},
        "panels": list(panels()),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(dashboard(), indent=1) + "\n")
