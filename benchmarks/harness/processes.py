"""Starts child processes, waits until they answer, and always ends them, by their own handles."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from benchmarks.harness.report import REPOSITORY

START_TIMEOUT_S = 180.0
"""How long a start may take: a first start on a machine compiles the kernels."""
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Child:
    """A running process that has printed its address."""

    pid: int
    address: str
    _stdin: IO[str]
    _stdout: IO[str]

    def ask(self, line: str) -> str:
        """Sends a line and waits for the answer."""
        self._stdin.write(line + "\n")
        self._stdin.flush()
        return self._stdout.readline().strip()


@contextmanager
def child(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> Iterator[Child]:
    """Runs `python -m module`, which prints its address when it is ready and ends when its stdin does.

    So the child also ends when this process is killed. within: a command that becomes the one after it, `nsenter` say.
    """
    process = subprocess.Popen(
        [*within, sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env=os.environ | dict(environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    too_late = threading.Timer(START_TIMEOUT_S, process.terminate)
    too_late.start()
    try:
        address = process.stdout.readline().strip()
        too_late.cancel()
        if not address:
            raise RuntimeError(f"{module} ended before it was ready; its stderr says why")
        yield Child(process.pid, address, process.stdin, process.stdout)
    finally:
        too_late.cancel()
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it was killed before it had read its last line
        process.stdin.close()
    for stop in (process.terminate, process.kill):
        try:
            process.wait(STOP_TIMEOUT_S)
            break
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
    process.stdout.close()
