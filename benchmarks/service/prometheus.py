"""A Prometheus of our own on loopback, set up as deploy/ says, for tests and for the graphs of docs/operations.md."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.report import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
RULES = ("rules.yml", "alerts.yml")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 10.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens URLs without the proxy of http_proxy: Prometheus is on this host."""
PAUSE_S = 0.05

Samples = list[dict[str, Any]]
"""Samples as the HTTP API returns them: {"metric": labels, "value": [time, text]}, or "values" for a range."""


class NotInstalled(Exception):
    """Raised where there is no Prometheus."""


class BadQuery(Exception):
    """Raised when Prometheus does not understand a query; the message says why."""


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}"

    def query(self, expression: str) -> Samples:
        """Evaluates a query now; raises BadQuery."""
        found: Samples = self.get("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> Samples:
        """Evaluates a query from start to end (seconds since 1970); raises BadQuery."""
        answer = self.get("query_range", query=expression, start=str(start), end=str(end), step=str(step_s))
        found: Samples = answer["result"]
        return found

    def get(self, what: str, **parameters: str) -> Any:
        """Returns the data of an answer of /api/v1."""
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with DIRECT.open(url, timeout=ANSWER_TIMEOUT_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise BadQuery(f"{parameters}: {error.read().decode()}") from None

    def ready(self) -> bool:
        """Returns whether Prometheus answers yet."""
        try:
            with DIRECT.open(f"{self._url}/-/ready", timeout=ANSWER_TIMEOUT_S):
                return True
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, every: str, wait: str | None = None) -> Iterator[Prometheus]:
    """Scrapes what is in `folder`/targets and evaluates the rules `every` so often ("1s"). Alerts fire after `wait`, by
    default after as long as they say. Raises NotInstalled. Prometheus ends with the block."""
    program = shutil.which("prometheus")
    if program is None:
        raise NotInstalled("there is no `prometheus`: tests/install_packages.sh installs Debian's")
    _copy_settings(folder, every, wait)
    address = f"127.0.0.1:{_free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stderr=log,
        )
    try:
        running = Prometheus(address)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not running.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus did not start: {(folder / 'prometheus.log').read_text()}")
            time.sleep(PAUSE_S)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _copy_settings(folder: Path, every: str, wait: str | None) -> None:
    """Copies the settings in deploy/, with other intervals."""
    settings = (DEPLOY / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(re.sub(r"(_interval: )\w+", rf"\g<1>{every}", settings))
    for name in RULES:
        rules = (DEPLOY / name).read_text()
        (folder / name).write_text(rules if wait is None else re.sub(r"(\bfor: )\w+", rf"\g<1>{wait}", rules))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
