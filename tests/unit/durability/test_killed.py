"""A real process that appends is killed, again and again: what it has acknowledged is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from ps.runtime.files import RealFiles
from tests.documents import ROOT
from tests.unit.durability.appending import payload
from tests.unit.durability.logs import recovered

PROGRAM = "tests.unit.durability.appending"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "interval"])
def test_what_was_acknowledged_outlives_kill_9(mode: str, tmp_path: Path) -> None:
    chance, known = random.Random(mode), 0
    for _ in range(5):
        lines = chance.randint(5, 60)
        command = [sys.executable, "-m", PROGRAM, str(tmp_path), mode, str(known + 1)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(lines)]
            process.kill()
            said += map(int, process.stdout.read().splitlines())
        records, end = recovered(RealFiles(), tmp_path)
        assert said[-1] <= end.version
        assert records == [payload(version) for version in range(1, end.version + 1)]
        known = end.version
    assert len(end.segments) > 2
