"""docker/Dockerfile without Docker: its build commands run in a clean directory, and what they made runs its CMD and
its HEALTHCHECK on a machine made of namespaces. What is not shown: the base images, apt-get, and the file system's
layers."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.deploy.dockerfile import CleanDirectory, command, read
from tests.machines import LOOK, machines

ROOT = Path(__file__).parents[2]
STAGES = read(ROOT / "docker" / "Dockerfile")
ADDRESS = "192.0.2.1"


def test_stages() -> None:
    assert [*STAGES] == ["build", "build-service", "build-trainer", "run", "trainer", "service"]
    assert STAGES["build-service"].base == STAGES["build-trainer"].base == "build"
    for name in ("service", "trainer"):
        assert STAGES[name].base == "run"
        assert STAGES[name].last("USER") == "10001", "not root"
        assert f"--from=build-{name} /opt/venv /opt/venv" in STAGES[name].last("COPY") or name == "service"


def test_a_login_shell_finds_the_commands_too(tmp_path: Path) -> None:
    """As KubeRay's: /etc/profile sets PATH anew, then reads /etc/profile.d."""
    (made,) = [step for _, step in STAGES["run"].steps if "profile.d" in step]
    (echo,) = [part for part in made.split("&&") if "profile.d" in part]
    profile = tmp_path / "profile.sh"
    subprocess.run(["sh", "-c", echo.replace("/etc/profile.d/embedding-ps.sh", str(profile))], check=True)
    shell = ["env", "-i", "sh", "-c", f"PATH=/usr/bin:/bin; export PATH; . {profile}; env"]
    assert "PATH=/opt/venv/bin:/usr/bin:/bin\n" in subprocess.run(shell, capture_output=True, text=True).stdout


def test_what_is_kept_out_of_the_build_is_not_copied() -> None:
    let_in = {line[1:] for line in (ROOT / "docker/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {
        source
        for stage in STAGES.values()
        for instruction, arguments in stage.steps
        if instruction == "COPY" and "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied == let_in


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)  # pip, and a minute of CPU for the kernels
def test_what_the_build_makes_serves_and_is_healthy(tmp_path: Path) -> None:
    clean = CleanDirectory(tmp_path / "root", ROOT)
    clean.root.mkdir()
    for stage in ("build", "build-service"):
        clean.build(STAGES[stage])
    kernels = set((clean.root / "opt/kernels").rglob("*.nbc"))
    settings = tmp_path / "service.yaml"
    settings.write_text(
        (ROOT / "docker/service.yaml").read_text().replace("/var/lib/embedding-ps", "/mnt/embedding-ps")
    )

    environment = ["env", "-u", "PYTHONPATH", "PYTHONSAFEPATH=1", f"NUMBA_CACHE_DIR={clean.root}/opt/kernels"]
    environment.append(f"PATH={clean.root}/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    start = [clean.here(part) for part in command(STAGES["service"].last("CMD"))]
    start[-1] = str(settings)
    health = [*environment, *command(STAGES["service"].last("HEALTHCHECK"))]
    with machines(tmp_path, [ADDRESS]) as (machine,):
        service = machine.start([*environment, "bash", "-c", 'echo $$ > /mnt/pid; cd /mnt; exec "$@"', "bash", *start])
        end = time.monotonic() + 300
        while (probe := machine.start(health)).wait(timeout=60) and service.poll() is None:
            assert time.monotonic() < end, "it never gets healthy"
            probe.communicate()
            threading.Event().wait(1)
        probe.communicate()
        assert service.poll() is None, service.communicate()[0]
        shown = machine.run(*environment, "python", "-c", LOOK, f"{ADDRESS}:7370", timeout_s=60)
        assert shown.count(f"{ADDRESS}:") == shown.count("=SERVING") == 2
        machine.run("bash", "-c", "kill -TERM $(cat /mnt/pid)", timeout_s=10)
        printed, _ = service.communicate(timeout=120)
        assert service.returncode == 0, printed
    assert set((clean.root / "opt/kernels").rglob("*.nbc")) == kernels, "those of the build were what it needed"
