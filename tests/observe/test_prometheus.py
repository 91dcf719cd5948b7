"""A real Prometheus, set up as deploy/ says, scrapes two shard processes while they train."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest
import yaml

import ps
from benchmarks.harness.processes import Child
from benchmarks.harness.service import cluster
from benchmarks.service.prometheus import DEPLOY, BadQuery, NotInstalled, Prometheus, prometheus
from deploy.grafana.generate import TARGET, dashboard
from tests.waiting import until

EVERY = "500ms"
RATE_OVER = "5s"
DIM = 16
ROWS = 4096
TABLES = [
    ps.TableConfig(name="swapped", dim=DIM, half_life_pushes=64),
    ps.TableConfig(name="half", dim=DIM, half_life_pushes=64, cold=ps.Fp16()),
    ps.TableConfig(name="cores", dim=DIM, half_life_pushes=64, cold=ps.TensorTrain(rows=10 * ROWS, hot_rows=64)),
    ps.TableConfig(name="bounded", dim=DIM, admission=ps.CountThreshold(min_count=2), max_rows_per_shard=500),
    ps.TableConfig(name="device", dim=DIM, device="torch-cpu"),
]
"""Between them every tier, and everything that happens to rows."""


@dataclass(frozen=True)
class Watched:
    """A service in training, and who watches it."""

    prometheus: Prometheus
    shards: list[Child]
    end_training: Callable[[], None]


def train(address: str, stop: threading.Event) -> None:
    """Steps over all tables; rows that were not prepared, and a call that fails, now and then."""
    rng = np.random.default_rng(6)
    with ps.connect(address) as client:
        for table in TABLES:
            client.create_table(table)
        while not stop.is_set():
            ids = {table.name: np.unique(rng.integers(0, ROWS, 512)) for table in TABLES}
            step = client.prepare(ids)
            rows = step.pull()
            step.push({name: 0.01 * rows[name] for name in ids})
            client.pull("swapped", rng.integers(0, ROWS, 64))
            with pytest.raises(ps.TableNotFound):
                client.pull("absent", [1])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    config = ps.ServiceConfig(
        memory={"ram_bytes": 1 << 30, "gpu_bytes": 1 << 28},
        disk={"max_bytes": 1 << 30, "path": folder / "rows"},
        watching={"discovery_path": folder / "targets"},
    )
    stop = threading.Event()
    with ExitStack() as stack:
        try:
            running = stack.enter_context(prometheus(folder, EVERY, wait="1s"))
        except NotInstalled as reason:
            pytest.skip(str(reason))
        coordinator, shards = stack.enter_context(cluster(2, config))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(stop.set)
        training = pool.submit(train, coordinator.address, stop)

        def end_training() -> None:
            stop.set()
            training.result(60)

        yield Watched(running, shards, end_training)
        end_training()


def has_data(running: Prometheus, expression: str) -> bool:
    """A figure, and not 0/0. Raises BadQuery."""
    return any(not math.isnan(float(sample["value"][1])) for sample in running.query(expression))


def answer_in_time(running: Prometheus, expressions: dict[str, str]) -> None:
    """Every one returns data; fails with those that do not. name -> expression."""
    missing = dict(expressions)

    def all_answer() -> bool:
        for name, expression in list(missing.items()):
            if has_data(running, expression):
                del missing[name]
        return not missing

    try:
        until(all_answer)
    except AssertionError:
        pytest.fail(f"no data for {json.dumps(missing, indent=1)}")


def queries() -> dict[str, str]:
    """Of all panels, for every cluster, shard and table; "panel, query" -> expression."""
    found = {}
    for panel in json.loads(TARGET.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", RATE_OVER).replace("$cluster", "default")
            for method in ("Pull", "Push", "Prepare") if "$method" in expression else ("",):
                asked = expression.replace("$method", method).replace("$shard", ".*").replace("$table", ".*")
                found[f"{panel['title']}, {target['refId']} {method}"] = asked
    return found


def rules(name: str) -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load((DEPLOY / name).read_text())["groups"] for rule in group["rules"]]


def test_the_dashboard_is_what_its_generator_writes() -> None:
    assert json.loads(TARGET.read_text()) == dashboard(), "python -m deploy.grafana.generate"


def test_every_query_of_every_panel_returns_data(watched: Watched) -> None:
    asked = queries()
    assert len(asked) > 50
    assert not [expression for expression in asked.values() if "$" in expression], "a variable was not filled in"
    answer_in_time(watched.prometheus, asked)


def test_the_variables_of_the_dashboard_have_values(watched: Watched) -> None:
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert match is not None
            selector, label = match[1].replace("$cluster", "default"), match[2]
            answer_in_time(watched.prometheus, {variable["name"]: f"count by ({label}) ({selector})"})


def test_every_recorded_series_is_there(watched: Watched) -> None:
    names = {rule["record"] for rule in rules("rules.yml")}
    answer_in_time(watched.prometheus, {name: name for name in names})


def test_every_series_that_an_alert_asks_for_is_there(watched: Watched) -> None:
    selector = re.compile(r"(?:[a-z]+:ps_\w+:\w+|ps_\w+|\bup)(?:\{[^}]*\})?")
    selectors = {found for rule in rules("alerts.yml") for found in selector.findall(rule["expr"])}
    assert {'up{role="shard"}', "ps_state_lost"} <= selectors
    answer_in_time(watched.prometheus, {name: name for name in selectors})


def test_prometheus_evaluates_every_rule(watched: Watched) -> None:
    def health() -> dict[str, str]:
        groups = watched.prometheus.get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    until(lambda: set(health().values()) == {"ok"})
    assert {rule["alert"] for rule in rules("alerts.yml")} <= set(health())


def test_a_query_that_is_wrong_is_told(watched: Watched) -> None:
    """Else the tests above would prove nothing."""
    with pytest.raises(BadQuery):
        watched.prometheus.query("sum by (")
    assert not has_data(watched.prometheus, "ps_no_such_metric")


def test_a_shard_that_is_killed_is_told_by_an_alert(watched: Watched) -> None:
    """The last test of this module: training ends here."""

    def firing(alert: str) -> list[str]:
        found = watched.prometheus.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
        return [sample["metric"].get("shard", "") for sample in found]

    assert firing("ShardDown") == []
    watched.end_training()
    os.kill(watched.shards[1].pid, signal.SIGKILL)
    until(lambda: firing("ShardDown") == ["1"])
    assert firing("CoordinatorDown") == []
