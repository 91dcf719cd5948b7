"""A panel of the dashboard, and the kinds of panels that are used more than once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
"""Columns of Grafana's grid."""

SHARD = 'cluster="$cluster", shard=~"$shard"'
RPC = f'{SHARD}, role="shard"'
"""Selects shards where the coordinator has the same metric, and leaves the coordinator out."""
TABLE = f'{SHARD}, table=~"$table"'
RAM = f'{TABLE}, purpose!="device_rows"'


def rate(counter: str, labels: str, by: str) -> str:
    """Returns an expression for a counter's rate a second, summed."""
    return f"sum by ({by}) (rate({counter}{{{labels}}}[$__rate_interval]))"


def total(counter: str, labels: str) -> str:
    """Returns an expression for a counter's rate a second, over all series."""
    return f"sum(rate({counter}{{{labels}}}[$__rate_interval]))"


@dataclass(frozen=True)
class Panel:
    """A figure over time. `queries` are expressions with their legends."""

    title: str
    text: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    stacked: bool = False
    width: int = 8
    height: int = 8
    repeat: str = ""
    """A variable; the panel is repeated for each of its values."""

    def options(self) -> dict[str, Any]:
        """Returns the settings that depend on the kind of panel."""
        if self.kind == "heatmap":
            return {"calculate": False, "yAxis": {"unit": self.unit}, "color": {"scheme": "Blues", "mode": "scheme"}}
        if self.kind == "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"}
        return {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["last"]},
            "tooltip": {"mode": "multi"},
        }

    def to_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Returns the panel as JSON for Grafana."""
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0}
        if self.kind == "timeseries":
            stacking, fill = ("normal", 40) if self.stacked else ("none", 0)
            defaults["custom"] = {"stacking": {"mode": stacking}, "fillOpacity": fill, "showPoints": "never"}
        panel: dict[str, Any] = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": self.options(),
            "targets": [
                {
                    "refId": chr(ord("A") + i),
                    "datasource": SOURCE,
                    "expr": expression,
                    "legendFormat": legend,
                    "format": "heatmap" if self.kind == "heatmap" else "time_series",
                }
                for i, (expression, legend) in enumerate(self.queries.items())
            ],
        }
        if self.repeat:
            panel |= {"repeat": self.repeat, "repeatDirection": "h", "maxPerRow": WIDTH // self.width}
        return panel


def stat(title: str, text: str, query: str, unit: str = "short") -> Panel:
    """Makes a panel with the newest value of one figure."""
    return Panel(title, text, {query: ""}, unit, kind="stat", width=4, height=4)


def by_table(title: str, text: str, counters: dict[str, str]) -> Panel:
    """Makes a panel of rows a second, by table; `what` it shows -> its counter."""
    return Panel(title, text, {rate(c, TABLE, "table"): f"{{{{table}}}}: {what}" for what, c in counters.items()})


def by_bucket(histogram: str, labels: str) -> dict[str, str]:
    """Returns the expression of a heat map."""
    return {f"sum by (le) (increase({histogram}{{{labels}}}[$__rate_interval]))": "{{le}}"}
