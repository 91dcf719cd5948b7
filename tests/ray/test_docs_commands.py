"""The shell blocks of the documents run as they stand there, but for what CANNOT_RUN and SHORTER say.

tests/unit/test_documented_commands.py looks at what is not run, and at commands in sentences and tables.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.criteo_files import write_criteo
from tests.documents import ROOT, Block, files, shell_blocks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

CANNOT_RUN = {
    "make ": "sets up a .venv by downloading, and then takes minutes",
    ".venv/bin/pre-commit install": "writes into the .git that it finds",
    "pip install ": "downloads",
    "apt-get ": "changes this host",
    "systemctl ": "changes this host; tests/observe runs a Prometheus with these files",
    "ray up ": "needs machines; tests/ray/test_ray_up.py makes some",
    "RAY_UP_enable_autoscaler_v2=0 ray up ": "the same",
    "ray exec ": "the same",
    "ray down ": "the same",
    "docker ": "needs an engine; tests/deploy runs the Dockerfile's commands",
}
"""Beginning of a command -> why no test can run it."""

SHORTER = {
    "psctl top": " --once",  # it ends with Ctrl-C only
    "python -m worker.train --data flights": " --batch-size 16384",  # 20 steps instead of 640
    "python -m worker.train --data synthetic": " --rows 5000",  # the last one given counts
    "python -m benchmarks ttquality": " --quick",
}
"""Beginning of a command -> an option more, so that it takes seconds."""

CRITEO_ROWS = 2000
LIMIT_S = 240
ELSEWHERE = {"/var/lib/embedding-ps": "disk", "/etc/prometheus": "prometheus"}
"""Folders of a host that the documents name -> below the test's own folder."""


class Desk:
    """A folder to type commands in, with the files that they name and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("deploy", "docker"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "docs" / "img").mkdir(parents=True)
        (folder / "prometheus" / "targets").mkdir(parents=True)
        for name, content in files().items():
            (folder / name).write_text(self.here(yaml.safe_dump(content)))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self._environment = environment | {
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }

    def here(self, text: str) -> str:
        """With folders of the host below this one."""
        for theirs, ours in ELSEWHERE.items():
            text = text.replace(theirs, str(self.folder / ours))
        return text

    def start(self, command: str) -> subprocess.Popen[str]:
        """As bash runs it."""
        return subprocess.Popen(
            ["bash", "-c", self.here(command)],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, command: str) -> str:
        """What it prints. Fails unless it ends well."""
        return finish(self.start(command), command)

    @property
    def address(self) -> str:
        """Of the service that `psctl up` has started here, or ""."""
        state = self.folder / "state" / "embedding-ps" / "default.json"
        return str(json.loads(state.read_text())["address"]) if state.exists() else ""

    def clear(self) -> None:
        """Ends a service that a failed test has left."""
        if self.address:
            self.type("psctl down")


def finish(process: subprocess.Popen[str], command: str) -> str:
    try:
        printed, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        raise AssertionError(f"{command}: not done after {LIMIT_S} s\n{printed}") from None
    judged_bad = command.startswith("psctl doctor") and "FAIL" in printed  # of this host, and said so
    assert process.returncode == (1 if judged_bad else 0), f"{command}: {process.returncode}\n{printed}"
    return printed


def reason(command: str) -> str:
    """Why it is not run, or ""."""
    return next((why for start, why in CANNOT_RUN.items() if command.startswith(start)), "")


def shorter(command: str) -> str:
    """Without its comment, and with what SHORTER adds before a redirection."""
    command = re.sub(r"\s+#.*", "", command)
    for start, more in SHORTER.items():
        if command.startswith(start):
            typed, to, file = command.partition(" > ")
            return typed + more + to + file
    return command


BLOCKS = [block for block in shell_blocks() if not all(map(reason, block.commands))]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    try:
        yield desk
    finally:
        desk.clear()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of one that was started as README says."""
    (up,) = {
        c for block in BLOCKS for c in block.commands if c.startswith("psctl up") and block.document == "README.md"
    }
    desk = Desk(tmp_path_factory.mktemp("service"))
    try:
        desk.type(up)
        yield desk.address
    finally:
        desk.clear()


def on_each_of_two_hosts(desk: Desk, command: str) -> None:
    """Both are this one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        command = command.replace("HOST:29500", f"127.0.0.1:{probe.getsockname()[1]}")
    both = [desk.start(command) for _ in range(2)]
    try:
        for process in both:
            finish(process, command)
    finally:
        for process in both:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block(block: Block, desk: Desk, request: pytest.FixtureRequest) -> None:
    printed = []
    for command in block.commands:
        if reason(command):
            continue
        if "HOST:PORT" in command:
            command = command.replace("HOST:PORT", request.getfixturevalue("service"))
        for path in re.findall(r"--path (\S+)", command):
            write_criteo(desk.folder / path, CRITEO_ROWS, seed=0)
        if "on each of two hosts" in command:
            on_each_of_two_hosts(desk, shorter(command))
        else:
            printed.append(desk.type(shorter(command)))
    assert not block.printed or shown(block.printed) == shown(printed[0]), "what the document shows of the first"
    assert not desk.address, "who starts a service in a block ends it there"


def shown(text: str) -> list[str]:
    """Lines, spaces at their ends left out."""
    return [line.rstrip() for line in text.strip().splitlines()]


def test_the_settings_of_the_documents_are_right(desk: Desk) -> None:
    for name in files():
        desk.type(f"psctl config check {name}")


def test_what_cannot_run_is_all_in_the_documents() -> None:
    commands = [command for block in shell_blocks() for command in block.commands]
    for start in (*CANNOT_RUN, *SHORTER):
        assert any(command.startswith(start) for command in commands), start
