"""psctl against shards that run: what it says when one of them dies, has lost its rows, or hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ps
from benchmarks.harness.processes import Child, child
from ps.cli import app
from ps.cluster.coordinator.coordinator import Coordinator
from ps.wire.routing import ShardInfo
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET


def psctl(*arguments: str) -> tuple[int, str]:
    run = CliRunner().invoke(app, list(arguments))
    return run.exit_code, run.stdout


def asked(*arguments: str) -> tuple[int, Any]:
    code, text = psctl(*arguments, "--json")
    return code, json.loads(text)


def states(report: Any) -> dict[int, str]:
    return {shard["shard_id"]: shard["state"] for shard in report["shards"]}


@pytest.fixture
def trained(cluster: LoopbackCluster) -> LoopbackCluster:
    """Three shards with two tables, of which one was pushed to."""
    with ps.connect(cluster.address) as client:
        client.create_table(ps.TableConfig(name="clicks", dim=4))
        client.create_table(ps.TableConfig(name="items", dim=8, cold=ps.Fp16()))
        client.push("clicks", np.arange(300), np.ones((300, 4), np.float32))
        client.pull("clicks", np.arange(300))
    return cluster


def test_status_and_tables(trained: LoopbackCluster) -> None:
    code, report = asked("status", "--address", trained.address)
    assert code == 0
    assert states(report) == {0: "SERVING", 1: "SERVING", 2: "SERVING"}
    assert report["release"] == ps.__version__
    assert report["since_start"]["rows_pulled"] == report["since_start"]["rows_pushed"] == 300
    assert report["levels"]["rows"]["hot"] == 300
    code, text = psctl("status", "--address", trained.servers[1].address)
    assert code == 0
    assert text.count("SERVING") == 4
    code, report = asked("tables", "--address", trained.address)
    assert code == 0
    assert report["tables"]["clicks"]["tiers"]["hot"]["rows"] == 300
    assert report["tables"]["items"]["config"]["cold"]["kind"] == "fp16"
    assert (report["shards"], report["shards_that_answer"]) == (3, 3)
    code, text = psctl("tables", "items", "--address", trained.address)
    assert "half_life_pushes" in text
    assert "clicks" not in text


def test_a_shard_that_lost_its_rows(trained: LoopbackCluster) -> None:
    trained.servers[1].service.state_lost = "shard 1 was restarted"
    code, report = asked("status", "--address", trained.address)
    assert code == 1
    assert states(report)[1] == "STATE_LOST"
    assert report["shards"][1]["why"] == "shard 1 was restarted"
    assert "shard 1 is STATE_LOST: shard 1 was restarted" in psctl("status", "--address", trained.address)[1]


def test_a_shard_where_a_write_failed_half_way(trained: LoopbackCluster) -> None:
    commit = trained.servers[1].shard.core.commit
    commit.poisoned = "a write failed"  # the real way: test_poisoned.py
    code, report = asked("status", "--address", trained.address)
    assert (code, states(report)[1], report["shards"][1]["why"]) == (1, "POISONED", "a write failed")


def test_doctor_finds_a_shard_of_another_release(trained: LoopbackCluster) -> None:
    trained.servers[2].service.release = "0.0.9"
    code, report = asked("doctor", "--address", trained.address)
    assert code == 1
    checks = {check["check"]: check for check in report["checks"]}
    assert checks["release"]["level"] == "FAIL"
    assert "shard 2 runs 0.0.9" in checks["release"]["says"]
    assert {checks[name]["level"] for name in ("shards", "clock", "shard files")} == {"ok"}
    assert "install the same release" in psctl("doctor", "--address", trained.address)[1]


def test_top_shows_what_goes_by(trained: LoopbackCluster) -> None:
    code, text = psctl("top", "--once", "--interval", "0.2", "--address", trained.address)
    assert code == 0
    assert "pushes/s" in text
    assert text.count("SERVING") == 4
    code, text = psctl("top", "--once", "--interval", "0.2", "--address", trained.address, "--json")
    (line,) = text.splitlines()
    assert json.loads(line)["rates"]["pushes"] == 0


def test_nobody_there_is_one_line_with_exit_code_1(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    for arguments, says in (
        (["status", "--address", "127.0.0.1:1"], "Unavailable: "),
        (["top", "--once"], "NotFound: no service 'default' was started on this host; psctl up starts one"),
        (["size", "--ids", "many"], "InvalidArgument: 'many' is no number"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "ps.cli", *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 1
        assert run.stdout == ""
        assert run.stderr.startswith(says)
        assert len(run.stderr.splitlines()) == 1


def test_completion_is_there() -> None:
    environment = os.environ | {"_PSCTL_COMPLETE": "complete_bash", "COMP_WORDS": "psctl sta", "COMP_CWORD": "1"}
    run = subprocess.run(
        [sys.executable, "-c", "from ps.cli import app; app(prog_name='psctl')"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.split() == ["status"]


# processes that die and hang


Processes = tuple[Coordinator, list[Child]]


@pytest.fixture
def processes() -> Iterator[Processes]:
    """A coordinator here and two shards in processes of their own."""
    with ExitStack() as stack:
        shards = [stack.enter_context(child("benchmarks.harness.server", str(i), QUIET.to_json())) for i in range(2)]
        coordinator = Coordinator(QUIET)
        stack.callback(coordinator.stop)
        routing = coordinator.assemble([ShardInfo(i, shard.address) for i, shard in enumerate(shards)])
        for shard in shards:
            shard.ask(routing.to_proto().SerializeToString().hex())
        yield coordinator, shards


def test_a_shard_that_is_dead_or_hangs_neither_hides_the_others_nor_holds_up_the_screen(processes: Processes) -> None:
    coordinator, shards = processes
    address = coordinator.address
    with ps.connect(address) as client:
        client.create_table(ps.TableConfig(name="t", dim=4))
        client.push("t", np.arange(100), np.ones((100, 4), np.float32))
    assert states(asked("status", "--address", address)[1]) == {0: "SERVING", 1: "SERVING"}

    os.kill(shards[1].pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        code, report = asked("status", "--address", address, "--timeout", "0.5")
        assert time.monotonic() - started < 20, "an answer was waited for without end"
    finally:
        os.kill(shards[1].pid, signal.SIGCONT)
    assert code == 1
    assert states(report) == {0: "SERVING", 1: "DOWN"}
    assert report["levels"]["rows"]["hot"] == report["shards"][0]["stats"]["tables"]["t"]["rows"]["hot"] > 0

    os.kill(shards[1].pid, signal.SIGKILL)
    code, report = asked("status", "--address", address)
    assert code == 1
    assert states(report) == {0: "SERVING", 1: "DOWN"}
    code, text = psctl("status", "--address", address)
    assert "shard 1 is DOWN: " in text
    code, text = psctl("top", "--once", "--interval", "0.2", "--address", shards[0].address)
    assert "1 SERVING, 1 DOWN" in text
    code, report = asked("doctor", "--address", address)
    assert code == 1
    assert [check["level"] for check in report["checks"] if check["check"] == "shards"] == ["FAIL"]
