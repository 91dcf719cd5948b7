"""A service in a process may have a log: the next process goes on with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT

PROGRAM = """
import sys, ps
from ps.cluster.inprocess import start
config = ps.ServiceConfig(log={"mode": "interval", "path": sys.argv[1]})
with ps.connect(start(config, int(sys.argv[2]))) as client:
    table = ps.TableConfig(name="t", dim=2, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant())
    client.create_table(table, exist_ok=True)
    client.push("t", range(10), [[1.0, 1.0]] * 10)
    print(client.pull("t", range(10)).sum())
"""


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_the_next_process_goes_on(shards: int, tmp_path: Path) -> None:
    sums = []
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(shards)]
        sums.append(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    assert sums == ["-20.0", "-40.0"]
