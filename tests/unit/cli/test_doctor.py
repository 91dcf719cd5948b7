"""psctl doctor: each check finds what it is for, on real ports, limits and disks where there are any."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import ray

import ps
from ps.cli.checks import disk as check_disk
from ps.cli.checks import host as check_host
from ps.cli.checks import log as check_log
from ps.cli.checks import ray as check_ray
from ps.cli.checks import service as check_service
from ps.cli.checks.findings import FAIL, OK, WARN, Finding, fail, ok, warn
from ps.cli.commands.doctor import lines, own_port
from ps.cluster.ray import local, ports
from ps.cluster.ray.state import RayState
from tests.unit.cli.surveys import many, watched
from tests.unit.storage.test_disk_failures import mounted

GIB = 1 << 30


def levels(found: Sequence[Finding]) -> dict[str, str]:
    return {finding.check: finding.level for finding in found}


def doctor(*arguments: str, files: int | None = None) -> tuple[int, dict[str, Any]]:
    """As a user starts it, perhaps with fewer file descriptors."""
    limited = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    run = subprocess.run(
        [*limited, sys.executable, "-m", "ps.cli", "doctor", "--json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout, run.stderr
    return run.returncode, {found["check"]: found for found in json.loads(run.stdout)["checks"]}


# the four that must be found


def test_a_port_in_use_is_found_and_by_whom() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, found = doctor("--port", str(port))
        assert code == 1
        assert found["port"]["level"] == FAIL
        assert f"port {port} is in use by process {os.getpid()} (" in found["port"]["says"]
        assert "--port" in found["port"]["fix"]
    assert check_host.port_free("127.0.0.1", port).level == OK


def test_the_port_of_the_service_itself_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor that is given the file of a service that runs; another's port is still one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert own_port("default", "") is None
        local.write_state(local.State("default", f"127.0.0.1:{port}", pid=0))
        assert own_port("default", "") == own_port("other", f"[::1]:{port}") == port
        assert own_port("other", "") is None
        assert check_host.port_free("127.0.0.1", port, own=port).level == OK
        assert check_host.port_free("127.0.0.1", port, own=port + 1).level == FAIL


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for start in (lambda: ps.launch(port=port), lambda: ports.check_free("127.0.0.1", port)):
            with pytest.raises(ps.InvalidArgument, match=rf"port {port} is in use by process .*--port"):
                start()
        assert not ray.is_initialized()
    ports.check_free("127.0.0.1", port)
    ports.check_free("auto", 0)
    with pytest.raises(ps.InvalidArgument, match=r"cannot listen on port 5 of host 'no\.such\.host'"):
        ports.check_free("no.such.host", 5)


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "8m"):
        settings = tmp_path / "service.yaml"
        settings.write_text(f"disk:\n  path: {tmp_path / 'small' / 'rows'}\nmemory:\n  ram_bytes: 100MB\n")
        code, found = doctor("--config", str(settings))
        assert code == 1
        assert found["disk"]["level"] == FAIL
        assert "is full: 8.00 MiB free, 32.0 MiB could not be written" in found["disk"]["says"]
        assert not any((tmp_path / "small").iterdir()), "nothing is left behind"


def log_findings(log: dict[str, Any], disk: dict[str, Any]) -> Finding:
    config = ps.ServiceConfig(log={"mode": "sync", **log}, disk=disk)
    (found,) = check_log.log(config, shards=2)
    return found


def test_a_log_is_given_room_also_beside_the_rows_on_its_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "32m"), mounted(tmp_path / "other", "8m"):
        small, other = tmp_path / "small", tmp_path / "other"
        rows = {"path": small / "rows", "max_bytes": "10MiB"}
        assert log_findings({"path": small / "log", "max_bytes": "4MiB"}, rows).level == OK
        beside = log_findings({"path": small / "log", "max_bytes": "7MiB"}, rows)
        assert beside.level == WARN
        assert "logs and rows of 2 shards may take 34.0 MiB more" in beside.says
        (small / "log").mkdir()
        (small / "log" / "1.log").write_bytes(bytes(3 << 20))
        assert "may take 31.0 MiB more" in log_findings({"path": small / "log", "max_bytes": "7MiB"}, rows).says
        assert log_findings({"path": other / "log", "max_bytes": "3MiB"}, rows).level == OK
        alone = log_findings({"path": other / "log", "max_bytes": "5MiB"}, rows)
        assert alone.level == FAIL
        assert "the logs of 2 shards may take 10.0 MiB more" in alone.says
        assert log_findings({"path": other / "log"}, rows).level == WARN
        assert "can take the room" in log_findings({"path": small, "max_bytes": "4MiB"}, {"path": small}).says
    assert not list(check_log.log(ps.ServiceConfig(), shards=2))


def test_too_few_file_descriptors_are_found(tmp_path: Path) -> None:
    settings = tmp_path / "service.yaml"
    settings.write_text(f"disk:\n  path: {tmp_path / 'rows'}\nmemory:\n  ram_bytes: 100MB\n")
    code, found = doctor("--config", str(settings), files=300)
    assert code == 1
    assert found["files"]["level"] == FAIL
    assert "a process may open 300 files, a shard needs 768" in found["files"]["says"]
    assert "ulimit -n" in found["files"]["fix"]


def test_another_release_on_a_shard_is_found() -> None:
    with watched() as (_, watch):
        survey = many(watch.look(), 2)
        survey.shards[1].stats["release"] = "0.0.9"  # type: ignore[index]
        found = check_service.releases(survey, ps.__version__)
        assert found.level == FAIL
        assert found.says == f"this client is embedding-ps {ps.__version__}; shard 1 runs 0.0.9"
        assert check_service.releases(many(watch.look(), 2), ps.__version__).level == OK


# this host


def test_what_this_project_was_installed_with_is_what_it_asks_for() -> None:
    try:
        metadata.distribution(check_host.DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pytest.skip("embedding-ps is not installed here")
    assert levels(list(check_host.python_and_packages())) == {"python": OK, "packages": OK}


@pytest.mark.parametrize(("limit", "level"), [(767, FAIL), (768, WARN), (1535, WARN), (1536, OK)])
def test_files_with_a_disk(limit: int, level: str) -> None:
    assert check_host.files(limit, has_disk=True).level == level
    assert check_host.files(limit, has_disk=False).level == OK


def test_memory() -> None:
    assert check_host.memory(4, None, 64 * GIB, 32 * GIB).level == WARN
    assert check_host.memory(4, 7 * GIB, 64 * GIB, 32 * GIB).level == OK
    assert check_host.memory(4, 8 * GIB, 64 * GIB, 32 * GIB).level == WARN
    assert check_host.memory(4, 16 * GIB, 64 * GIB, 32 * GIB).level == FAIL


def test_cores_and_cpu() -> None:
    assert check_host.cores(1).level == OK
    assert check_host.cores(10_000).level == WARN
    assert check_host.cpu("flags\t\t: fpu sse2 avx2 fma\n").says == "avx2"
    assert check_host.cpu("Features\t: fp asimd\n").level == OK
    assert check_host.cpu("flags : fpu sse2\n").level == WARN


def test_settings_of_the_kernel(tmp_path: Path) -> None:
    for path, text in (
        ("proc/sys/vm/overcommit_memory", "2\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    assert levels(list(check_host.kernel(tmp_path))) == {"overcommit": FAIL, "pages": WARN}
    assert not list(check_host.kernel(tmp_path / "nothing"))


def test_a_disk_is_measured_and_its_room_is_compared(tmp_path: Path) -> None:
    speed = check_disk.measured(tmp_path)
    assert speed.write_bytes_per_s > 1 << 20
    assert speed.reads_per_s > 10
    below = tmp_path / "not" / "yet"
    assert levels(list(check_disk.disk(below, 1, 1 << 20)))["disk"] == OK
    assert levels(list(check_disk.disk(below, 1, None)))["disk"] == WARN
    assert levels(list(check_disk.disk(below, 2, 1 << 60)))["disk"] == FAIL
    assert not list(tmp_path.iterdir())


def test_what_shards_have_taken_there_already_is_not_asked_for_again(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "64m"):
        (tmp_path / "small" / "rows").write_bytes(bytes(16 << 20))
        for wanted, level in ((60 << 20, OK), (80 << 20, FAIL)):
            assert levels(list(check_disk.disk(tmp_path / "small", 1, wanted)))["disk"] == level


def test_a_slow_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_disk, "SLOW_READS", 1e9)
    (found,) = (finding for finding in check_disk.disk(tmp_path, 1, 1 << 20) if finding.check == "disk speed")
    assert found.level == WARN
    assert found.says.startswith("too slow: writes ")


# Ray


def test_ray() -> None:
    assert check_ray.token({}).level == OK
    assert check_ray.token({"RAY_AUTH_MODE": "disabled"}).level == WARN
    state = RayState(2, 0, {"CPU": 4}, {"CPU": 3}, actors=0)
    assert levels(list(check_ray.findings(state, "default", 3))) == {"ray": OK}
    assert levels(list(check_ray.findings(state, "default", 4))) == {"ray": FAIL}
    busy = RayState(2, 1, {"CPU": 4}, {"CPU": 0}, actors=4)
    assert levels(list(check_ray.findings(busy, "default", 4))) == {"ray nodes": WARN, "ray": OK}
    assert [finding.level for finding in check_ray.cluster("127.0.0.1:1", "default", 1)] == [FAIL]


# a service


def test_shards_that_are_ill() -> None:
    with watched() as (_, watch):
        survey = watch.look()
    assert levels(list(check_service.shards(many(survey, 2)))) == {"shards": OK}
    ill = list(check_service.shards(many(survey, 3, ill=["its rows are gone", ps.Unavailable("refused")])))
    assert [finding.level for finding in ill] == [FAIL, FAIL]
    assert "psctl down" in ill[0].fix
    assert "Ray restarts it" in ill[1].fix


def test_clocks_files_and_budgets_of_shards() -> None:
    with watched(memory={"ram_bytes": 64 << 20}) as (_, watch):
        stats: Any = many(watch.look(), 3).stats
    now_s = stats[0]["process"]["clock_s"]
    assert check_service.clocks(stats, now_s + 0.1, took_s=0.2).level == OK
    stats[1]["process"]["clock_s"] += 5
    stats[2]["process"]["clock_s"] -= 1.1
    wrong = check_service.clocks(stats, now_s, took_s=0.2)
    assert wrong.level == FAIL
    assert "shard 1 is 5.0 s ahead" in wrong.says
    assert "shard 2" not in wrong.says, "it may have answered 0.2 s ago"
    assert check_service.files(stats).level == OK
    stats[1]["process"]["files_open"] = stats[1]["process"]["files_limit"] - 1
    assert check_service.files(stats).level == FAIL
    assert [finding.level for finding in check_service.memory(stats)] == [OK]
    stats[1]["process"]["host_ram_bytes"] = stats[0]["process"]["host_ram_bytes"] = 3 * (64 << 20) - 1
    assert [finding.level for finding in check_service.memory(stats)] == [FAIL]
    stats[1]["process"]["host"] = "another"
    assert len(list(check_service.memory(stats))) == 2
    stats[0]["budget"]["ram"] = None
    assert WARN in [finding.level for finding in check_service.memory(stats)]


# what is printed


def test_every_sentence_fits_and_has_its_mend_below() -> None:
    found = [ok("a", "x " * 60), warn("disk speed", "slow", "buy " * 40), fail("c", "broken", "fix it")]
    shown = lines(found, 80)
    assert max(map(len, shown)) <= 80
    assert shown[-1].strip() == "-> fix it"
    assert [line.split()[0] for line in shown if re.match(r"ok|warn|FAIL", line)] == [OK, WARN, FAIL]
    assert len(lines(found, None)) == 5
