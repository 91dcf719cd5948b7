"""The metrics of a shard with a disk, over HTTP: what moves with rows that go down and come up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.counting import declared
from ps.durability.log.counters import LogCounters
from ps.server.shard_server import ShardServer
from tests.conftest import StartServer
from tests.loopback.scrape import Scrape, labels_by_name, scrape, value
from tests.loopback.tables import DIM, block
from tests.loopback.test_server import DOCUMENTED
from tests.waiting import until

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
IDS = np.arange(200)
ROW = DIM * 4
VALUE = 13 + ROW
"""Header and row."""
DISK_BYTES = 1 << 30

DOCUMENTED_WITH_DISK = DOCUMENTED | {
    "ps_budget_bytes": {"kind"},
    "ps_disk_bytes": set(),
    "ps_disk_rows_read_total": {"table"},
    "ps_disk_rows_written_total": {"table"},
    "ps_disk_read_bytes_total": {"table"},
    "ps_disk_written_bytes_total": {"table"},
}


DOCUMENTED_WITH_LOG = {
    "ps_log_bytes": set(),
    **{f"{each.metric}_total": set() for each in declared(LogCounters) if each.metric},
}
COORDINATORS = {"ps_shards", "ps_tables", "ps_routing_epoch"}
"""Of the coordinator's endpoint only; tests/observe/test_discovery.py asks it."""


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ShardServer:
    return start_server(disk={"path": tmp_path, "max_bytes": DISK_BYTES}, watching={"metrics": True})


@pytest.fixture
def client(server: ShardServer) -> Iterator[ps.Client]:
    """Of a table of 200 rows, 100 of which have gone down."""
    with ps.connect(server.address) as connected:
        for name in ("t", "u"):
            connected.create_table(ps.TableConfig(name=name, dim=DIM, optimizer=ps.SGD(lr=1.0), swap_fraction=0.5))
        connected.push("t", IDS, block(IDS))
        until(lambda: value(scrape(server), "ps_rows_demoted_total", table="t") == 100)
        yield connected


def test_metrics_of_the_documents_exist() -> None:
    table = OPERATIONS.read_text().partition("### Metrics\n")[2].partition("\n### ")[0]
    named = set(re.findall(r"`(ps_[a-z_]+)`", table))
    assert {"ps_rows", "ps_degraded"} <= named <= {*DOCUMENTED_WITH_DISK, *DOCUMENTED_WITH_LOG} | COORDINATORS
    assert named >= set(DOCUMENTED_WITH_LOG)


def errors(found: Scrape, operation: str) -> float:
    return value(found, "ps_disk_errors_total", operation=operation)


def test_the_metrics_of_a_disk_are_those_documented(server: ShardServer, client: ps.Client) -> None:
    client.pull("t", IDS)
    assert labels_by_name(scrape(server)) == DOCUMENTED_WITH_DISK


def test_the_metrics_of_a_log_are_those_documented(start_server: StartServer, tmp_path: Path) -> None:
    log = {"mode": "sync", "path": tmp_path / "log"}
    logging = start_server(
        disk={"path": tmp_path / "disk", "max_bytes": DISK_BYTES}, watching={"metrics": True}, log=log
    )
    with ps.connect(logging.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=DIM))
        found = scrape(logging)
    assert set(DOCUMENTED_WITH_LOG) <= set(labels_by_name(found))
    assert value(found, "ps_log_records_total") == 1
    assert value(found, "ps_log_failed") == 0


def test_rows_are_counted_on_their_way_down_up_and_when_they_are_late(server: ShardServer, client: ps.Client) -> None:
    down = scrape(server)
    assert value(down, "ps_rows", table="t", tier="hot") == value(down, "ps_rows", table="t", tier="disk") == 100
    assert value(down, "ps_disk_rows_written_total", table="t") == 100
    assert value(down, "ps_disk_written_bytes_total", table="t") == 100 * VALUE
    assert value(down, "ps_rows_raised_total", table="t") == value(down, "ps_rows_late_total", table="t") == 0
    assert value(down, "ps_budget_bytes", kind="disk") == DISK_BYTES
    assert value(down, "ps_disk_bytes") > 0
    client.pull("t", IDS)  # without a prepare, and it leaves them where they are
    late = scrape(server)
    assert value(late, "ps_rows_late_total", table="t") == 100
    assert value(late, "ps_disk_rows_read_total", table="t") == 100
    assert value(late, "ps_disk_read_bytes_total", table="t") == 100 * VALUE
    assert value(late, "ps_rows_raised_total", table="t") == value(late, "ps_rows_on_time_total", table="t") == 0
    step = client.prepare({"t": IDS})
    until(lambda: value(scrape(server), "ps_rows_raised_total", table="t") == 100)
    step.pull()
    up = scrape(server)
    assert value(up, "ps_rows", table="t", tier="hot") == 200
    assert value(up, "ps_rows_late_total", table="t") == 100, "what was prepared is not late"
    assert value(up, "ps_rows_on_time_total", table="t") == 100
    for name in ("raised", "demoted", "late"):
        assert value(up, f"ps_rows_{name}_total", table="u") == 0
    assert value(up, "ps_degraded") == errors(up, "read") == errors(up, "write") == 0


def test_the_memory_of_rocksdb_is_told_by_purpose(server: ShardServer, client: ps.Client) -> None:
    found = scrape(server)
    told = client.memory_usage()["outside_tables"]
    for purpose in ("block_cache", "memtables", "table_readers"):
        assert value(found, "ps_process_bytes", purpose=purpose) == told[purpose]
    assert told["memtables"] > 100 * VALUE, "rows that went down are in a write buffer"


def test_a_degraded_shard_is_seen(server: ShardServer, client: ps.Client) -> None:
    server.shard.core.disk_health.refused(ps.DiskError("gone"))
    found = scrape(server)
    assert (value(found, "ps_degraded"), errors(found, "read"), errors(found, "write")) == (1, 0, 1)
