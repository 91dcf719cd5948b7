"""psctl as a user meets it: real processes, a state file in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.cluster.ray.local import is_alive
from tests.terminals import Terminal, terminal
from tests.waiting import until

pytestmark = pytest.mark.ray


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return environment | {"XDG_STATE_HOME": str(tmp_path), "COLUMNS": "160"}


def psctl(home: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ps.cli", *arguments]
    return subprocess.run(command, env=home, capture_output=True, text=True, timeout=180)


@pytest.mark.slow
def test_up_status_down(home: dict[str, str], tmp_path: Path) -> None:
    settings = tmp_path / "service.yaml"
    settings.write_text("limits: {max_ids: 1000}\nlaunch: {shards: 7}\n")  # options go before the file
    up = psctl(home, "up", "--shards", "2", "--config", str(settings))
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        state = json.loads((tmp_path / "embedding-ps" / "default.json").read_text())
        assert state["address"] in up.stdout
        with ps.connect(state["address"]) as client:
            client.create_table(ps.TableConfig(name="clicks", dim=4))
            client.push("clicks", np.arange(100), np.ones((100, 4), np.float32))
            with pytest.raises(ps.ResourceExhausted, match="max_ids"):
                client.pull("clicks", np.arange(4000))
        status = psctl(home, "status")
        assert status.returncode == 0, status.stderr
        assert "clicks" in status.stdout
        assert status.stdout.splitlines()[0].endswith("2 SERVING")
        again = psctl(home, "up")
        assert again.returncode == 2
        assert "runs already" in again.stderr
    finally:
        down = psctl(home, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not is_alive(state["pid"]), "the keeper has ended, and with it its Ray"
    with pytest.raises(ps.Unavailable):
        ps.connect(state["address"])
    gone = psctl(home, "status")
    assert gone.returncode == 1
    assert "no service 'default' was started on this host" in gone.stderr


def wait_for(terminal: Terminal, *words: str) -> None:
    """All of them on one screen, however many spaces are between them."""

    def seen() -> bool:
        screen = "\n".join(" ".join(line.split()) for line in terminal.screen())
        return all(some in screen for some in words)

    try:
        until(seen, 60)
    except AssertionError:
        raise AssertionError(f"not all of {words} are on:\n" + "\n".join(terminal.screen())) from None


@pytest.mark.slow
def test_top_and_status_follow_a_shards_death_and_return_in_a_terminal(home: dict[str, str], tmp_path: Path) -> None:
    """Ray restarts the shard; its rows are gone, and both say so."""
    up = psctl(home, "up", "--shards", "2", "--json")
    assert up.returncode == 0, up.stderr
    address = json.loads(up.stdout)["address"]
    try:
        with ps.connect(address) as client, terminal(tmp_path / "a") as top, terminal(tmp_path / "b") as status:
            client.create_table(ps.TableConfig(name="clicks", dim=4))
            client.push("clicks", np.arange(1000), np.ones((1000, 4), np.float32))
            victim = client.stats()["shards"][1]["process"]["pid"]
            ended = tmp_path / "top-ended"
            command = [sys.executable, "-m", "ps.cli", "top", "--interval", "0.3"]
            top.run(command, home, ended)
            wait_for(top, "2 SERVING", "▁", "0 SERVING", "1 SERVING")
            os.kill(victim, signal.SIGKILL)
            wait_for(top, "1 SERVING, 1 DOWN", "1 DOWN", "0 SERVING")
            wait_for(top, "1 SERVING, 1 STATE_LOST", "1 STATE_LOST", "its rows are gone", "0 SERVING")
            assert not ended.exists(), "it goes on"
            top.press("C-c")
            until(ended.exists, 20)
            assert ended.read_text().strip() == "0"
            assert not any("Traceback" in line for line in top.screen())
            shown = tmp_path / "status-ended"
            status.run([*command[:3], "status"], home, shown)
            until(shown.exists, 60)
            wait_for(status, "1 SERVING, 1 STATE_LOST", "clicks hot", "memory", "swap")
            assert shown.read_text().strip() == "1"
    finally:
        psctl(home, "down")


def test_an_unknown_setting_is_named(home: dict[str, str], tmp_path: Path) -> None:
    settings = tmp_path / "service.yaml"
    settings.write_text("grpc_thread: 3\n")
    up = psctl(home, "up", "--config", str(settings))
    assert up.returncode == 1
    assert "grpc_thread" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_ray_cluster_that_is_not_there_is_said_at_once(home: dict[str, str]) -> None:
    up = psctl(home, "up", "--ray-address", "127.0.0.1:1")
    assert up.returncode == 1
    assert "no Ray cluster at '127.0.0.1:1'" in up.stderr


def test_down_never_signals_a_process_that_is_not_its_keeper(home: dict[str, str], tmp_path: Path) -> None:
    """The state file outlived a reboot, and its process id belongs to somebody else now."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "embedding-ps").mkdir()
        state = {"name": "default", "address": "127.0.0.1:1", "pid": stranger.pid, "ray_address": ""}
        (tmp_path / "embedding-ps" / "default.json").write_text(json.dumps(state))
        down = psctl(home, "down")
        lives = stranger.poll() is None
        stranger.kill()
    assert lives
    assert down.returncode == 1
    assert "is gone" in down.stderr
